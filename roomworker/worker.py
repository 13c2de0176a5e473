"""One room worker process: puts its parts together."""

import asyncio
import time
from typing import Any, Final

from roomworker.core.limits import Limits
from roomworker.counters import Counters
from roomworker.messaging.media_client import MediaClient
from roomworker.messaging.outbox import Outbox
from roomworker.partitions.clock import TickPublisher, TickReceiver
from roomworker.partitions.coordinator import Coordinator
from roomworker.partitions.media_nodes import MediaNodes
from roomworker.partitions.partition import Partition, PartitionCallbacks
from roomworker.partitions.takeover import Takeover
from roomworker.runtime.committer import Committer
from roomworker.runtime.replay import Replayer
from roomworker.runtime.services import RoomServices
from roomworker.storage.port import Store
from roomworker.storage.retention import Retention
from shared.aio.tasks import Tasks
from shared.broker import Broker, Subscription
from shared.cluster.agreement import process_id
from shared.cluster.port import Cluster
from shared.cluster.registry import Observer
from shared.protocol import bus
from shared.settings import WorkerSettings
from shared.telemetry import log

CLEAN_UP_EVERY: Final = 1.0
LAST_ROUND_TIMEOUT: Final = 1.0
"""Seconds that a leaving worker waits for its present look at the registry."""
UNREADABLE_LISTED: Final = 20
"""Unreadable rooms that a heartbeat names; of more it has the number."""

logger = log.get("worker")


class RoomWorker:
    """`start` returns once the worker serves; `close` hands everything over. The caller owns broker and store."""

    def __init__(self, settings: WorkerSettings, broker: Broker, cluster: Cluster, store: Store) -> None:
        self.id = process_id("roomworker", settings.name)
        self.counters = Counters()
        self.store = store
        self.tasks = Tasks()
        self._broker = broker
        self._retention = Retention(settings.grace_seconds, time.monotonic())
        self.committer = Committer(store, self.counters)
        self.outbox = Outbox(broker, self.id, self._unroutable, self.counters, self._retention)
        self.media = MediaClient(self.outbox.send_request, self.counters)
        self.partitions: dict[int, Partition] = {}
        self.nodes = MediaNodes(cluster, broker, self.id, self.partitions, self.outbox.send_order)
        self._replayer = Replayer(store, self.outbox, self.counters)
        self._takeover = Takeover(store, self.outbox)
        gateways = Observer(cluster, "gateways")
        self._ticks = TickReceiver(round(settings.grace_seconds * 1000), gateways, self.nodes.observer)
        self._tick_publisher = TickPublisher(self.id, broker, settings.partitions)
        services = self._services(settings)
        callbacks = PartitionCallbacks(self._activated, self._ticks.ticked, self._reported, self._replayer.replay)
        for number in range(settings.partitions):
            self.partitions[number] = Partition(number, services, store, callbacks, self.tasks.spawn)
        self.coordinator = Coordinator(
            self.id,
            cluster,
            broker,
            self.partitions,
            settings.prefetch,
            self.counters,
            self._tick_publisher,
            self._describe,
            gateways,
            self.nodes.observer,
        )
        self._results: Subscription | None = None
        self._coordination_task: asyncio.Task[None] | None = None

    def _services(self, settings: WorkerSettings) -> RoomServices:
        limits = Limits(
            peers=settings.max_peers,
            transports_per_peer=settings.max_transports,
            producers_per_peer=settings.max_producers,
            app_data_bytes=settings.app_data_limit,
            message_bytes=settings.message_limit,
            max_incoming_bitrate=settings.max_incoming_bitrate,
        )
        return RoomServices(
            worker=self.id,
            limits=limits,
            counters=self.counters,
            outbox=self.outbox,
            media=self.media,
            committer=self.committer,
            retention=self._retention,
            choose_node=lambda: self.nodes.choose(self.media.avoided(time.monotonic())),
        )

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises `DifferentCluster` if the cluster has another number of partitions, `redis.RedisError` or `OSError`
        if Redis does not answer."""
        self._results = await self._broker.subscribe_exclusive(
            "media", self.id, self._receive_results, on_lost=_ignore, on_restored=_ignore
        )
        for work in (
            self.committer.load_loop(),
            self.committer.commit_loop(),
            self._replayer.run(),
            self.nodes.watch(),
            self._tick_publisher.run(),
            self._clean_up(),
        ):
            self.tasks.spawn(work)
        await self.nodes.read_registry()
        await self.coordinator.start()
        self._coordination_task = self.tasks.spawn(self.coordinator.run())
        logger.info("worker.started", worker=self.id, partitions=len(self.coordinator.subscribed))

    async def wait(self) -> None:
        """Returns never; raises what went wrong if a part of the worker has failed."""
        await self.tasks.wait()

    def trouble(self) -> str:
        """Why this worker cannot serve now; empty if it can."""
        if self.coordinator.leaving:
            return "leaving"
        if self.tasks.failed:
            return "a part of it has failed"
        if trouble := self._broker.trouble:
            return trouble
        if not self.coordinator.redis_answers:
            return "Redis does not answer"
        return ""

    async def close(self) -> None:
        """Leaves the others to serve: finishes what is under way, closes its partitions, leaves the registry."""
        self.coordinator.leave()
        if self._coordination_task is not None:  # or it would subscribe and register again
            await asyncio.wait({self._coordination_task}, timeout=LAST_ROUND_TIMEOUT)
            self._coordination_task.cancel()
        await self.coordinator.close()
        if self._results is not None:
            await self._results.close()
        await self.tasks.cancel()
        self.outbox.close()
        logger.info("worker.stopped", worker=self.id)

    async def _clean_up(self) -> None:
        """Every second: what waits too long is given up, what nobody needs is forgotten."""
        while True:
            await asyncio.sleep(CLEAN_UP_EVERY)
            now = time.monotonic()
            self.media.expire(now)
            self.outbox.forget_idle()
            self._retention.expire(now)
            if not self._broker.connected:
                self._retention.broker_disconnected(now)

    # --- what the parts tell ----------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """What others may know of this worker, besides its partitions."""
        actors = [actor for partition in self.partitions.values() for actor in partition.actors.values()]
        unreadable = sorted((actor.room, actor.unreadable) for actor in actors if actor.unreadable)
        return {
            "rooms": len(actors),
            "published": self.outbox.published,
            "commits": self.committer.commits,
            "round_trips": self.store.round_trips,
            "unreadable": len(unreadable),
            "unreadable_rooms": dict(unreadable[:UNREADABLE_LISTED]),
        }

    def _activated(self, partition: Partition) -> None:
        self.counters.takeovers_total += 1
        self._ticks.activated(partition)
        logger.debug("partition.activated", partition=partition.number)
        self.tasks.spawn(self._takeover.take_over(partition))

    def _reported(self, partition: Partition, report: bus.NodeReport) -> None:
        self.nodes.handle_report(partition, report, time.monotonic())
        if report.lost:
            self.tasks.spawn(self.nodes.resend_orders(self.store, partition, report.node))

    def _unroutable(self, numbers: list[int]) -> None:
        self.media.unroutable(numbers, time.monotonic())

    def _receive_results(self, body: bytes) -> None:
        self.media.receive(body, time.monotonic())


def _ignore() -> None:
    """Requests whose results were lost with the queue run into their deadline."""
