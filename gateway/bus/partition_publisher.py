"""From sessions and calls to the partitions: one line of them and one pump per partition.

A batch is whatever those in line have when the previous publish is confirmed, taken one item each in turn, so that
one busy client delays nobody (DELIVERY B6). There is no timer: at low load a batch is one item.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

from gateway.counters import Counts
from shared.broker import Broker, BrokerError, BrokerGone
from shared.protocol.bus import batch, partition_of
from shared.telemetry import log

BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 64 * 1024
PAUSE_FIRST, PAUSE_MOST = 0.02, 0.5
"""Seconds before a failed publish is repeated."""


class Source(Protocol):
    """A session or a call: keeps its items until they are applied, and hands them out as often as they get lost."""

    queued: bool
    """Kept by the lane: already in line."""

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


class Lane:
    """One partition: who sends to it, and in line those of them that have something to publish."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sources: set[Source] = set()
        self.stirred = asyncio.Event()
        self._line: deque[Source] = deque()

    def stir(self, source: Source) -> None:
        """To be called whenever it may have something to publish."""
        if not source.queued and source.sendable:
            source.queued = True
            self._line.append(source)
            self.stirred.set()

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
            self.stir(source)


class Uplink:
    """All lanes of a gateway. `run` is to be a task; it ends only by being cancelled."""

    def __init__(self, broker: Broker, gateway: str, partitions: int, counts: Counts) -> None:
        self._broker = broker
        self._gateway = gateway
        self._counts = counts
        self._lanes = [Lane(partition) for partition in range(partitions)]
        self._log = log.get("uplink")

    def lane(self, room: str) -> Lane:
        return self._lanes[partition_of(room, len(self._lanes))]

    @property
    def connected(self) -> bool:
        return self._broker.connected

    def lost(self) -> None:
        for lane in self._lanes:
            lane.lost()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as pumps:
            for lane in self._lanes:
                pumps.create_task(self._pump(lane))

    async def _pump(self, lane: Lane) -> None:
        while True:
            await lane.stirred.wait()
            lane.stirred.clear()
            if not self._broker.connected:
                await self._reconnected()  # what is not taken can still be taken back
            while items := lane.take():
                self._counts.batches_out_total += 1
                self._counts.items_out.observe(len(items))
                await self._publish(lane, batch(self._gateway, items))

    async def _publish(self, lane: Lane, body: bytes) -> None:
        """Until the broker has it, or lost its connection: then all that was in flight comes again, in order."""
        pause = PAUSE_FIRST
        while True:
            try:
                await self._broker.publish("rooms", str(lane.partition), body)
            except BrokerGone:
                await self._reconnected()
                lane.lost()
                return
            except BrokerError as failed:
                self._log.warning("publish refused, will be repeated", partition=lane.partition, why=repr(failed))
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
