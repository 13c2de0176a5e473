"""Finds the processes of this machine that a load test watches."""

import itertools
import os
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import psutil

ROLES: Final = ("gateway", "roomworker", "medianode", "run")
SERVERS: Final = {
    "haproxy": "HAProxy",
    "beam.smp": "RabbitMQ",
    "redis-server": "Redis",
    "mediasoup-worker": "media engine",
}
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - to recognise, not to bind


def watched_processes(urls: Sequence[str], watched: Sequence[str]) -> dict[str, psutil.Process]:
    """Returns the processes to watch, by a name for people.

    `watched` has pids and parts of a command line. If it is empty, the processes are those of the cluster whose
    gateway listens at one of `urls` on this machine: all Plenary processes with the same Redis, their engines, and
    their servers. If Docker listens there, they are those in containers.
    """
    if watched:
        found = [process for text in watched for process in _matching(text)]
    else:
        listening = _listening({url.port for url in map(urlsplit, urls) if url.hostname in LOCAL and url.port})
        docker = any("docker-proxy" in " ".join(_command(process)) for process in listening)
        found = _in_containers() if docker else _cluster(listening) if listening else []
    unique = {process.pid: process for process in found if process.pid != os.getpid()}
    return _named(sorted(unique.values(), key=_order))


def _matching(text: str) -> list[psutil.Process]:
    if text.isdigit():
        return [psutil.Process(int(text))] if psutil.pid_exists(int(text)) else []
    return [process for process in psutil.process_iter() if text in " ".join(_command(process))]


def _listening(ports: set[int]) -> list[psutil.Process]:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return []
    listening = [it for it in connections if it.status == psutil.CONN_LISTEN and it.pid and it.laddr]
    pids = {it.pid for it in listening if getattr(it.laddr, "port", 0) in ports}
    return [psutil.Process(pid) for pid in pids]


def _cluster(gateways: Sequence[psutil.Process]) -> list[psutil.Process]:
    found = list(gateways)
    ours = {url for process in gateways if (url := _setting(process, "redis-url"))}
    if ours:
        for process in psutil.process_iter():
            if _role(_command(process)) and _setting(process, "redis-url") in ours:
                found.append(process)
    for process in list(found):
        found += [child for child in _children(process) if "mediasoup-worker" in " ".join(_command(child))]
    servers = {url for process in found for name in ("redis-url", "amqp-url") if (url := _setting(process, name))}
    ports = {it.port or {"redis": 6379, "amqp": 5672}.get(it.scheme, 0) for it in map(urlsplit, servers)}
    return found + _listening(ports)


def _in_containers() -> list[psutil.Process]:
    """Returns the visible roles and servers that are in other network namespaces than this process."""
    here = _network(psutil.Process())
    return [it for it in psutil.process_iter() if _is_part(it) and _network(it) not in ("", here)]


def _is_part(process: psutil.Process) -> bool:
    command = _command(process)
    return bool(command) and bool(_role(command) or _server(command))


def _network(process: psutil.Process) -> str:
    try:
        return os.readlink(f"/proc/{process.pid}/ns/net")
    except OSError:
        return ""


def _setting(process: psutil.Process, name: str) -> str:
    """Returns a setting of a process, from its command line or its environment."""
    command = _command(process)
    for at, word in enumerate(command):
        if word == f"--{name}" and at + 1 < len(command):
            return command[at + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    try:
        given = process.environ().get(f"PLENARY_{name.replace('-', '_').upper()}", "")
    except (psutil.Error, OSError):
        given = ""
    default = {"redis-url": "redis://127.0.0.1:6379/0", "amqp-url": "amqp://guest:guest@127.0.0.1:5672/"}
    return given or ("" if _role(command) in ("", "run") else default[name])


def _role(command: Sequence[str]) -> str:
    if command and command[0].endswith("docker-init"):
        return ""  # this process only waits for the one that has the role
    for before, word in itertools.pairwise(command):
        if word in ROLES and before.rpartition("/")[2] == "plenary":
            return word
    return ""


def _named(processes: Sequence[psutil.Process]) -> dict[str, psutil.Process]:
    """Names processes: `room worker`, or `room worker 1` and `room worker 2`."""
    kinds = [_kind(process) for process in processes]
    names = [
        f"{kind} {kinds[: at + 1].count(kind)}" if kinds.count(kind) > 1 else kind for at, kind in enumerate(kinds)
    ]
    return dict(zip(names, processes, strict=True))


def _kind(process: psutil.Process) -> str:
    command = _command(process)
    words = {"gateway": "gateway", "roomworker": "room worker", "medianode": "media node", "run": "plenary run"}
    if role := _role(command):
        return words[role]
    return _server(command) or (command[0].rpartition("/")[2] if command else "process")


def _server(command: Sequence[str]) -> str:
    program = command[0].rpartition("/")[2] if command else ""
    return next((name for part, name in SERVERS.items() if part in program), "")


def _order(process: psutil.Process) -> tuple[int, int]:
    kinds = ("plenary run", "HAProxy", "gateway", "room worker", "media node", "media engine", "RabbitMQ", "Redis")
    kind = _kind(process)
    return (kinds.index(kind) if kind in kinds else len(kinds), process.pid)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []
