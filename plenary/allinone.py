"""`plenary run`: gateway, room worker and media node in one process, on memory or on real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeAlias

from redis.asyncio import Redis
from rich.console import Console

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from medianode.engines.port import EngineFailed
from medianode.metrics import NodeMetrics
from medianode.node import MediaNode, engine_factory
from medianode.toolchain.build import EngineUnavailable
from plenary.exposition import Exposition, exposition
from plenary.process import CannotStart, links
from plenary.roles import started, until
from roomworker.metrics import WorkerMetrics
from roomworker.worker import RoomWorker
from shared.broker import Broker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.settings import RunSettings

Links: TypeAlias = Callable[[str], AbstractAsyncContextManager[tuple[Broker, Redis]]]

console = Console(stderr=True)


async def run(settings: RunSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        shown = await stack.enter_async_context(exposition(settings, "roomworker", "gateway"))
        open_links = await stack.enter_async_context(_servers(settings, stop, shown))
        worker_broker, redis = await stack.enter_async_context(open_links("roomworker"))
        node_broker, _ = await stack.enter_async_context(open_links("medianode"))
        gateway_broker, _ = await stack.enter_async_context(open_links("gateway"))
        if stop.is_set():
            return
        # Closed in the opposite order, also if a later one cannot start.
        node = await _media_node(settings, node_broker, redis)
        if node is not None:
            stack.push_async_callback(node.close)
            shown.serves("medianode", node.trouble, NodeMetrics(node))
        else:
            del shown.troubles["medianode"]  # the rest works without
        worker = RoomWorker(settings, worker_broker, redis)
        shown.serves("roomworker", worker.trouble, WorkerMetrics(worker))
        await started(worker.start())
        stack.push_async_callback(worker.close)
        gateway = Gateway(settings, gateway_broker, RedisCluster(redis))
        shown.serves("gateway", gateway.trouble, GatewayMetrics(gateway))
        await started(gateway.start())
        stack.push_async_callback(gateway.close)
        _greet(settings, gateway, has_engine=node is not None)
        await until(stop, gateway, worker, *([node] if node else []))
        await gateway.drain()


@asynccontextmanager
async def _servers(settings: RunSettings, stop: asyncio.Event, shown: Exposition) -> AsyncIterator[Links]:
    """How this process's roles reach broker and Redis: each has its own link, all to the same servers."""
    if settings.amqp_url:
        yield lambda role: links(settings, role, stop, shown.starting(role))
        return
    hub, redis = MemoryHub(settings.partitions), _memory_redis()

    @asynccontextmanager
    async def in_memory(role: str) -> AsyncIterator[tuple[Broker, Redis]]:
        broker = MemoryBroker(hub)
        shown.starting(role)(broker, None)
        await broker.connect()
        try:
            yield broker, redis
        finally:
            await broker.close()

    try:
        yield in_memory
    finally:
        await redis.aclose()


def _memory_redis() -> Redis:
    try:
        from fakeredis.aioredis import FakeRedis
    except ImportError:
        raise CannotStart(
            "in-memory Redis needs `pip install plenary-signaling[embedded]`; or give --redis-url and --amqp-url"
        ) from None
    return FakeRedis()


async def _media_node(settings: RunSettings, broker: Broker, redis: Redis) -> MediaNode | None:
    """Without an engine everything else still works, and `createTransport` is answered 503."""
    try:
        node = MediaNode(settings, broker, RedisCluster(redis), await engine_factory(settings))
        await node.start()
    except (EngineUnavailable, EngineFailed) as unavailable:
        console.print(f"[yellow]No media engine, so no audio or video:[/] {unavailable}")
        return None
    return node


def _greet(settings: RunSettings, gateway: Gateway, *, has_engine: bool) -> None:
    scheme = "https" if settings.tls_cert else "http"
    console.print()
    console.print(f"  [bold]Plenary[/] is running: open  [bold cyan]{scheme}://localhost:{gateway.port}/[/]  twice")
    broker = "RabbitMQ" if settings.amqp_url else "in-memory broker"
    store = "Redis" if settings.redis_url else "in-memory Redis"
    engine = f"{settings.engine} engine" if has_engine else "no media engine"
    api = f" Server API: http://localhost:{gateway.api.port}/v1/" if gateway.api else ""
    console.print(f"  [dim]{broker}, {store}, {engine}.{api} Ctrl-C ends it.[/]\n")
