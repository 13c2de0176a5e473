"""Starts roles as processes of their own on given servers: a cluster that is small enough for a test."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

import redis

from roomworker.partitions.assignment import ranks

PATIENCE = 120.0
"""Seconds for a process to start or to end, however busy the machine is."""
ROOT = Path(__file__).parents[1]


class Process(Protocol):
    """The part of `subprocess.Popen` that is used here."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


class Start(Protocol):
    """Starts processes: runs the module `program` with these arguments and appends its output to `log`."""

    def __call__(
        self, program: str, arguments: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]
    ) -> Process: ...


def from_scratch(program: str, arguments: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]) -> Process:
    """Runs `python -m program`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", program, *arguments], cwd=cwd, stdout=output, stderr=output, env=env
        )


class Role:
    """A `plenary …` process.

    `url` is a gateway's address, `api_url` that of its server API, and `metrics_url` that of a role's metrics, if the
    cluster has them. The process chooses its ports (each is given as 0) and logs them, see `listening`. `program` is
    another module that takes the same arguments. The process is started by `start`, by default `Role.start`.
    """

    start: ClassVar[Start] = staticmethod(from_scratch)

    def __init__(
        self,
        name: str,
        arguments: list[str],
        logs: Path,
        program: str = "plenary",
        start: Start | None = None,
    ) -> None:
        self.name = name
        self.url = ""
        self.api_url = ""
        self.metrics_url = ""
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as log:
            self._log_before = log.tell()
        begin = start or Role.start
        self.process = begin(program, arguments, cwd=ROOT, log=self.log, env=_environment())

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def check(self) -> None:
        """Raises if the process has ended, with what it said."""
        if not self.alive:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def listening(self, what: Literal["gateway", "api", "metrics"]) -> str:
        """Returns the http address of this part when the process has logged that it listens there, before that ""."""
        for line in self.log.read_bytes()[self._log_before :].splitlines():
            if b".listening" in line:
                with suppress(json.JSONDecodeError):  # only a part of the line has been written yet
                    entry = json.loads(line)
                    if entry["event"] == f"{what}.listening":
                        return f"http://127.0.0.1:{entry['port']}"
        return ""

    def until_listening(self, what: Literal["gateway", "api", "metrics"]) -> str:
        """Waits for the address. Raises AssertionError with the last log lines if the process ends before."""
        wait_until(lambda: bool(self.listening(what)), self)
        return self.listening(what)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ends the process by SIGTERM and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end on SIGTERM:\n{self.said()}") from None


def _environment() -> dict[str, str]:
    """Returns this process's environment without the variables that configure Plenary."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PLENARY_")} | {
        name: os.environ[name] for name in ("PLENARY_MEDIASOUP_WORKER", "PLENARY_CACHE") if name in os.environ
    }


