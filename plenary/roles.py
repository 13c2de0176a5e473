"""One role, one process: start it, wait for the signal or its failure, let it leave in order."""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from gateway.websocket.acceptor import BadCertificate
from medianode.engines.port import EngineFailed
from medianode.metrics import NodeMetrics
from medianode.node import MediaNode, engine_factory
from medianode.toolchain.build import EngineUnavailable
from plenary.exposition import exposition
from plenary.process import CannotStart, links
from roomworker.metrics import WorkerMetrics
from roomworker.storage.store import RedisStore
from roomworker.worker import RoomWorker
from shared.cluster.agreement import DifferentCluster
from shared.cluster.redis_cluster import RedisCluster
from shared.settings import GatewaySettings, NodeSettings, WorkerSettings
from shared.telemetry import log

logger = log.get("process")


class Waitable(Protocol):
    async def wait(self) -> None: ...


async def until(stop: asyncio.Event, *roles: Waitable) -> None:
    """Returns when `stop` is set or a role has ended by itself; the role's failure is raised."""
    waiting = [asyncio.ensure_future(stop.wait()), *(asyncio.ensure_future(role.wait()) for role in roles)]
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def gateway(settings: GatewaySettings, stop: asyncio.Event) -> None:
    async with (
        exposition(settings, "gateway") as shown,
        links(settings, settings.name or "gateway", stop, shown.starting("gateway")) as (broker, redis),
    ):
        if stop.is_set():
            return
        role = Gateway(settings, broker, RedisCluster(redis))
        shown.serves("gateway", role.trouble, GatewayMetrics(role))
        await started(role.start())
        try:
            await until(stop, role)
            await role.drain()
        finally:
            await role.close()


async def roomworker(settings: WorkerSettings, stop: asyncio.Event) -> None:
    async with (
        exposition(settings, "roomworker") as shown,
        links(settings, settings.name or "roomworker", stop, shown.starting("roomworker")) as (broker, redis),
    ):
        if stop.is_set():
            return
        cluster = RedisCluster(redis)
        role = RoomWorker(settings, broker, cluster, RedisStore(redis, cluster.availability))
        shown.serves("roomworker", role.trouble, WorkerMetrics(role))
        await started(role.start())
        try:
            await until(stop, role)
        finally:
            await role.close()


async def medianode(settings: NodeSettings, stop: asyncio.Event) -> None:
    async with exposition(settings, "medianode") as shown:
        try:
            make = await engine_factory(settings)
        except EngineUnavailable as unavailable:
            raise CannotStart(f"no media engine: {unavailable}") from None
        name = settings.name or "medianode"
        async with links(settings, name, stop, shown.starting("medianode")) as (broker, redis):
            if stop.is_set():
                return
            role = MediaNode(settings, broker, RedisCluster(redis), make)
            shown.serves("medianode", role.trouble, NodeMetrics(role))
            await started(role.start())
            try:
                await until(stop, role)
            finally:
                await role.close()


async def started(start: Awaitable[None]) -> None:
    """Awaits a role's start, and says in words what kept it from starting."""
    try:
        await start
    except (BadCertificate, DifferentCluster, EngineFailed) as reason:
        raise CannotStart(str(reason)) from None
    except OSError as reason:
        raise CannotStart(f"cannot listen: {reason}") from None
