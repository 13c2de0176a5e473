"""One partition's queue: deliveries in, each acknowledged when everything in it is committed and published."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from time import perf_counter, time
from typing import Any, Protocol, TypeAlias

import msgspec

from roomworker.messaging.outbox import Receipt
from roomworker.partitions.poison import PoisonDetector, batch_name
from roomworker.runtime.executor import Executor
from roomworker.runtime.room_actor import Host, RoomActor
from roomworker.runtime.session_queue import Job
from roomworker.storage.store import Store
from shared.broker import Broker, Delivery, Subscription
from shared.protocol import bus
from shared.telemetry import log

Received: TypeAlias = tuple[str, bus.AnyItem]
"""An item, and the process that sent it."""

logger = log.get("partition")


class PartitionHost(Host, Protocol):
    """What a partition asks of its worker."""

    store: Store

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside; its failure is the worker's."""
        ...

    def activated(self, partition: "Partition") -> None:
        """The first delivery since subscribing, or since the channel was lost: this worker is the active one."""
        ...

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        """A gateway misses outputs of a session."""
        ...

    def ticked(self, partition: "Partition", tick: bus.Tick) -> None:
        """A second has passed."""
        ...

    def reported(self, partition: "Partition", report: bus.NodeReport) -> None:
        """What a media node has of the partition's rooms."""
        ...


class Partition:
    def __init__(self, number: int, host: PartitionHost) -> None:
        self.number = number
        self._host = host
        self._subscription: Subscription | None = None
        self.actors: dict[str, RoomActor] = {}
        self.active = False
        self.bad_items = 0
        self._open: set[Delivery] = set()
        self._line: deque[Delivery] = deque()
        self._recovery_task: asyncio.Task[None] | None = None
        self._poison_detector = PoisonDetector(host.store, number)
        self._quiet = asyncio.Event()

    async def subscribe(self, broker: Broker, prefetch: int) -> None:
        self._subscription = await broker.subscribe_partition(
            self.number, self.receive, prefetch=prefetch, on_lost=self.lost
        )

    async def unsubscribe(self) -> None:
        """Gives the partition up by closing its channel; the next active worker continues (DELIVERY B1)."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
        self.lost()

    @property
    def in_work(self) -> int:
        """Deliveries that are not acknowledged yet."""
        return len(self._open)

    async def quiet(self) -> None:
        """Returns when everything that was delivered is committed and published."""
        if self._open:
            self._quiet.clear()
            await self._quiet.wait()

    def lost(self) -> None:
        """What was delivered and is not acknowledged belongs to the next active worker."""
        self.active = False
        self._line.clear()
        if self._recovery_task is not None:
            self._recovery_task.cancel()
            self._recovery_task = None
        self._open.clear()
        self._quiet.set()
        for actor in list(self.actors.values()):
            actor.drop()

    def receive(self, delivery: Delivery) -> None:
        if not self.active:
            self.active = True
            self._recovery_task = asyncio.get_running_loop().create_task(self._begin())
            self._host.activated(self)
        self._open.add(delivery)
        if sent := bus.published_at(delivery.body):
            self._host.counters.queue.observe(max(0.0, time() - sent))
        if self._recovery_task is None and not delivery.redelivered and not self._poison_detector:
            self._run_whole(self._items(delivery), partial(self._finished, delivery))
        else:
            self._line.append(delivery)
            if self._recovery_task is None:
                self._recovery_task = asyncio.get_running_loop().create_task(self._run_line())

    def _finished(self, delivery: Delivery) -> None:
        delivery.ack()
        self._open.discard(delivery)
        if not self._open:
            self._quiet.set()

    def _run_whole(self, items: Iterable[Received], finished: Callable[[], None]) -> None:
        began, count = perf_counter(), 0
        receipt = Receipt(finished)
        for origin, item in items:
            count += not isinstance(item, bus.Tick)
            self._run_item(origin, item, receipt)
        receipt.confirm()
        if count:
            self._host.counters.items_in.observe(count)
            self._host.counters.core.observe(perf_counter() - began)

    def _items(self, delivery: Delivery) -> Iterator[Received]:
        """What can be read of a batch; a bad item fails alone (DELIVERY I3)."""
        try:
            origin, items = bus.split_batch(delivery.body)
            for encoded in items:
                try:
                    yield origin, bus.decode_item(encoded)
                except msgspec.MsgspecError as broken:
                    self.bad_items += 1
                    logger.error("item cannot be read", partition=self.number, origin=origin, error=str(broken))
        except ValueError as broken:
            self.bad_items += 1
            logger.error("batch cannot be read", partition=self.number, error=str(broken))

    def _run_item(self, origin: str, item: bus.AnyItem, receipt: Receipt) -> None:
        match item:
            case bus.Tick():
                self._host.ticked(self, item)
            case bus.Replay():
                self._host.replay(self.actor(item.room), origin, item)
            case bus.NodeReport():
                self._host.reported(self, item)
            case _:
                self.actor(item.room).receive(Job(item, origin, receipt.add().confirm))

    # --- after a worker has died ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Active at last: first it must be known what others died with."""
        await self._poison_detector.load()
        await self._run_line()

    async def _run_line(self) -> None:
        """What waits, in order, with care; once nothing does, deliveries are run as they come."""
        try:
            while self._line and self.active:
                delivery = self._line.popleft()
                items = list(self._items(delivery))
                if not delivery.redelivered:
                    await self._poison_detector.forget_others()
                if _only_time(items):  # no mark: it may expire before it comes again
                    self._run_whole(items, partial(self._finished, delivery))
                elif delivery.redelivered and await self._poison_detector.may_run_whole(delivery.body):
                    self._run_whole(items, partial(self._finished_again, delivery))
                elif delivery.redelivered or self._has_suspects(items):
                    await self._run_one_by_one(delivery, items)
                else:
                    self._run_whole(items, partial(self._finished, delivery))
        finally:
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
                self._host.counters.dead_letters_total += 1
                actor.poison(job)
            actor.receive(job)
            await done.wait()
            await self._poison_detector.job_done(job)
        await self._poison_detector.done(batch_name(delivery.body))
        self._finished(delivery)

    def _finished_again(self, delivery: Delivery) -> None:
        self._finished(delivery)
        self._host.spawn(self._poison_detector.done(batch_name(delivery.body)))

    def actor(self, room: str) -> RoomActor:
        actor = self.actors.get(room)
        if actor is None:
            actor = self.actors[room] = RoomActor(room, self.number, self._host, self._forget)
        return actor

    def announce(self, room: str) -> None:
        """A room found in the partition's index after taking it over."""
        self.actor(room).when_live(Executor.announce)

    def _forget(self, actor: RoomActor) -> None:
        if self.actors.get(actor.room) is actor:
            del self.actors[actor.room]


def _nothing() -> None:
    """A job that is only looked at is never done."""


def _only_time(items: Sequence[Received]) -> bool:
    """Ticks and the like, nothing that a client waits for."""
    return all(isinstance(item, bus.TransientItem) for _, item in items)
