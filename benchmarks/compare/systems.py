"""Starts the compared systems, each as processes of its own that run for one measurement."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import psutil
import redis

from benchmarks.compare.clients import LoadClient, PlainClient, SocketIoClient
from benchmarks.compare.processes import listening
from devtools.cluster import Cluster
from devtools.server_processes import REDIS_OPTIONS, STOP_WITHIN, RabbitmqProcess, RedisProcess
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES

NODE_FOLDER: Final = Path(__file__).parent / "node"
ROOT: Final = Path(__file__).parents[2]


class Unavailable(Exception):
    """A system cannot run here; the text says why, and what to do."""


class Redis(RedisProcess):
    """A private Redis. `fsync` is its appendfsync."""

    def __init__(self, fsync: str) -> None:
        super().__init__()
        self.fsync = fsync

    def _command(self) -> list[str]:
        given = super()._command()
        assert given[-len(REDIS_OPTIONS) :] == list(REDIS_OPTIONS)
        return [*given, "--appendfsync", self.fsync]


class Servers:
    """Runs RabbitMQ and one Redis for each fsync policy all the time; they are idle while others are measured."""

    def __init__(self) -> None:
        self.rabbitmq = RabbitmqProcess()
        self.redis = {fsync: Redis(fsync) for fsync in ("always", "everysec")}

    def __enter__(self) -> "Servers":
        try:
            for server in (self.rabbitmq, *self.redis.values()):
                server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self.rabbitmq, *self.redis.values()):
            server.stop()


class System(ABC):
    """A server with an address for clients. A context manager: the server runs inside."""

    name: str
    client: ClassVar[type[LoadClient]]
    url: str

    @abstractmethod
    def __enter__(self) -> "System": ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @property
    @abstractmethod
    def processes(self) -> dict[str, psutil.Process]:
        """The processes of the system, by name."""
        ...

    async def counters(self) -> dict[str, int]:
        """Returns the present totals since the start of the system."""
        return {}

    def collect(self) -> None:  # noqa: B027 - most wait for nothing
        """Collects garbage, if the system does so only on demand."""


class Plenary(System):
    """A gateway, a room worker and a media node with the null engine; shipped defaults except for the rate limit."""

    client = PlainClient
    _BEAT: Final = 1.5
    """Seconds after which every process has updated its entry in Redis."""

    def __init__(self, servers: Servers, fsync: str) -> None:
        self.name = "Plenary" if fsync == "always" else f"Plenary, {fsync}"
        self._rabbitmq, self._redis = servers.rabbitmq, servers.redis[fsync]

    def __enter__(self) -> "Plenary":
        self.logs = Path(tempfile.mkdtemp(prefix="plenary-compare-"))
        unlimited = ["--message-rate", "0"]
        self._cluster = Cluster(self._redis.url, self._rabbitmq.url, self.logs, gateway_options=unlimited)
        self._cluster.redis.flushall()
        try:
            self._cluster.start("null", gateways=1, workers=1)
        except BaseException:
            self._cluster.stop()
            raise
        self.url = self._cluster.roles["gateway1"].url
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.stop()
        shutil.rmtree(self.logs, ignore_errors=True)

    @property
    def processes(self) -> dict[str, psutil.Process]:
        roles = {"gateway": "gateway1", "room worker": "worker1", "media node": "node1"}
        return {name: psutil.Process(self._cluster.roles[role].process.pid) for name, role in roles.items()} | {
            "RabbitMQ": listening(self._rabbitmq.port),
            "Redis": listening(self._redis.port),
        }

    async def counters(self) -> dict[str, int]:
        await asyncio.sleep(self._BEAT)
        told = {
            registry: [json.loads(value) for value in self._cluster.redis.hvals(f"plenary:{registry}")]
            for registry in ("gateways", "workers")
        }
        return {
            "amqp_messages": sum(member["published"] for members in told.values() for member in members),
            "redis_round_trips": sum(member["round_trips"] for member in told["workers"]),
        }

    def redis_bytes(self) -> dict[str, int]:
        """Returns the memory of all rooms, and the part of it that is streams kept for repetition."""
        database: redis.Redis = self._cluster.redis
        keys: list[bytes] = list(database.scan_iter("room:*", count=1000))
        sizes: dict[bytes, Any] = {key: database.memory_usage(key, samples=0) for key in keys}
        streams = sum(size for key, size in sizes.items() if key.endswith(b":out"))
        return {"total": sum(sizes.values()), "streams": streams}


class _Child(System):
    """Runs a process that prints its port."""

    process: subprocess.Popen[str]

    @abstractmethod
    def _command(self) -> list[str]: ...

    def __enter__(self) -> "_Child":
        environment = {**os.environ, "NODE_ENV": "production"}
        command = self._command()
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603
        try:
            line = self._line()
            if not line:
                raise Unavailable(f"{self.name} did not start")
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://127.0.0.1:{int(line)}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class NodeProcess(_Child):
    """Runs protoo-server and the room objects of mediasoup 2 in one Node process, which stores nothing."""

    name = "Node"
    client = PlainClient

    def __init__(self) -> None:
        if shutil.which("node") is None:
            raise Unavailable("Node.js is not installed")
        if not (NODE_FOLDER / "node_modules" / ".package-lock.json").exists():
            raise Unavailable("the Node packages are not installed: `make bench` does it")

    def _command(self) -> list[str]:
        capabilities = msgspec.json.encode(DEFAULT_ROOM_CAPABILITIES).decode()
        return ["node", "--expose-gc", str(NODE_FOLDER / "main.js"), capabilities]

    @property
    def processes(self) -> dict[str, psutil.Process]:
        return {"node": psutil.Process(self.process.pid)}

    def collect(self) -> None:
        self.process.send_signal(signal.SIGUSR2)
        assert self._line() == "collected"


class SocketIo(_Child):
    """Runs a python-socketio server that shares rooms over RabbitMQ (AsyncAioPikaManager)."""

    name = "python-socketio"
    client = SocketIoClient

    def __init__(self, servers: Servers) -> None:
        try:
            import socketio  # noqa: F401
        except ImportError:
            raise Unavailable("python-socketio is not installed: `make bench` does it") from None
        self._rabbitmq = servers.rabbitmq

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.compare.socketioserver", self._rabbitmq.url]

    @property
    def processes(self) -> dict[str, psutil.Process]:
        return {"server": psutil.Process(self.process.pid), "RabbitMQ": listening(self._rabbitmq.port)}
