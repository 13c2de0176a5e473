"""The cluster that is attacked, under the compose file's memory limits, and the pair of victims in it."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from devtools.cluster import Cluster, ready
from devtools.probes import empty_rabbitmq
from devtools.server_processes import RABBITMQ_BIN, RabbitmqProcess, RedisProcess, ServerProcess
from devtools.servers import Server
from devtools.starting import Unavailable
from gateway.http.site import PAGES
from medianode.toolchain.install import find_engine
from tests.hostile.limits import LimitedStart, MemoryCgroups, compose_limits, compose_maxmemory
from tests.hostile.victims import PROBED, ROOM, Victims

SAMPLES_PER_SECOND: Final = 5.0


class Memory:
    """Looks at the memory of processes several times a second, in a thread."""

    def __init__(self, groups: MemoryCgroups, names: list[str]) -> None:
        self.peaks = {name: groups.resident(name) for name in names}
        self.before = dict(self.peaks)
        self._groups = groups
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(1 / SAMPLES_PER_SECOND):
            for name, peak in self.peaks.items():
                self.peaks[name] = max(peak, self._groups.resident(name))

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


class Stage:
    """One gateway, one room worker, one media node, and their servers, all under limits."""

    def __init__(self, cluster: Cluster, groups: MemoryCgroups, redis_server: Server, broker: Server) -> None:
        self.cluster = cluster
        self.broker = broker
        self.media: tuple[str, int] = ("", 0)
        self.redis: Any = redis.Redis.from_url(redis_server.url, socket_timeout=10)
        self._groups = groups
        self._engines: set[int] = set()
        self._servers = {
            name: server
            for name, server in (("redis", redis_server), ("rabbitmq", broker))
            if isinstance(server, ServerProcess)
        }

    @property
    def http(self) -> str:
        return self.cluster.roles["gateway1"].url

    @property
    def ws(self) -> str:
        return self.http.replace("http", "ws", 1)

    def memory(self) -> Memory:
        """Begins to look at the memory of roles and servers."""
        return Memory(self._groups, [*self.cluster.roles, *self._servers])

    def died(self) -> list[str]:
        """Names the roles and servers that have ended, also for want of memory, and media engines."""
        found = {name: "" for name, role in self.cluster.roles.items() if not role.alive}
        found |= {name: "" for name, server in self._servers.items() if not server.pid}
        if self._engines - self._engine_pids():
            found["media engine"] = ""
        names = (*self.cluster.roles, *self._servers)
        found |= {name: " (out of memory)" for name in names if self._groups.oom_kills(name)}
        return [f"{name}{reason}" for name, reason in found.items()]

    def note_engines(self) -> None:
        """Notes which engine processes there are: a media node replaces one that dies."""
        self._engines = self._engine_pids()

    def _engine_pids(self) -> set[int]:
        return set(self._groups.members("node1")) - {self.cluster.roles["node1"].process.pid}

    async def ready(self) -> bool:
        """Whether the gateway says that it can serve."""
        return await asyncio.to_thread(ready, self.http)

    def left(self) -> "Left":
        """Returns what is in Redis that has nothing to do with the driver's own clients."""
        own = tuple(f"room:{{{room}}}".encode() for room in (ROOM, PROBED))
        keys = [key for key in self.redis.scan_iter(count=1000) if not key.startswith(own)]
        lasting = [key for key in keys if self.redis.ttl(key) == -1]
        size = sum(self.redis.memory_usage(key, samples=0) or 0 for key in keys)
        return Left(sorted(key.decode(errors="replace") for key in lasting), len(keys) - len(lasting), size)

    def close(self) -> None:
        self.redis.close()


class Left:
    """Keys without an expiry, the number of those with one (closed sessions have ten minutes), and their bytes."""

    def __init__(self, lasting: list[str], expiring: int, size: int) -> None:
        self.lasting = lasting
        self.expiring = expiring
        self.size = size


@contextmanager
def limited_servers(groups: MemoryCgroups) -> Iterator[tuple[Server, Server]]:
    """Starts Redis and RabbitMQ as private processes, under their limits. Raises `Unavailable`."""
    if shutil.which("redis-server") is None or not (RABBITMQ_BIN / "rabbitmq-server").exists():
        raise Unavailable("redis-server or rabbitmq-server is not installed")
    started: dict[str, ServerProcess] = {"redis": RedisProcess(), "rabbitmq": RabbitmqProcess()}
    limits = compose_limits()
    try:
        for name, server in started.items():
            server.start()
            groups.limit(name, server.pid, limits[name])
        yield started["redis"], started["rabbitmq"]
    finally:
        for server in started.values():
            server.stop()


@asynccontextmanager
async def staged(
    groups: MemoryCgroups, redis_server: Server, broker: Server, logs: Path, *, engine: str
) -> AsyncIterator[tuple[Stage, Victims]]:
    """Starts a cluster on empty servers, and the victims in it."""
    client: Any = redis.Redis.from_url(redis_server.url, socket_timeout=10)
    client.config_set("maxmemory", str(compose_maxmemory()))
    client.flushall()
    client.close()
    empty_rabbitmq(broker.url)  # messages that a killed cluster has left
    start = LimitedStart(groups, compose_limits())
    cluster = Cluster(redis_server.url, broker.url, logs, start=start)
    stage = Stage(cluster, groups, redis_server, broker)
    try:
        await asyncio.to_thread(cluster.start, engine, gateways=1, workers=1)
        victims = Victims(stage.ws, 1)
        await victims.join()
        stage.note_engines()
        if engine == "mediasoup":
            stage.media = await victims.media_address()
        yield stage, victims
    finally:
        for role in cluster.roles.values():
            if role.alive:
                role.kill()
        cluster.redis.close()
        stage.close()


def engine_here() -> str:
    """Returns the engine to start nodes with: the real one if it is installed."""
    return "mediasoup" if find_engine() is not None else "null"


def page_is_built() -> bool:
    return any((folder / "index.html").exists() for folder in PAGES)
