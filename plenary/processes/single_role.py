"""Processes with one role each: connect, start the role, wait for a signal or a failure, and close in order."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from medianode.engines.port import EngineFailed
from medianode.metrics import NodeMetrics
from medianode.node import MediaNode, engine_factory
from medianode.toolchain.errors import EngineUnavailable
from plenary.processes.event_loop import CannotStart
from plenary.processes.internal_http import internal_server
from plenary.processes.server_connections import server_connections
from roomworker.metrics import WorkerMetrics
from roomworker.storage.store import RedisStore
from roomworker.worker import RoomWorker
from shared.cluster.agreement import DifferentCluster
from shared.cluster.redis_cluster import RedisCluster
from shared.settings import GatewaySettings, NodeSettings, WorkerSettings
from shared.telemetry import log
from shared.tls import BadCertificate

logger = log.get("process")


class Waitable(Protocol):
    """A role that can be waited for: `wait` returns when the role has ended, and raises what made it fail."""

    async def wait(self) -> None: ...


class Startable(Protocol):
    """A role that can be started, and closed even if it has not started as a whole."""

    def start(self) -> Coroutine[Any, Any, None]: ...

    async def close(self) -> None: ...


async def wait_until_stopped(stop: asyncio.Event, *roles: Waitable) -> None:
    """Returns when `stop` is set or a role has ended by itself. Raises the failure of that role."""
    waiting = [asyncio.ensure_future(stop.wait()), *(asyncio.ensure_future(role.wait()) for role in roles)]
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def run_gateway(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Runs a gateway until `stop` is set, then drains and closes it. Raises `CannotStart`."""
    async with (
        internal_server(settings, "gateway") as internal,
        server_connections(settings, settings.name or "gateway", stop, internal.watcher("gateway")) as (
            broker,
            redis,
        ),
    ):
        if stop.is_set():
            return
        role = Gateway(settings, broker, RedisCluster(redis))
        internal.add_role("gateway", role.trouble, GatewayMetrics(role))
        if not await start_role(role, stop):
            return
        try:
            await wait_until_stopped(stop, role)
            await role.drain()
        finally:
            await role.close()


async def run_room_worker(settings: WorkerSettings, stop: asyncio.Event) -> None:
    """Runs a room worker until `stop` is set, then closes it. Raises `CannotStart`."""
    async with (
        internal_server(settings, "roomworker") as internal,
        server_connections(settings, settings.name or "roomworker", stop, internal.watcher("roomworker")) as (
            broker,
            redis,
        ),
    ):
        if stop.is_set():
            return
        cluster = RedisCluster(redis)
        role = RoomWorker(settings, broker, cluster, RedisStore(redis, cluster.availability))
        internal.add_role("roomworker", role.trouble, WorkerMetrics(role))
        if not await start_role(role, stop):
            return
        try:
            await wait_until_stopped(stop, role)
        finally:
            await role.close()


async def run_media_node(settings: NodeSettings, stop: asyncio.Event) -> None:
    """Runs a media node until `stop` is set, then closes it. Raises `CannotStart`."""
    async with internal_server(settings, "medianode") as internal:
        try:
            make = await engine_factory(settings)
        except EngineUnavailable as unavailable:
            raise CannotStart(f"no media engine: {unavailable}") from None
        name = settings.name or "medianode"
        async with server_connections(settings, name, stop, internal.watcher("medianode")) as (broker, redis):
            if stop.is_set():
                return
            role = MediaNode(settings, broker, RedisCluster(redis), make)
            internal.add_role("medianode", role.trouble, NodeMetrics(role))
            if not await start_role(role, stop):
                return
            try:
                await wait_until_stopped(stop, role)
            finally:
                await role.close()


async def start_role(role: Startable, stop: asyncio.Event) -> bool:
    """Starts a role; returns false if `stop` is set before it serves, which closes it.

    Raises `CannotStart` for failures that an operator can correct.
    """
    starting = asyncio.ensure_future(role.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await role.close()
        return False
    try:
        await starting
    except (BadCertificate, DifferentCluster, EngineFailed) as reason:
        raise CannotStart(str(reason)) from None
    except OSError as reason:
        raise CannotStart(
            f"cannot listen: {reason}. Another port is given by --port (PLENARY_PORT), for the server API by "
            "--api-port (PLENARY_API_PORT; 0: a free one), an address of this machine by --host and --api-host"
        ) from None
    return True
