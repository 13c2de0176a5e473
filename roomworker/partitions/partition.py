"""One partition's queue: deliveries in, each acknowledged when everything in it is committed and published."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, time
from typing import TypeAlias

import msgspec

from roomworker.messaging.outbox import Receipt
from roomworker.partitions.poison import PoisonDetector, batch_name
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
class Handlers:
    """What is called when something happens in a partition that is about more than one room.

    `activated`: the first delivery since subscribing, or since the channel was lost: this worker is the active one.
    `ticked`: a second has passed. `reported`: what a media node has of the partition's rooms. `replay`: a gateway
    misses outputs of a session.
    """

    activated: Callable[["Partition"], None]
    ticked: Callable[["Partition", bus.Tick], None]
    reported: Callable[["Partition", bus.NodeReport], None]
    replay: Callable[[RoomActor, str, bus.Replay], None]


class Partition:
    """`spawn` runs something beside; its failure is the worker's."""

    def __init__(self, number: int, services: RoomServices, store: Store, handlers: Handlers, spawn: Spawn) -> None:
        self.number = number
        self._services = services
        self._counters = services.counters
        self._handlers = handlers
        self._spawn = spawn
        self._subscription: Subscription | None = None
        self.actors: dict[str, RoomActor] = {}
        self.active = False
        self.bad_items = 0
        self._unacknowledged: set[Delivery] = set()
        self._waiting: deque[Delivery] = deque()
        self._recovery_task: asyncio.Task[None] | None = None
        self._poison_detector = PoisonDetector(store, number)
        self._idle = asyncio.Event()

    async def subscribe(self, broker: Broker, prefetch: int) -> None:
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
        """Gives up what was delivered and is not acknowledged: it belongs to the next active worker."""
        self.active = False
        self._waiting.clear()
        if self._recovery_task is not None:
            self._recovery_task.cancel()
            self._recovery_task = None
        self._unacknowledged.clear()
        self._idle.set()
        for actor in list(self.actors.values()):
            actor.close()

    def receive(self, delivery: Delivery) -> None:
        if not self.active:
            self.active = True
            self._recovery_task = self._spawn(self._begin())
            self._handlers.activated(self)
        self._unacknowledged.add(delivery)
        if sent := bus.published_at(delivery.body):
            self._counters.queue.observe(max(0.0, time() - sent))
        if self._recovery_task is None and not delivery.redelivered and not self._poison_detector:
            self._run_whole(self._items(delivery), partial(self._finished, delivery))
        else:
            self._waiting.append(delivery)
            if self._recovery_task is None:
                self._recovery_task = self._spawn(self._run_waiting())

    def _finished(self, delivery: Delivery) -> None:
        delivery.ack()
        self._unacknowledged.discard(delivery)
        if not self._unacknowledged:
            self._idle.set()

    def _run_whole(self, items: Iterable[Received], finished: Callable[[], None]) -> None:
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
        match item:
            case bus.Tick():
                self._handlers.ticked(self, item)
            case bus.Replay():
                self._handlers.replay(self.actor(item.room), origin, item)
            case bus.NodeReport():
                self._handlers.reported(self, item)
            case _:
                self.actor(item.room).receive(Job(item, origin, receipt.add().confirm))

    # --- after a worker has died ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Becomes active: the messages with which others died must be known first."""
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
                    await self._poison_detector.clear_batches_of_others()
                if _only_time(items):  # no mark: it may expire before it comes again
                    self._run_whole(items, partial(self._finished, delivery))
                elif delivery.redelivered and await self._poison_detector.may_run_whole(delivery.body):
                    self._run_whole(items, partial(self._finished_again, delivery))
                elif delivery.redelivered or self._has_suspects(items):
                    await self._run_one_by_one(delivery, items)
                else:
                    self._run_whole(items, partial(self._finished, delivery))
        finally:
            if self._recovery_task is asyncio.current_task():
                self._recovery_task = None

    def _has_suspects(self, items: Sequence[Received]) -> bool:
        if not self._poison_detector:
            return False
        return any(
            not isinstance(item, bus.TransientItem) and self._poison_detector.knows(Job(item, origin, _nothing))
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
            if not await self._poison_detector.may_run(job):
                self._counters.dead_letters_total += 1
                actor.poison(job)
            actor.receive(job)
            await done.wait()
            await self._poison_detector.job_done(job)
        await self._poison_detector.done(batch_name(delivery.body))
        self._finished(delivery)

    def _finished_again(self, delivery: Delivery) -> None:
        self._finished(delivery)
        self._spawn(self._poison_detector.done(batch_name(delivery.body)))

    def actor(self, room: str) -> RoomActor:
        actor = self.actors.get(room)
        if actor is None:
            actor = self.actors[room] = RoomActor(room, self.number, self._services, self._forget)
        return actor

    def _forget(self, actor: RoomActor) -> None:
        if self.actors.get(actor.room) is actor:
            del self.actors[actor.room]


def _nothing() -> None:
    """Does nothing: the job is only looked at."""


def _only_time(items: Sequence[Received]) -> bool:
    """Whether these are ticks and the like, nothing that a client waits for."""
    return all(isinstance(item, bus.TransientItem) for _, item in items)
