"""Answers what the server API need not ask a room: the list of rooms, and the processes of the cluster."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, get_args

from redis.exceptions import RedisError

from gateway.api.operations import ClusterStatus, ProcessView, RoomEntry, RoomList
from shared.cluster.port import Cluster
from shared.cluster.redis_keys import Role
from shared.cluster.registry import BEAT_EVERY, Observer
from shared.errors import Unavailable
from shared.protocol.bus import partition_of

ROLES: Final[tuple[Role, ...]] = get_args(Role)


class Rooms:
    """Lists the rooms, ordered by partition and by name within each; a cursor is the last name of a page."""

    def __init__(self, cluster: Cluster, partitions: int) -> None:
        self._cluster = cluster
        self._partitions = partitions

    async def page(self, limit: int, after: str) -> RoomList:
        """Returns at most `limit` rooms after the cursor `after`; empty begins with the first.

        Raises `Unavailable` without Redis.
        """
        first = partition_of(after, self._partitions) if after else 0
        try:
            names = await self._names(range(first, self._partitions), limit, after)
        except (RedisError, OSError) as failed:
            raise Unavailable(f"Redis does not answer ({failed})") from None
        page = names[:limit]
        return RoomList([RoomEntry(name) for name in page], page[-1] if len(names) > limit else None)

    async def _names(self, partitions: Sequence[int], limit: int, after: str) -> list[str]:
        """Returns the names that follow `after`, at least one more than `limit` if there are as many."""
        found: list[str] = []
        for these in await self._groups(partitions, limit):
            for p, here in zip(these, await self._cluster.rooms(these), strict=True):
                found += [name for name in here if name > after] if p == partitions[0] else here
            if len(found) > limit:
                break
        return found

    async def _groups(self, partitions: Sequence[int], limit: int) -> list[list[int]]:
        """Returns the partitions in groups, each of which probably fills a page."""
        groups: list[list[int]] = [[]]
        expected = 0
        for p, size in zip(partitions, await self._cluster.room_counts(partitions), strict=True):
            if expected > limit:
                groups.append([])
                expected = 0
            groups[-1].append(p)
            expected += size
        return groups


class ProcessWatch:
    """Observes which processes of the cluster are alive, which takes some seconds. `run` is to be a task."""

    def __init__(self, cluster: Cluster) -> None:
        self._observers = {role: Observer(cluster, role) for role in ROLES}
        self._seen = False

    async def run(self) -> None:
        while True:
            await self.read_registry(time.monotonic())
            await asyncio.sleep(BEAT_EVERY)

    async def read_registry(self, now: float) -> None:
        """Reads the registry of every role once. `now` is in seconds of this process's monotonic clock."""
        try:
            for observer in self._observers.values():
                await observer.read(now)
            self._seen = True
        except (RedisError, OSError):
            for observer in self._observers.values():
                observer.failed()
            self._seen = False

    def status(self) -> ClusterStatus:
        """Returns the processes as last read. Raises `Unavailable` if Redis did not answer then."""
        if not self._seen:
            raise Unavailable("Redis does not answer")
        return ClusterStatus(**{role: _views(observer) for role, observer in self._observers.items()})


def _views(observer: Observer) -> list[ProcessView]:
    known = [(name, True, info) for name, info in observer.alive.items()]
    known += [(name, False, {}) for name in observer.dead]
    return [ProcessView(name, alive, info) for name, alive, info in sorted(known, key=lambda entry: entry[0])]
