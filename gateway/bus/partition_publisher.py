"""Publishes what sessions and API calls have for the room workers: one queue and one task for each partition.

A batch is whatever the queued sources have when the previous publish is confirmed, one item of each in turn, so that
a busy client delays no other (DELIVERY B6). There is no timer: at low load a batch is one item.
"""

import asyncio
import time
from collections import deque
from typing import Final, Protocol

from gateway.counters import Counters
from shared.aio.backoff import Backoff
from shared.broker import Broker, BrokerError, BrokerUnavailable
from shared.protocol.bus import encode_batch, partition_of
from shared.telemetry import log

BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 64 * 1024
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
"""Seconds before a failed publish is repeated: the first time, and at most."""


class ItemSource(Protocol):
    """A session or an API call, which keeps its items until they are applied and hands them out again."""

    queued: bool
    """True while the source waits in the publisher's queue; set by the publisher."""

    def take(self) -> bytes | None:
        """Returns the next encoded item to publish, if there is one."""
        ...

    def rewind(self) -> bool:
        """Starts again with the first unapplied item; returns False if there is nothing to publish."""
        ...


class PartitionPublisher:
    """Holds the sources of one partition, and the queue of those that have something to publish."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sources: set[ItemSource] = set()
        self.work_available = asyncio.Event()
        self._queue: deque[ItemSource] = deque()

    def schedule(self, source: ItemSource) -> None:
        """Queues a source that has something to publish."""
        if not source.queued:
            source.queued = True
            self._queue.append(source)
            self.work_available.set()

    def take_batch(self) -> list[bytes]:
        """Returns the items of the next batch; the last one may exceed `BATCH_BYTES`."""
        items: list[bytes] = []
        size = 0
        queue = self._queue
        while queue and len(items) < BATCH_ITEMS and size < BATCH_BYTES:
            source = queue.popleft()
            item = source.take()
            if item is None:
                source.queued = False
                continue
            items.append(item)
            size += len(item)
            queue.append(source)
        return items

    def rewind(self) -> None:
        """Publishes everything unapplied again: the broker may have lost what it confirmed (DELIVERY I8)."""
        for source in self.sources:
            if source.rewind():
                self.schedule(source)


class InputPublisher:
    """Publishes the inputs of all partitions. `run` is to be a task; it ends only by being cancelled."""

    def __init__(self, broker: Broker, gateway: str, partitions: int, counters: Counters) -> None:
        self._broker = broker
        self._gateway = gateway
        self._counters = counters
        self._publishers = [PartitionPublisher(partition) for partition in range(partitions)]
        self._log = log.get("publisher")

    def publisher_of(self, room: str) -> PartitionPublisher:
        """Returns the publisher of the partition that the room belongs to."""
        return self._publishers[partition_of(room, len(self._publishers))]

    @property
    def takes_messages(self) -> bool:
        """Whether the broker takes what is published."""
        return self._broker.takes_messages

    def rewind(self) -> None:
        """Publishes everything unapplied again, in all partitions."""
        for publisher in self._publishers:
            publisher.rewind()

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for publisher in self._publishers:
                tasks.create_task(self._run(publisher))

    async def _run(self, publisher: PartitionPublisher) -> None:
        while True:
            await publisher.work_available.wait()
            publisher.work_available.clear()
            while True:
                # Items that are not taken yet can still be cancelled.
                if not self._broker.takes_messages and await self._wait_taking():
                    publisher.rewind()
                if not (items := publisher.take_batch()):
                    break
                self._counters.batches_out_total += 1
                self._counters.items_out.observe(len(items))
                await self._publish(publisher, encode_batch(self._gateway, items, time.time()))

    async def _publish(self, publisher: PartitionPublisher, body: bytes) -> None:
        """Publishes a batch until the broker has it; after a lost connection everything unapplied is due again."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await self._broker.publish("rooms", str(publisher.partition), body)
            except BrokerUnavailable:
                await self._wait_taking()
                publisher.rewind()
                return
            except BrokerError as failed:
                self._log.warning("publish.rejected", partition=publisher.partition, error=repr(failed))
                await backoff.wait()
            else:
                return

    async def _wait_taking(self) -> bool:
        """Waits until the broker takes messages; returns whether the connection was seen to be lost meanwhile."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        lost = False
        while True:
            lost |= not self._broker.connected
            await backoff.wait()
            if self._broker.takes_messages:
                return lost
