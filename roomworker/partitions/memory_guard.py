"""Saves Redis' memory before its `maxmemory` is reached: trims streams, refuses growth, ends the largest rooms.

    from the first mark on    every room's stream is trimmed to the grace, also that of a room which commits nothing
    from the second mark on   requests that make a room grow are answered 503 (`core.limits.Growth`); what is known of
                              deleted rooms is forgotten within `KEEP_PAST_S`; the largest room of each worker is
                              ended, one at a time, if it is large enough to matter

All of it ends by itself when Redis uses less again (`shared.cluster.redis_memory`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from roomworker.core.limits import Growth
from roomworker.counters import Counters
from roomworker.partitions.partition import Partition
from roomworker.runtime.executor import Executor
from roomworker.storage.port import Store
from roomworker.storage.retention import Retention
from shared.cluster.port import Cluster
from shared.cluster.redis_memory import MemoryWatch
from shared.errors import MEMORY_USED_UP
from shared.telemetry import log

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at Redis' memory."""
SAVE_EVERY: Final = 3.0
"""Seconds between two rounds of saving."""
REST_FACTOR: Final = 5
"""A round that took long is followed by a pause of so many times its length: Redis has other work, too."""
KEEP_PAST_S: Final = 30
"""Seconds that closed sessions of deleted rooms are known while memory is short."""
ENDED_SHARE: Final = 0.01
"""The least share of `maxmemory` that a room takes which is ended: to end smaller ones would not help."""

logger = log.get("memory")


class MemoryGuard:
    """Watches Redis' memory for one worker; `run` is to be a task.

    `growth` is shared with the worker's rooms. `leads` says whether this worker does what one of all is to do.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        watch: MemoryWatch,
        partitions: Mapping[int, Partition],
        retention: Retention,
        growth: Growth,
        counters: Counters,
        leads: Callable[[], bool],
    ) -> None:
        self.watch = watch
        self._cluster = cluster
        self._store = store
        self._partitions = partitions
        self._retention = retention
        self._growth = growth
        self._counters = counters
        self._leads = leads
        self._next_round = 0.0

    async def run(self) -> None:
        """Looks at the memory every `LOOK_EVERY` seconds for ever, and saves when it is time."""
        while True:
            was_full = self.watch.is_full
            await self.look()
            now = time.monotonic()
            if self.watch.is_high and (now >= self._next_round or self.watch.is_full > was_full):
                await self.save()
                took = time.monotonic() - now
                self._next_round = now + max(SAVE_EVERY, REST_FACTOR * took)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Reads how much memory Redis uses; while Redis does not answer, the last figures hold."""
        try:
            self.watch.update(await self._cluster.memory())
        except (RedisError, OSError, TimeoutError):
            return
        self._retention.saves_memory = self.watch.is_high
        self._growth.refused = self.watch.is_full

    async def save(self) -> None:
        """Makes one round of saving."""
        rooms = [actor.room for partition in self._partitions.values() for actor in partition.actors.values()]
        self._counters.trimmed_entries_total += await self._store.trim(rooms, self._retention.least_ms)
        if not self.watch.is_full:
            return
        if self._leads() and (count := await self._store.shorten_past(KEEP_PAST_S)):
            logger.warning("rooms.past_shortened", rooms=count)
        await self._end_largest(rooms)

    async def _end_largest(self, rooms: list[str]) -> None:
        """Ends the worker's largest room, unless it is too small to matter."""
        sizes = dict(zip(rooms, await self._store.footprints(rooms), strict=True))
        largest = max(sizes, key=sizes.__getitem__, default=None)
        if largest is None or sizes[largest] < ENDED_SHARE * self.watch.use.limit:
            return
        actors = (partition.actors.get(largest) for partition in self._partitions.values())
        actor = next((found for found in actors if found is not None), None)
        if actor is None or actor.loaded_room is None or not actor.loaded_room.exists:
            return
        logger.error("room.evicted", room=largest, stored_bytes=sizes[largest], reason=self.watch.trouble)
        self._counters.evicted_rooms_total += 1
        actor.when_live(partial(Executor.end_room, why=MEMORY_USED_UP))
