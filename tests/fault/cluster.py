"""A cluster whose every process can be killed, frozen and cut off: each has its own way to Redis and to RabbitMQ."""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson
import redis
from yarl import URL

from devtools.cluster import PATIENCE, Role, address, ready, wait_until
from devtools.servers import Server
from tests.fault import queues
from tests.support.proxy import Proxy

Kind: TypeAlias = Literal["gateway", "roomworker", "medianode"]
QueueType: TypeAlias = Literal["classic", "quorum"]

API_KEY = "fault-tests"
REGISTRIES: dict[Kind, str] = {
    "gateway": "plenary:gateways",
    "roomworker": "plenary:workers",
    "medianode": "plenary:nodes",
}


@dataclass
class Shape:
    """The size and kind of a cluster."""

    gateways: int = 2
    workers: int = 3
    nodes: int = 2
    partitions: int = 8
    queue_type: QueueType = "classic"
    grace: float = 20.0


class Process:
    """A place in the cluster: a process that ends is followed by another with a new name, at the same addresses."""

    def __init__(self, cluster: "FaultCluster", kind: Kind, name: str) -> None:
        self.kind: Kind = kind
        self.name = name
        self.role: Role
        self.links = {"redis": _proxy(cluster.redis_server.url), "rabbitmq": _proxy(cluster.rabbitmq_server.url)}
        self.client_proxy: Proxy | None = None
        self.url = ""
        """A gateway's, as clients know it."""
        self._cluster = cluster
        self._lives = 0

    async def start(self) -> None:
        for link in self.links.values():
            await link.start()
        if self.kind == "gateway":
            self.client_proxy = Proxy("127.0.0.1", 0)
            await self.client_proxy.start()
            self.url = f"ws://127.0.0.1:{self.client_proxy.port}"
        await self.revive()

    async def revive(self) -> None:
        """Another process in this place; returns when it serves."""
        self._lives += 1
        arguments = self._arguments(f"{self.name}_{self._lives}")
        self.role = Role(arguments[2], arguments, self._cluster.logs)
        self._cluster.roles.append(self.role)
        if self.client_proxy is not None:
            self.role.url = await asyncio.to_thread(self.role.until_listening, "gateway")
            self.role.api_url = await asyncio.to_thread(self.role.until_listening, "api")
            self.client_proxy.redirect(*address(self.role))
        await asyncio.to_thread(wait_until, self._serves, self.role)

    def _arguments(self, life: str) -> list[str]:
        shape = self._cluster.shape
        redis_url = _through(self._cluster.redis_server.url, self.links["redis"])
        amqp_url = _through(self._cluster.rabbitmq_server.url, self.links["rabbitmq"])
        common = [self.kind, "--name", life, "--redis-url", redis_url, "--amqp-url", amqp_url, "--log-format", "json"]
        common += ["--partitions", str(shape.partitions), "--queue-type", shape.queue_type]
        common += ["--grace-seconds", str(shape.grace)]
        if self.kind == "gateway":
            api = ["--api-key", API_KEY, "--api-port", "0"]
            return [*common, "--host", "127.0.0.1", "--port", "0", "--message-rate", "0", *api]
        if self.kind == "medianode":
            addresses = ["--listen-ip", "127.0.0.1", "--announced-ip", "127.0.0.1"]
            return [*common, "--engine", "null", "--engines", "1", *addresses]
        return common

    def _serves(self) -> bool:
        if self.kind == "gateway":
            return ready(self.role.url)
        try:
            return self._cluster.registered(self) is not None
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.role.kill()

    def freeze(self) -> None:
        os.kill(self.role.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.role.process.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting for what it does then."""
        self.role.process.send_signal(signal.SIGTERM)

    async def until_ended(self) -> int:
        return await asyncio.to_thread(self.role.process.wait, PATIENCE)

    def cut(self, link: str) -> None:
        """Breaks the process's connections to a server, and resets new ones until `heal`."""
        self.links[link].refuse()
        self.links[link].cut()

    async def heal(self, link: str) -> None:
        await self.links[link].start()


class FaultCluster:
    """`redis_server` and `rabbitmq_server` run already and are clean."""

    def __init__(self, redis_server: Server, rabbitmq_server: Server, logs: Path, shape: Shape) -> None:
        self.redis_server = redis_server
        self.rabbitmq_server = rabbitmq_server
        self.logs = logs
        self.shape = shape
        self.redis = redis.Redis.from_url(redis_server.url, socket_timeout=5)
        self.roles: list[Role] = []
        self.killed: list[Role] = []
        """Room workers that `left_messages` has killed."""
        self.gateways = [Process(self, "gateway", f"gateway{n + 1}") for n in range(shape.gateways)]
        self.workers = [Process(self, "roomworker", f"worker{n + 1}") for n in range(shape.workers)]
        self.nodes = [Process(self, "medianode", f"node{n + 1}") for n in range(shape.nodes)]

    @property
    def processes(self) -> list[Process]:
        return [*self.gateways, *self.workers, *self.nodes]

    async def start(self) -> None:
        await asyncio.gather(*(process.start() for process in self.processes))

    async def stop(self) -> dict[str, int]:
        """Ends every process by SIGTERM, gateways first; returns the exit codes."""
        codes: dict[str, int] = {}
        for group in (self.gateways, [*self.workers, *self.nodes]):
            living = [process.role for process in group if hasattr(process, "role") and process.role.alive]
            ended = await asyncio.gather(*(asyncio.to_thread(role.stop) for role in living), return_exceptions=True)
            for role, code in zip(living, ended, strict=True):
                codes[role.name] = code if isinstance(code, int) else -1
        await self._unlink()
        return codes

    async def abort(self) -> None:
        """Ends every process at once: for when something has gone wrong here."""
        for role in self.roles:
            if role.alive:
                role.kill()
        await self._unlink()

    async def _unlink(self) -> None:
        self.redis.close()
        for process in self.processes:
            for proxy in (*process.links.values(), process.client_proxy):
                if proxy is not None:
                    await proxy.stop()

    async def left_messages(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Kills all room workers, which gives back what they have not acknowledged, and reads these queues."""
        self.killed = [worker.role for worker in self.workers if worker.role.alive]
        for role in self.killed:
            role.kill()
        return await queues.contents(self.rabbitmq_server.url, names)

    def registered(self, process: Process) -> dict[str, Any] | None:
        """Returns the registry's entry of the process; None if there is none yet."""
        entries: dict[bytes, bytes] = self.redis.hgetall(REGISTRIES[process.kind])  # type: ignore[assignment]
        for member, info in entries.items():
            if member.decode().startswith(f"{process.role.name}-"):
                known: dict[str, Any] = orjson.loads(info)
                return known
        return None

    def node_of(self, room: str) -> str:
        """The name of the media node that the room is on, or nothing."""
        meta = self.redis.hget(f"room:{{{room}}}", "meta")
        placement = orjson.loads(meta).get("placement") if isinstance(meta, bytes) else None
        return str(placement["node"]) if placement else ""

    def said(self, last: int = 2000) -> str:
        return "\n".join(f"--- {role.name}\n{role.said()[-last:]}" for role in self.roles)


def _proxy(url: str) -> Proxy:
    target = URL(url)
    return Proxy(str(target.host), target.port or 0)


def _through(url: str, proxy: Proxy) -> str:
    return str(URL(url).with_host("127.0.0.1").with_port(proxy.port))
