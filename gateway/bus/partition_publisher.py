"""From sessions and calls to the partitions: one line of them and one pump per partition.

A batch is whatever those in line have when the previous publish is confirmed, taken one item each in turn, so that
one busy client delays nobody (DELIVERY B6). There is no timer: at low load a batch is one item.
"""

import asyncio
import time
from collections import deque
from typing import Final, Protocol

from gateway.counters import Counters
from shared.broker import Broker, BrokerError, BrokerUnavailable
from shared.protocol.bus import encode_batch, partition_of
from shared.telemetry import log

BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 64 * 1024
PAUSE_FIRST, PAUSE_MOST = 0.02, 0.5
"""Seconds before a failed publish is repeated."""


class Source(Protocol):
    """A session or a call: keeps its items until they are applied, and hands them out as often as they get lost."""

    queued: bool
    """Kept by the publisher: already in line."""

    @property
    def sendable(self) -> bool:
        """Whether `take` has something."""
        ...

    def take(self) -> bytes | None:
        """The next encoded item to publish."""
        ...

    def lost(self) -> None:
        """What was published and is not answered yet is to be handed out again."""
        ...


class PartitionPublisher:
    """One partition: who sends to it, and in line those of them that have something to publish."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sources: set[Source] = set()
        self.work_available = asyncio.Event()
        self._line: deque[Source] = deque()

    def schedule(self, source: Source) -> None:
        """To be called whenever it may have something to publish."""
        if not source.queued and source.sendable:
            source.queued = True
            self._line.append(source)
            self.work_available.set()

    def take(self) -> list[bytes]:
        """The items of the next batch; the last may lead it over `BATCH_BYTES`."""
        items: list[bytes] = []
        size = 0
        line = self._line
        while line and len(items) < BATCH_ITEMS and size < BATCH_BYTES:
            source = line.popleft()
            item = source.take()
            if item is None:
                source.queued = False
                continue
            items.append(item)
            size += len(item)
            line.append(source)
        return items

    def lost(self) -> None:
        """The broker may have forgotten all that it confirmed (I8)."""
        for source in self.sources:
            source.lost()
            self.schedule(source)


class InputPublisher:
    """All publishers of a gateway. `run` is to be a task; it ends only by being cancelled."""

    def __init__(self, broker: Broker, gateway: str, partitions: int, counters: Counters) -> None:
        self._broker = broker
        self._gateway = gateway
        self._counters = counters
        self._publishers = [PartitionPublisher(partition) for partition in range(partitions)]
        self._log = log.get("publisher")

    def publisher_of(self, room: str) -> PartitionPublisher:
        return self._publishers[partition_of(room, len(self._publishers))]

    @property
    def connected(self) -> bool:
        return self._broker.connected

    def lost(self) -> None:
        for publisher in self._publishers:
            publisher.lost()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as pumps:
            for publisher in self._publishers:
                pumps.create_task(self._pump(publisher))

    async def _pump(self, publisher: PartitionPublisher) -> None:
        while True:
            await publisher.work_available.wait()
            publisher.work_available.clear()
            if not self._broker.connected:
                await self._reconnected()  # what is not taken can still be taken back
            while items := publisher.take():
                self._counters.batches_out_total += 1
                self._counters.items_out.observe(len(items))
                await self._publish(publisher, encode_batch(self._gateway, items, time.time()))

    async def _publish(self, publisher: PartitionPublisher, body: bytes) -> None:
        """Until the broker has it, or lost its connection: then all that was in flight comes again, in order."""
        pause = PAUSE_FIRST
        while True:
            try:
                await self._broker.publish("rooms", str(publisher.partition), body)
            except BrokerUnavailable:
                await self._reconnected()
                publisher.lost()
                return
            except BrokerError as failed:
                self._log.warning("publish.rejected", partition=publisher.partition, error=repr(failed))
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MOST)
            else:
                return

    async def _reconnected(self) -> None:
        pause = PAUSE_FIRST
        while True:
            await asyncio.sleep(pause)
            if self._broker.connected:
                return
            pause = min(2 * pause, PAUSE_MOST)
