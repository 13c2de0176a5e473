"""One partition's queue: deliveries in, each acknowledged when everything in it is committed and published."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, time
from typing import TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from roomworker.messaging.outbox import Receipt
from roomworker.partitions.partition_clock import PartitionClock
from roomworker.partitions.poison import PoisonDetector
from roomworker.runtime.room_actor import RoomActor
from roomworker.runtime.services import RoomServices
from roomworker.runtime.session_queue import Job
from roomworker.storage.port import Store
from shared.aio.tasks import Spawn
from shared.broker import Broker, Delivery, Subscription
from shared.protocol import bus
from shared.telemetry import log

Received: TypeAlias = tuple[str, bus.AnyItem]
"""An item, and the process that sent it."""

logger = log.get("partition")


@dataclass(frozen=True, slots=True)
class PartitionCallbacks:
    """The functions that a partition calls for what is not a message to one room.

    `activated` is called at the first delivery since the partition was subscribed to, or since the channel was lost:
    this worker is then the active one. `ticked` is called every second with a tick whose `now` is the partition's
    time, `reported` with what a media node has of the partition's rooms, `replay` when a gateway misses outputs of a
    session.
    """

    activated: Callable[["Partition"], None]
    ticked: Callable[["Partition", bus.Tick], None]
    reported: Callable[["Partition", bus.NodeReport], None]
    replay: Callable[[RoomActor, str, bus.Replay], None]


class Partition:
    """One partition as this worker serves it: its rooms, and the deliveries that are not acknowledged yet.

    `spawn` runs a coroutine as a task of the worker, which fails with it.
    """

    def __init__(
        self, number: int, services: RoomServices, store: Store, callbacks: PartitionCallbacks, spawn: Spawn
    ) -> None:
        self.number = number
        self._services = services
        self._counters = services.counters
        self._callbacks = callbacks
        self._spawn = spawn
        self._subscription: Subscription | None = None
        self.actors: dict[str, RoomActor] = {}
        self.active = False
        self.bad_items = 0
        self._unacknowledged: set[Delivery] = set()
        self._waiting: deque[Delivery] = deque()
        self._recovery_task: asyncio.Task[None] | None = None
        self._poison_detector = PoisonDetector(store, number)
        self._clock = PartitionClock(services.clock)
        self._receive_failed = False
        self._taking_back: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()

    async def subscribe(self, broker: Broker, prefetch: int) -> None:
        """Subscribes to the partition's queue; this worker is active once it gets the first delivery."""
        self._subscription = await broker.subscribe_partition(
            self.number, self.receive, prefetch=prefetch, on_lost=self.channel_lost
        )

    async def unsubscribe(self) -> None:
        """Gives the partition up by closing its channel; the next active worker continues (DELIVERY B1)."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
        self.channel_lost()

    @property
    def unacknowledged(self) -> int:
        """Deliveries that are not acknowledged yet."""
        return len(self._unacknowledged)

    async def wait_idle(self) -> None:
        """Returns when everything that was delivered is committed and published, or the channel is lost."""
        if self._unacknowledged:
            self._idle.clear()
            await self._idle.wait()

    def channel_lost(self) -> None:
        """Gives up the deliveries that are not acknowledged, which the next active worker gets, and all rooms."""
        self.active = False
        self._services.room_time.pop(self.number, None)
        self._clock = PartitionClock(self._services.clock)
        self._waiting.clear()
        if self._recovery_task is not None:
            self._recovery_task.cancel()
            self._recovery_task = None
        if self._unacknowledged and not self._receive_failed:
            self._taking_back = self._spawn(self._poison_detector.take_back())
        self._receive_failed = False
        self._unacknowledged.clear()
        self._idle.set()
        for actor in list(self.actors.values()):
            actor.close()

    def receive(self, delivery: Delivery) -> None:
        """Takes one delivery; it is acknowledged once its items are done.

        What this raises closes the channel, and counts against the messages as the death of a worker does.
        """
        try:
            self._receive(delivery)
        except BaseException:
            self._receive_failed = True
            raise

    def _receive(self, delivery: Delivery) -> None:
        if not self.active:
            self.active = True
            self._recovery_task = self._spawn(self._recover())
            self._callbacks.activated(self)
        self._unacknowledged.add(delivery)
        if sent := bus.published_at(delivery.body):
            self._counters.queue.observe(max(0.0, time() - sent))
        if self._recovery_task is None and not delivery.redelivered and not self._poison_detector:
            self._run_batch(self._items(delivery), partial(self._acknowledge, delivery))
        else:
            self._waiting.append(delivery)
            if self._recovery_task is None:
                self._recovery_task = self._spawn(self._run_waiting())

    def _acknowledge(self, delivery: Delivery) -> None:
        delivery.ack()
        self._unacknowledged.discard(delivery)
        if not self._unacknowledged:
            self._idle.set()

    def _run_batch(self, items: Iterable[Received], finished: Callable[[], None]) -> None:
        began, count = perf_counter(), 0
        receipt = Receipt(finished)
        for origin, item in items:
            count += not isinstance(item, bus.Tick)
            self._run_item(origin, item, receipt)
        receipt.confirm()
        if count:
            self._counters.items_in.observe(count)
            self._counters.core.observe(perf_counter() - began)

    def _items(self, delivery: Delivery) -> Iterator[Received]:
        """Yields the readable items of a batch; a bad item fails alone (DELIVERY I3)."""
        try:
            origin, items = bus.split_batch(delivery.body)
            for encoded in items:
                try:
                    yield origin, bus.decode_item(encoded)
                except msgspec.MsgspecError as broken:
                    self.bad_items += 1
                    logger.error("item.unreadable", partition=self.number, origin=origin, error=str(broken))
        except ValueError as broken:
            self.bad_items += 1
            logger.error("batch.unreadable", partition=self.number, error=str(broken))

    def _run_item(self, origin: str, item: bus.AnyItem, receipt: Receipt) -> None:
        if isinstance(item, bus.TransientItem):
            self._run_transient(origin, item)
        else:
            self.actor(item.room).receive(Job(item, origin, receipt.add().confirm))

    def _run_transient(self, origin: str, item: bus.TransientItem) -> None:
        """Runs an item that its sender repeats, and which is therefore not delivered again if it raises."""
        try:
            match item:
                case bus.Tick():
                    now = self._services.room_time[self.number] = self._clock.advance(item)
                    self._callbacks.ticked(self, replace(item, now=now))
                case bus.Replay():
                    self._callbacks.replay(self.actor(item.room), origin, item)
                case bus.NodeReport():
                    self._callbacks.reported(self, item)
                case _:
                    assert_never(item)
        except Exception:  # A defect in one of these would otherwise end one worker after another.
            self.bad_items += 1
            logger.exception("item.failed", partition=self.number, origin=origin, item=type(item).__name__)

    # --- after a worker has died ------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Reads which messages other workers died with, then runs what was delivered meanwhile."""
        if self._taking_back is not None:
            await asyncio.wait({self._taking_back})
        await self._poison_detector.load()
        await self._run_waiting()

    async def _run_waiting(self) -> None:
        """Runs waiting deliveries in order, redelivered ones marked; once none waits, deliveries run as they come."""
        try:
            # A task of a channel that was lost may still run: redis-py can lose its cancellation.
            while self._waiting and self._recovery_task is asyncio.current_task():
                delivery = self._waiting.popleft()
                items = list(self._items(delivery))
                if not delivery.redelivered:
                    await self._poison_detector.clear_stale_batches()
                if _are_transient(items):  # no mark: it may expire before it comes again
                    self._run_batch(items, partial(self._acknowledge, delivery))
                elif delivery.redelivered and await self._poison_detector.admit_batch(delivery.body):
                    self._run_batch(items, partial(self._acknowledge_redelivered, delivery))
                elif delivery.redelivered or self._has_marked_messages(items):
                    await self._run_one_by_one(delivery, items)
                else:
                    self._run_batch(items, partial(self._acknowledge, delivery))
        finally:
            if self._recovery_task is asyncio.current_task():
                self._recovery_task = None

    def _has_marked_messages(self, items: Sequence[Received]) -> bool:
        if not self._poison_detector:
            return False
        return any(
            not isinstance(item, bus.TransientItem) and self._poison_detector.is_marked(Job(item, origin, _ignore))
            for origin, item in items
        )

    async def _run_one_by_one(self, delivery: Delivery, items: Sequence[Received]) -> None:
        for origin, item in items:
            done = asyncio.Event()
            if isinstance(item, bus.TransientItem):
                self._run_item(origin, item, Receipt(done.set))
                continue
            job = Job(item, origin, done.set)
            actor = self.actor(item.room)
            if not await self._poison_detector.admit_message(job):
                self._counters.dead_letters_total += 1
                actor.mark_as_poison(job)
            actor.receive(job)
            await done.wait()
            await self._poison_detector.clear_message(job)
        await self._poison_detector.clear_batch(delivery.body)
        self._acknowledge(delivery)

    def _acknowledge_redelivered(self, delivery: Delivery) -> None:
        self._acknowledge(delivery)
        self._spawn(self._poison_detector.clear_batch(delivery.body))

    def actor(self, room: str) -> RoomActor:
        """Returns the room's actor, which is made if there is none."""
        actor = self.actors.get(room)
        if actor is None:
            actor = self.actors[room] = RoomActor(room, self.number, self._services, self._forget)
        return actor

    def _forget(self, actor: RoomActor) -> None:
        if self.actors.get(actor.room) is actor:
            del self.actors[actor.room]


def _ignore() -> None:
    """Does nothing when a job is done that exists only for its identity."""


def _are_transient(items: Sequence[Received]) -> bool:
    """Whether all items are ticks and the like, for which no client waits."""
    return all(isinstance(item, bus.TransientItem) for _, item in items)
