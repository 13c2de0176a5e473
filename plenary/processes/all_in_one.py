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
from medianode.toolchain.errors import EngineUnavailable
from plenary.processes.internal_http import InternalServer, internal_server
from plenary.processes.server_connections import server_connections
from plenary.processes.single_role import start_role, wait_until_stopped
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


class Backend(NamedTuple):
    """The broker, cluster and store of a role: RabbitMQ and Redis, or this process's memory."""

    broker: Broker
    cluster: Cluster
    store: Store


OpenBackend: TypeAlias = Callable[[str], AbstractAsyncContextManager[Backend]]
"""Opens the backend of the role of this name."""

console = Console(stderr=True)


async def run_all_roles(settings: RunSettings, stop: asyncio.Event) -> None:
    """Runs every role until `stop` is set or one of them ends. Raises `CannotStart`."""
    async with AsyncExitStack() as stack:
        internal = await stack.enter_async_context(internal_server(settings, "roomworker", "gateway"))
        open_backend = await stack.enter_async_context(_backends(settings, stop, internal))
        for_worker = await stack.enter_async_context(open_backend("roomworker"))
        for_node = await stack.enter_async_context(open_backend("medianode"))
        for_gateway = await stack.enter_async_context(open_backend("gateway"))
        if stop.is_set():
            return
        # The roles are closed in the opposite order, also if a later one cannot start.
        node = await _media_node(settings, for_node)
        if node is not None:
            stack.push_async_callback(node.close)
            internal.add_role("medianode", node.trouble, NodeMetrics(node))
        else:
            del internal.troubles["medianode"]  # the other roles work without
        worker = RoomWorker(settings, *for_worker)
        internal.add_role("roomworker", worker.trouble, WorkerMetrics(worker))
        if not await start_role(worker, stop):
            return
        stack.push_async_callback(worker.close)
        gateway = Gateway(settings, for_gateway.broker, for_gateway.cluster)
        internal.add_role("gateway", gateway.trouble, GatewayMetrics(gateway))
        if not await start_role(gateway, stop):
            return
        stack.push_async_callback(gateway.close)
        _greet(settings, gateway, has_engine=node is not None)
        await wait_until_stopped(stop, gateway, worker, *([node] if node else []))
        await gateway.drain()


@asynccontextmanager
async def _backends(
    settings: RunSettings, stop: asyncio.Event, internal: InternalServer
) -> AsyncIterator[OpenBackend]:
    """Yields what opens each role's backend: connections of its own, to the same servers or the same memory."""
    hub, memory = MemoryHub(settings.partitions), MemoryCluster()
    memory_store = MemoryStore(memory)

    @asynccontextmanager
    async def in_memory(role: str) -> AsyncIterator[Backend]:
        broker = MemoryBroker(hub)
        internal.watcher(role)(broker, None)
        await broker.connect()
        try:
            yield Backend(broker, memory, memory_store)
        finally:
            await broker.close()

    @asynccontextmanager
    async def on_servers(role: str) -> AsyncIterator[Backend]:
        async with server_connections(settings, role, stop, internal.watcher(role)) as (broker, redis):
            cluster = RedisCluster(redis)
            yield Backend(broker, cluster, RedisStore(redis, cluster.availability))

    yield on_servers if settings.amqp_url else in_memory


async def _media_node(settings: RunSettings, backend: Backend) -> MediaNode | None:
    """Returns a media node, or None without an engine: `createTransport` is then answered 503."""
    try:
        node = MediaNode(settings, backend.broker, backend.cluster, await engine_factory(settings))
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
