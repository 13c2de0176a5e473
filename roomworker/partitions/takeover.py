"""Takes a partition over: loads every room of it and sends again what its predecessor may not have sent."""

import asyncio
from typing import Final

from roomworker.messaging.outbox import Outbox
from roomworker.partitions.partition import Partition
from roomworker.storage.port import Store

ROOMS_AT_ONCE: Final = 100
"""Rooms whose streams are read in one round trip."""
PARTITIONS_AT_ONCE: Final = 4


class Takeover:
    """Takes partitions over, at most `PARTITIONS_AT_ONCE` at a time."""

    def __init__(self, store: Store, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox
        self._at_once = asyncio.Semaphore(PARTITIONS_AT_ONCE)

    async def take_over(self, partition: Partition) -> None:
        """Loads the partition's rooms and reports to their gateways what is committed of each session.

        Orders that the predecessor committed and may not have published are sent again: nodes ignore those they had.
        """
        async with self._at_once:
            rooms = await self._store.indexed(partition.number)
            for start in range(0, len(rooms), ROOMS_AT_ONCE):
                some = rooms[start : start + ROOMS_AT_ONCE]
                for node, order in await self._store.orders(some):
                    self._outbox.send_order(node, order)
                for room in some:
                    if not partition.active:
                        return
                    partition.actor(room).announce()
