"""`plenary run`: gateway, room worker and media node in one process, on memory or on real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple, TypeAlias

from rich.console import Console

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from medianode.engines.port import EngineFailed
from medianode.metrics import NodeMetrics
from medianode.node import MediaNode, engine_factory
from medianode.toolchain.build import EngineUnavailable
from plenary.exposition import Exposition, exposition
from plenary.process import links
from plenary.roles import started, until
from roomworker.metrics import WorkerMetrics
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import Store
from roomworker.storage.store import RedisStore
from roomworker.worker import RoomWorker
from shared.broker import Broker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.port import Cluster
from shared.cluster.redis_cluster import RedisCluster
from shared.settings import RunSettings


class Link(NamedTuple):
    """What one role uses of the servers, or of the memory that stands for them."""

    broker: Broker
    cluster: Cluster
    store: Store


Links: TypeAlias = Callable[[str], AbstractAsyncContextManager[Link]]

console = Console(stderr=True)


async def run(settings: RunSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        shown = await stack.enter_async_context(exposition(settings, "roomworker", "gateway"))
        open_links = await stack.enter_async_context(_servers(settings, stop, shown))
        for_worker = await stack.enter_async_context(open_links("roomworker"))
        for_node = await stack.enter_async_context(open_links("medianode"))
        for_gateway = await stack.enter_async_context(open_links("gateway"))
        if stop.is_set():
            return
        # Closed in the opposite order, also if a later one cannot start.
        node = await _media_node(settings, for_node)
        if node is not None:
            stack.push_async_callback(node.close)
            shown.serves("medianode", node.trouble, NodeMetrics(node))
        else:
            del shown.troubles["medianode"]  # the rest works without
        worker = RoomWorker(settings, *for_worker)
        shown.serves("roomworker", worker.trouble, WorkerMetrics(worker))
        await started(worker.start())
        stack.push_async_callback(worker.close)
        gateway = Gateway(settings, for_gateway.broker, for_gateway.cluster)
        shown.serves("gateway", gateway.trouble, GatewayMetrics(gateway))
        await started(gateway.start())
        stack.push_async_callback(gateway.close)
        _greet(settings, gateway, has_engine=node is not None)
        await until(stop, gateway, worker, *([node] if node else []))
        await gateway.drain()


@asynccontextmanager
async def _servers(settings: RunSettings, stop: asyncio.Event, shown: Exposition) -> AsyncIterator[Links]:
    """How this process's roles reach broker and Redis: each has its own link, all to the same servers."""
    hub, memory = MemoryHub(settings.partitions), MemoryCluster()
    memory_store = MemoryStore(memory)

    @asynccontextmanager
    async def in_memory(role: str) -> AsyncIterator[Link]:
        broker = MemoryBroker(hub)
        shown.starting(role)(broker, None)
        await broker.connect()
        try:
            yield Link(broker, memory, memory_store)
        finally:
            await broker.close()

    @asynccontextmanager
    async def on_servers(role: str) -> AsyncIterator[Link]:
        async with links(settings, role, stop, shown.starting(role)) as (broker, redis):
            cluster = RedisCluster(redis)
            yield Link(broker, cluster, RedisStore(redis, cluster.availability))

    yield on_servers if settings.amqp_url else in_memory


async def _media_node(settings: RunSettings, link: Link) -> MediaNode | None:
    """Without an engine everything else still works, and `createTransport` is answered 503."""
    try:
        node = MediaNode(settings, link.broker, link.cluster, await engine_factory(settings))
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
    store = "Redis" if settings.redis_url else "in-memory store"
    engine = f"{settings.engine} engine" if has_engine else "no media engine"
    api = f" Server API: http://localhost:{gateway.api.port}/v1/" if gateway.api else ""
    console.print(f"  [dim]{broker}, {store}, {engine}.{api} Ctrl-C ends it.[/]\n")
