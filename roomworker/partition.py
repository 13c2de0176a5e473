"""One partition's queue: deliveries in, each acknowledged when everything in it is committed and published."""

import asyncio
from functools import partial
from typing import Protocol

import msgspec

from roomworker.lane import Job
from roomworker.outbox import Receipt
from roomworker.runner import Runner
from roomworker.slot import Host, Slot
from shared import log
from shared.broker import Broker, Delivery, Subscription
from shared.protocol import bus

logger = log.get("partition")


class PartitionHost(Host, Protocol):
    """What a partition asks of its worker."""

    def activated(self, partition: "Partition") -> None:
        """The first delivery since subscribing, or since the channel was lost: this worker is the active one."""
        ...

    def replay(self, slot: Slot, gateway: str, item: bus.Replay) -> None:
        """A gateway misses outputs of a session."""
        ...

    def ticked(self, partition: "Partition", tick: bus.Tick) -> None:
        """A second has passed."""
        ...


class Partition:
    def __init__(self, number: int, host: PartitionHost) -> None:
        self.number = number
        self._host = host
        self._subscription: Subscription | None = None
        self.slots: dict[str, Slot] = {}
        self.active = False
        self.bad_items = 0
        self._open: set[Delivery] = set()
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

    async def quiet(self) -> None:
        """Returns when everything that was delivered is committed and published."""
        if self._open:
            self._quiet.clear()
            await self._quiet.wait()

    def lost(self) -> None:
        """What was delivered and is not acknowledged belongs to the next active worker."""
        self.active = False
        self._open.clear()
        self._quiet.set()
        for slot in list(self.slots.values()):
            slot.drop()

    def receive(self, delivery: Delivery) -> None:
        if not self.active:
            self.active = True
            self._host.activated(self)
        self._open.add(delivery)
        receipt = Receipt(partial(self._finished, delivery))
        try:
            origin, items = bus.split(delivery.body)
            for encoded in items:
                self._receive_item(origin, encoded, receipt)
        except ValueError as broken:
            self.bad_items += 1
            logger.error("batch cannot be read", partition=self.number, error=str(broken))
        receipt.confirm()

    def _finished(self, delivery: Delivery) -> None:
        delivery.ack()
        self._open.discard(delivery)
        if not self._open:
            self._quiet.set()

    def _receive_item(self, origin: str, encoded: bytes, receipt: Receipt) -> None:
        try:
            item: bus.AnyItem = bus.decode_item(encoded)
        except msgspec.MsgspecError as broken:
            self.bad_items += 1
            logger.error("item cannot be read", partition=self.number, origin=origin, error=str(broken))
            return
        match item:
            case bus.Tick():
                self._host.ticked(self, item)
            case bus.Replay():
                self._host.replay(self.slot(item.room), origin, item)
            case _:
                self.slot(item.room).receive(Job(item, origin, receipt.add().confirm))

    def slot(self, room: str) -> Slot:
        slot = self.slots.get(room)
        if slot is None:
            slot = self.slots[room] = Slot(room, self.number, self._host, self._forget)
        return slot

    def announce(self, room: str) -> None:
        """A room found in the partition's index after taking it over."""
        self.slot(room).when_live(Runner.announce)

    def _forget(self, slot: Slot) -> None:
        if self.slots.get(slot.room) is slot:
            del self.slots[slot.room]
