"""From the sessions to the partitions: one line of sessions and one pump per partition.

A batch is whatever the sessions in line have when the previous publish is confirmed, taken one item a session in
turn, so that one busy client delays nobody (DELIVERY B6). There is no timer: at low load a batch is one item.
"""

import asyncio
from collections import deque
from typing import Final

from gateway.counts import Counts
from gateway.session import Session
from shared import log
from shared.broker import Broker, BrokerError, BrokerGone
from shared.protocol.bus import batch, partition_of

BATCH_ITEMS: Final = 256
BATCH_BYTES: Final = 64 * 1024
PAUSE_FIRST, PAUSE_MOST = 0.02, 0.5
"""Seconds before a failed publish is repeated."""


class Lane:
    """One partition: its sessions, and in line those of them that have something to publish."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sessions: set[Session] = set()
        self.stirred = asyncio.Event()
        self._line: deque[Session] = deque()

    def stir(self, session: Session) -> None:
        """To be called whenever a session may have something to publish."""
        if not session.queued and session.sendable:
            session.queued = True
            self._line.append(session)
            self.stirred.set()

    def take(self) -> list[bytes]:
        """The items of the next batch; the last may lead it over `BATCH_BYTES`."""
        items: list[bytes] = []
        size = 0
        line = self._line
        while line and len(items) < BATCH_ITEMS and size < BATCH_BYTES:
            session = line.popleft()
            item = session.take()
            if item is None:
                session.queued = False
                continue
            items.append(item)
            size += len(item)
            line.append(session)
        return items

    def lost(self) -> None:
        """The broker may have forgotten all that it confirmed (I8)."""
        for session in self.sessions:
            session.lost()
            self.stir(session)


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
            while items := lane.take():
                self._counts.batches_out_total += 1
                self._counts.items_out_total += len(items)
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
