"""Processes with one role each: connect, start the role, wait for a signal or a failure, and close in order."""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from gateway.websocket.acceptor import BadCertificate
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

logger = log.get("process")


class Waitable(Protocol):
    """A role that can be waited for: `wait` returns when the role has ended, and raises what made it fail."""

    async def wait(self) -> None: ...


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
        await start_role(role.start())
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
        await start_role(role.start())
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
            await start_role(role.start())
            try:
                await wait_until_stopped(stop, role)
            finally:
                await role.close()


async def start_role(start: Awaitable[None]) -> None:
    """Awaits a role's start. Raises `CannotStart` for failures that an operator can correct."""
    try:
        await start
    except (BadCertificate, DifferentCluster, EngineFailed) as reason:
        raise CannotStart(str(reason)) from None
    except OSError as reason:
        raise CannotStart(f"cannot listen: {reason}") from None
