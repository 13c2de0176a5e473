"""What the machine and the queues do meanwhile: CPU and memory of processes here, messages in partitions' queues."""

import asyncio
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiormq
import psutil
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

ROLES: Final = ("gateway", "roomworker", "medianode", "run")
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - to recognise, not to bind
WHOLE_LOOK: Final = 0.4
"""Seconds over which the questions about all queues are spread."""


@dataclass(frozen=True)
class Sample:
    """One moment. CPU in cores (1.0: one core is full), memory in bytes; `queued` is None if nobody was asked.

    `machine` is all that runs here, also what is not watched.
    """

    at: float
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    queued: int | None = None
    machine: float = 0.0


class Watch:
    """Of named processes, the generators and, with `amqp_url`, the queues `rooms.0` …"""

    def __init__(self, processes: dict[str, psutil.Process], amqp_url: str = "", partitions: int = 32) -> None:
        self._processes = processes
        self._generators: dict[int, psutil.Process] = {}
        self._queues = Queues(amqp_url, partitions) if amqp_url else None

    @property
    def names(self) -> list[str]:
        return list(self._processes)

    async def sample(self, at: float, generators: Iterable[int]) -> Sample:
        cpu: dict[str, float] = {}
        memory: dict[str, int] = {}
        for name, process in [*self._processes.items(), *self._generating(generators)]:
            try:
                with process.oneshot():
                    cpu[name] = cpu.get(name, 0.0) + process.cpu_percent() / 100
                    memory[name] = memory.get(name, 0) + process.memory_info().rss
            except psutil.Error:
                continue
        queued = await self._queues.depth() if self._queues is not None else None
        machine = round(psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1), 3)
        return Sample(round(at, 2), {name: round(it, 3) for name, it in cpu.items()}, memory, queued, machine)

    def _generating(self, pids: Iterable[int]) -> Iterator[tuple[str, psutil.Process]]:
        for pid in pids:
            try:
                process = self._generators.setdefault(pid, psutil.Process(pid))
            except psutil.Error:
                continue
            yield "load generators", process

    async def close(self) -> None:
        if self._queues is not None:
            await self._queues.close()


class Queues:
    """Asks RabbitMQ, without changing anything; says nothing while it does not answer."""

    def __init__(self, url: str, partitions: int) -> None:
        self._url = url
        self._partitions = partitions
        self._connection: Any = None
        self._channel: Any = None

    async def depth(self) -> int | None:
        """Messages that wait in all partitions' queues (not those that a room worker has in work)."""
        try:
            async with asyncio.timeout(0.4 + WHOLE_LOOK):
                if self._channel is None or self._channel.is_closed:
                    await self._connect()
                depth = 0
                for partition in range(self._partitions):
                    answer = await self._channel.queue_declare(f"rooms.{partition}", passive=True)
                    depth += int(answer.message_count or 0)
                    await asyncio.sleep(WHOLE_LOOK / self._partitions)  # all at once would delay what is measured
                return depth
        except ChannelNotFoundEntity:
            self._channel = None
            self._partitions -= 1  # there are fewer
            return None
        except (AMQPError, OSError, TimeoutError):
            self._channel = None
            return None

    async def _connect(self) -> None:
        if self._connection is None or self._connection.is_closed:
            self._connection = await aiormq.connect(self._url)
        self._channel = await self._connection.channel()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def find(urls: Sequence[str], watched: Sequence[str]) -> dict[str, psutil.Process]:
    """The processes to look at, by a name for people.

    `watched` are pids, or parts of a command line. Without any, those of the cluster whose gateway listens at one of
    `urls` on this machine: all Plenary processes with the same Redis, their engines, and the servers they use.
    """
    if watched:
        found = [process for text in watched for process in _matching(text)]
    else:
        gateways = _listening({url.port for url in map(urlsplit, urls) if url.hostname in LOCAL and url.port})
        found = _cluster(gateways) if gateways else []
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


def _setting(process: psutil.Process, name: str) -> str:
    """What the process was given, on its command line or in its environment."""
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
    for before, word in itertools.pairwise(command):
        if word in ROLES and before.rpartition("/")[2] == "plenary":
            return word
    return ""


def _named(processes: Sequence[psutil.Process]) -> dict[str, psutil.Process]:
    """`room worker`, or `room worker 1` and `room worker 2`."""
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
    program = command[0].rpartition("/")[2] if command else "process"
    known = {"beam.smp": "RabbitMQ", "redis-server": "Redis", "mediasoup-worker": "media engine"}
    return next((name for part, name in known.items() if part in program), program)


def _order(process: psutil.Process) -> tuple[int, int]:
    kinds = ("plenary run", "gateway", "room worker", "media node", "media engine", "RabbitMQ", "Redis")
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