class Cluster:
    """Starts roles and waits until they serve.

    `gateway_options` and `worker_options` are added to the arguments of each; with an `api_key` each gateway
    serves the server API, with `metrics` every process its metrics. `worker_program` is run instead of `plenary` for
    room workers. `start` is how each process is started, if not by `Role.start`.
    """

    def __init__(
        self,
        redis_url: str,
        amqp_url: str,
        logs: Path,
        partitions: int = 32,
        *,
        gateway_options: Sequence[str] = (),
        worker_options: Sequence[str] = (),
        worker_program: str = "plenary",
        api_key: str = "",
        metrics: bool = False,
        start: Start | None = None,
    ) -> None:
        self.redis: Any = redis.Redis.from_url(redis_url, socket_timeout=5)  # or its answers are unions of types
        self._logs = logs
        self._servers = ["--redis-url", redis_url, "--amqp-url", amqp_url, "--partitions", str(partitions)]
        self._gateway_options = gateway_options
        self._worker_options = worker_options
        self._worker_program = worker_program
        self._api_key = api_key
        self._metrics = metrics
        self._start_process = start
        self.partitions = partitions
        self.roles: dict[str, Role] = {}

    def start(self, engine: str, *, gateways: int, workers: int, nodes: int = 1) -> None:
        """Starts node1, …, then side by side worker1, … and gateway1, …"""
        for n in range(nodes):
            self.medianode(f"node{n + 1}", engine)
        with ThreadPoolExecutor() as pool:
            starting = [
                *(pool.submit(self.roomworker, f"worker{n + 1}") for n in range(workers)),
                *(pool.submit(self.gateway, f"gateway{n + 1}") for n in range(gateways)),
            ]
            for role in starting:
                role.result()

    @contextmanager
    def running(
        self, engine: str = "null", *, gateways: int = 2, workers: int = 2, nodes: int = 1
    ) -> Iterator["Cluster"]:
        """Starts the cluster and stops it at the end. Prints the output of its processes."""
        try:
            self.start(engine, gateways=gateways, workers=workers, nodes=nodes)
            yield self
        finally:
            print(self.said())
            self.stop()

    @asynccontextmanager
    async def running_async(
        self, engine: str = "null", *, gateways: int = 2, workers: int = 2, nodes: int = 1
    ) -> AsyncIterator["Cluster"]:
        """Does what `running` does; clients on this event loop may answer while the gateways close their sockets.

        A gateway waits 3 s for a client that does not.
        """
        try:
            self.start(engine, gateways=gateways, workers=workers, nodes=nodes)
            yield self
        finally:
            print(self.said())
            await asyncio.to_thread(self.stop)

    def gateway(self, name: str) -> Role:
        """Starts a gateway, at a port that it chooses.

        Clients that must find it again after a restart need a proxy in front: its old port may be taken.
        """
        api = ["--api-key", self._api_key, "--api-port", "0"] if self._api_key else []
        options = ["--host", "127.0.0.1", "--port", "0", *api, *self._gateway_options]
        role = self._start("gateway", name, options)
        role.url = role.until_listening("gateway")
        role.api_url = role.until_listening("api") if api else ""
        wait_until(lambda: ready(role.url), role)
        return role

    def roomworker(self, name: str) -> Role:
        role = self._start("roomworker", name, [*self._worker_options], self._worker_program)
        wait_until(lambda: self.registered("plenary:workers", name), role)
        return role

    def medianode(self, name: str, engine: str = "mediasoup") -> Role:
        address = ["--listen-ip", "127.0.0.1", "--announced-ip", "127.0.0.1"]
        role = self._start("medianode", name, ["--engine", engine, "--engines", "1", *address])
        wait_until(lambda: self.registered("plenary:nodes", name), role)
        return role

    def _start(self, kind: str, name: str, options: list[str], program: str = "plenary") -> Role:
        metrics = ["--metrics-port", "0"] if self._metrics else []
        role = Role(
            name, [kind, "--name", name, *self._servers, *options, *metrics], self._logs, program, self._start_process
        )
        self.roles[name] = role
        role.metrics_url = role.until_listening("metrics") if metrics else ""
        return role

    def registered(self, registry: str, name: str) -> bool:
        return any(member.decode().startswith(f"{name}-") for member in self.redis.hkeys(registry))

    def shares(self) -> dict[str, set[int]]:
        """Returns the partitions that each living room worker serves, by its last heartbeat and by its name."""
        return {_name(worker): active for worker, active in self._living_workers().items()}

    def _living_workers(self) -> dict[str, set[int]]:
        entries = {member.decode(): info for member, info in self.redis.hgetall("plenary:workers").items()}
        return {
            worker: set(json.loads(info).get("active", ()))
            for worker, info in entries.items()
            if self.roles[_name(worker)].alive
        }

    def active(self, partition: int) -> str:
        """Returns the name of the living room worker that serves the partition, or ""."""
        return next((name for name, active in self.shares().items() if partition in active), "")

    @property
    def balanced(self) -> bool:
        """Whether every partition is served by that living room worker to which it is assigned, and by no other."""
        workers = self._living_workers()
        assigned: dict[str, set[int]] = {worker: set() for worker in workers}
        for partition, ranked in enumerate(ranks(self.partitions, list(workers))):
            for primary in ranked[:1]:
                assigned[primary].add(partition)
        return bool(workers) and workers == assigned

    def stop(self) -> None:
        """Ends every process in good order, gateways first: they wait until their clients' ends are applied."""
        codes: dict[str, int] = {}
        with ThreadPoolExecutor() as pool:
            for are_gateways in (True, False):
                living = [role for role in self.roles.values() if bool(role.url) is are_gateways and role.alive]
                codes |= dict(zip((role.name for role in living), pool.map(Role.stop, living), strict=True))
        self.redis.close()
        assert not any(codes.values()), codes

    def said(self) -> str:
        return "\n".join(f"--- {role.name}\n{role.said()}" for role in self.roles.values())


def _name(worker: str) -> str:
    """Returns the name of a process in the registry, without what makes its id unique."""
    return worker.rpartition("-")[0]


def address(role: Role) -> tuple[str, int]:
    """Returns a gateway's host and port."""
    parts = urlsplit(role.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition: Callable[[], bool], role: Role) -> None:
    """Polls until a condition holds that no event announces, such as another process being ready."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        role.check()
        if time.monotonic() > deadline:
            raise AssertionError(f"{role.name} is not ready after {PATIENCE} s:\n{role.said()}")
        time.sleep(0.05)


@contextmanager
def all_in_one(logs: Path, *options: str, start: Start | None = None) -> Iterator[Role]:
    """Runs `plenary run` on memory."""
    address = ["--host", "127.0.0.1", "--port", "0", "--listen-ip", "127.0.0.1", "--announced-ip", "127.0.0.1"]
    role = Role("run", ["run", *address, "--engines", "1", *options], logs, start=start)
    try:
        role.url = role.until_listening("gateway")
        wait_until(lambda: ready(role.url), role)
        yield role
    finally:
        if role.process.poll() is None:
            role.stop()
