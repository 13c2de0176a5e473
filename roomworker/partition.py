"""One partition's queue: deliveries in, each acknowledged when everything in it is committed and published."""

import msgspec

from roomworker.outbox import Receipt
from roomworker.runner import Job, Runner
from roomworker.slot import Host, Slot
from shared import log
from shared.broker import Broker, Delivery, Subscription
from shared.protocol import bus

logger = log.get("partition")


class PartitionHost(Host):
    """What a partition asks of its worker."""

    def activated(self, partition: "Partition") -> None:
        """The first delivery since subscribing, or since the channel was lost: this worker is the active one."""
        raise NotImplementedError

    def replay(self, slot: Slot, gateway: str, item: bus.Replay) -> None:
        raise NotImplementedError

    def ticked(self, partition: "Partition", tick: bus.Tick) -> None:
        raise NotImplementedError


class Partition:
    def __init__(self, number: int, host: PartitionHost) -> None:
        self.number = number
        self._host = host
        self._subscription: Subscription | None = None
        self.slots: dict[str, Slot] = {}
        self.active = False
        self.bad_items = 0

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
    def busy(self) -> bool:
        return any(slot.busy for slot in self.slots.values())

    def lost(self) -> None:
        """What was delivered and is not acknowledged belongs to the next active worker."""
        self.active = False
        for slot in list(self.slots.values()):
            slot.drop()

    def receive(self, delivery: Delivery) -> None:
        if not self.active:
            self.active = True
            self._host.activated(self)
        receipt = Receipt(delivery.ack)
        try:
            origin, items = bus.split(delivery.body)
            for encoded in items:
                self._receive_item(origin, encoded, receipt)
        except ValueError as broken:
            self.bad_items += 1
            logger.error("batch cannot be read", partition=self.number, error=str(broken))
        receipt.confirm()

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
