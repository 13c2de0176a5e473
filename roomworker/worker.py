"""Assembles one room worker process from its parts."""

import asyncio
import time
from typing import Any, Final

from roomworker.core.budget import ROOM_BYTES, WorkerTotal
from roomworker.core.limits import Limits
from roomworker.counters import Counters
from roomworker.messaging.media_client import MediaClient
from roomworker.messaging.outbox import Outbox
from roomworker.partitions.clock import TickPublisher, TickReceiver
from roomworker.partitions.coordinator import Coordinator
from roomworker.partitions.media_nodes import MediaNodes
from roomworker.partitions.memory_guard import MemoryGuard
from roomworker.partitions.partition import Partition, PartitionCallbacks
from roomworker.partitions.takeover import Takeover
from roomworker.runtime.committer import Committer
from roomworker.runtime.replay import Replayer
from roomworker.runtime.services import RoomServices
from roomworker.storage.port import Store
from roomworker.storage.retention import Retention
from shared.aio.iteration import iterate_yielding
from shared.aio.tasks import Tasks
from shared.broker import Broker, Subscription
from shared.cluster.agreement import process_id
from shared.cluster.joining import until_redis_works
from shared.cluster.port import Cluster
from shared.cluster.redis_memory import MemoryWatch
from shared.cluster.registry import Observer
from shared.protocol import bus
from shared.settings import WorkerSettings
from shared.telemetry import log

CLEAN_UP_EVERY: Final = 1.0
LAST_ROUND_TIMEOUT: Final = 1.0
"""Seconds that a leaving worker waits for the round of its coordinator that is under way."""
UNREADABLE_LISTED: Final = 20
"""Unreadable rooms that a heartbeat names; of all it has the number."""

logger = log.get("worker")


class RoomWorker:
    """One room worker: serves partitions between `start` and `close`. The caller owns broker, cluster and store."""

    def __init__(self, settings: WorkerSettings, broker: Broker, cluster: Cluster, store: Store) -> None:
        self.id = process_id("roomworker", settings.name)
        self.counters = Counters()
        self.total = WorkerTotal(settings.worker_bytes)
        self.store = store
        self.tasks = Tasks()
        self._broker = broker
        self._retention = Retention(settings.grace_seconds, time.monotonic())
        self._limits = _limits(settings)
        self.committer = Committer(store, self.counters, self._limits, self.total)
        self.outbox = Outbox(broker, self.id, self._unroutable, self.counters, self._retention)
        self.media = MediaClient(self.outbox.send_request, self.counters)
        self.partitions: dict[int, Partition] = {}
        self.nodes = MediaNodes(cluster, broker, self.id, self.partitions, self.outbox.send_order)
        self._replayer = Replayer(store, self.outbox, self.counters, settings.replay_limit)
        self._takeover = Takeover(store, self.outbox)
        gateways = Observer(cluster, "gateways")
        self._ticks = TickReceiver(round(settings.grace_seconds * 1000), gateways, self.nodes.observer)
        self._tick_publisher = TickPublisher(self.id, broker, settings.partitions)
        self.memory = MemoryGuard(
            cluster,
            store,
            MemoryWatch(settings.redis_trim_at, settings.redis_refuse_at),
            self.partitions,
            self._retention,
            self._limits.growth,
            self.counters,
            lambda: self._tick_publisher.leads,
        )
        services = self._services()
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

    def _services(self) -> RoomServices:
        return RoomServices(
            worker=self.id,
            limits=self._limits,
            counters=self.counters,
            outbox=self.outbox,
            media=self.media,
            committer=self.committer,
            retention=self._retention,
            total=self.total,
            choose_node=lambda: self.nodes.choose(self.media.avoided(time.monotonic())),
        )

    # --- starting and stopping --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts all parts; returns once the worker serves its partitions, however long Redis does not work.

        Raises `DifferentCluster` if the cluster has another number of partitions.
        """
        self._results = await self._broker.subscribe_exclusive(
            "media", self.id, self._receive_results, on_lost=_ignore, on_restored=_ignore
        )
        for work in (
            self.committer.load_loop(),
            self.committer.commit_loop(),
            self._replayer.run(),
            self.nodes.watch(),
            self._tick_publisher.run(),
            self.memory.run(),
            self._clean_up(),
        ):
            self.tasks.spawn(work)
        await until_redis_works(self.nodes.read_registry)
        await until_redis_works(self.coordinator.start)
        self._coordination_task = self.tasks.spawn(self.coordinator.run())
        logger.info("worker.started", worker=self.id, partitions=len(self.coordinator.subscribed))

    async def wait(self) -> None:
        """Never returns; raises the exception of the first part of the worker that fails."""
        await self.tasks.wait()

    def trouble(self) -> str:
        """Returns the reason why this worker cannot serve now; empty if it can."""
        if self.coordinator.leaving:
            return "leaving"
        if self.tasks.failed:
            return "a part of it has failed"
        if trouble := self._broker.trouble:
            return trouble
        if not self.coordinator.redis_answers:
            return "Redis does not answer"
        return self.memory.watch.trouble

    async def close(self) -> None:
        """Stops serving: leaves the registry, finishes deliveries under way and hands the partitions over."""
        self.coordinator.leave()
        if self._coordination_task is not None:  # else it would subscribe and register again
            await asyncio.wait({self._coordination_task}, timeout=LAST_ROUND_TIMEOUT)
            self._coordination_task.cancel()
        await self.coordinator.close()
        if self._results is not None:
            await self._results.close()
        await self.tasks.cancel()
        self.outbox.close()
        logger.info("worker.stopped", worker=self.id)

    async def _clean_up(self) -> None:
        """Expires late media requests, removes idle batchers and counts the rooms' bytes, every second."""
        while True:
            await asyncio.sleep(CLEAN_UP_EVERY)
            now = time.monotonic()
            self.media.expire(now)
            self.outbox.forget_idle()
            self._retention.expire(now)
            await self._count_bytes()
            if not self._broker.takes_messages:
                self._retention.broker_disconnected(now)

    async def _count_bytes(self) -> None:
        """Counts the bytes of all rooms anew, since rooms are given up without giving theirs back."""
        used = 0
        actors = [actor for partition in self.partitions.values() for actor in partition.actors.values()]
        async for actor in iterate_yielding(actors):
            used += ROOM_BYTES + (actor.loaded_room.budget.total if actor.loaded_room else 0)
        self.total.used = used

    # --- callbacks --------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """Returns what the registry shows of this worker besides its partitions."""
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


def _limits(settings: WorkerSettings) -> Limits:
    """Returns the limits of rooms that were not created with their own."""
    return Limits(
        peers=settings.max_peers,
        transports_per_peer=settings.max_transports,
        producers_per_peer=settings.max_producers,
        app_data_bytes=settings.app_data_limit,
        message_bytes=settings.message_limit,
        max_incoming_bitrate=settings.max_incoming_bitrate,
        peer_bytes=settings.peer_bytes,
        room_bytes=settings.room_bytes,
        peer_fan_out=settings.peer_fan_out,
        room_fan_out=settings.room_fan_out,
        room_stream_bytes=settings.room_stream_bytes,
    )


def _ignore() -> None:
    """Does nothing when the queue of results is lost: their requests run into their deadline."""
