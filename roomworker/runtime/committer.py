"""Loads and commits rooms, many per round trip: requests made while one trip is under way go with the next.

A room's size is known before it is loaded: one that is too large is set aside, as one that cannot be read, so that it
ends neither this worker nor, after it, any other.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final, Protocol

from roomworker.core.budget import WorkerTotal
from roomworker.core.limits import DEFAULTS, Limits
from roomworker.counters import CommitStatus, Counters
from roomworker.storage.port import UNCOUNTED, Commit, Store, Stored

ROOMS_PER_TRIP: Final = 256
BYTES_PER_TRIP: Final = 16 * 1024 * 1024
"""Bytes of the rooms that are loaded together, unless a single one has more."""
BESIDES_STATE: Final = 2 * 1024 * 1024
"""Bytes of a room beyond its limit that are loaded: closed sessions and answered calls, which no limit counts."""
LOADED_BEYOND_LIMIT: Final = 1.25
"""Factor of the worker's limit up to which it loads rooms; rooms grow only below the limit itself."""


class PersistentRoom(Protocol):
    """A room as the committer sees it: its state can be loaded and committed."""

    room: str

    def loaded(self, stored: Stored) -> None:
        """Takes what is stored of the room, after `want_load`."""
        ...

    def next_commit(self) -> Commit | None:
        """Returns the commit to make now; None if nothing has changed."""
        ...

    def commit_answered(self, commit: Commit, status: CommitStatus) -> None:
        """Takes the store's answer to the commit that `next_commit` returned."""
        ...


class Committer:
    """Collects the rooms that are to be loaded or committed, and does so in as few round trips as possible.

    `load_loop` and `commit_loop` are to be run as tasks; each has one round trip under way at a time. `total` has the
    bytes of all rooms of the worker.
    """

    def __init__(
        self, store: Store, counters: Counters, limits: Limits = DEFAULTS, total: WorkerTotal | None = None
    ) -> None:
        self._store = store
        self._counters = counters
        self._limits = limits
        self._total = total or WorkerTotal()
        self._to_load: dict[PersistentRoom, None] = {}
        self._to_commit: dict[PersistentRoom, None] = {}
        self._load_wanted = asyncio.Event()
        self._commit_wanted = asyncio.Event()
        self.commits = 0

    def want_load(self, room: PersistentRoom) -> None:
        """Has the room loaded with the next round trip."""
        self._to_load[room] = None
        self._load_wanted.set()

    def want_commit(self, room: PersistentRoom) -> None:
        """Has the room asked for its commit before the next round trip."""
        self._to_commit[room] = None
        self._commit_wanted.set()

    async def load_loop(self) -> None:
        while True:
            await self._load_wanted.wait()
            rooms = _first(self._to_load)
            if not self._to_load:
                self._load_wanted.clear()
            await self._load(rooms)

    async def _load(self, rooms: Sequence[PersistentRoom]) -> None:
        began = perf_counter()
        sizes = await self._store.state_sizes([room.room for room in rooms])
        waiting = deque(zip(rooms, sizes, strict=True))
        while some := self._next_batch(waiting):
            found = await self._store.load([room.room for room in some])
            self._counters.load.observe(perf_counter() - began)
            for room, stored in zip(some, found, strict=True):
                room.loaded(stored)
            began = perf_counter()

    def _next_batch(self, waiting: deque[tuple[PersistentRoom, int]]) -> list[PersistentRoom]:
        """Takes rooms that have `BYTES_PER_TRIP` together; those that may not be loaded are told so."""
        batch: list[PersistentRoom] = []
        total = 0
        while waiting:
            room, size = waiting[0]
            if fault := self._fault_of(size, total):
                room.loaded(Stored("", {}, {}, unreadable=fault))
            elif batch and total + size > BYTES_PER_TRIP:
                break
            else:
                batch.append(room)
                total += size
            waiting.popleft()
        return batch

    def _fault_of(self, size: int, others: int) -> str:
        """Returns the reason why a room of this size is not loaded beside others; empty if it is."""
        if size > self._limits.room_bytes + BESIDES_STATE:
            found = "too many fields" if size == UNCOUNTED else f"{size} bytes"
            return f"too large: {found}, the limit is {self._limits.room_bytes} bytes (PLENARY_ROOM_BYTES)"
        used = self._total.used + others
        if used + size > self._total.limit * LOADED_BEYOND_LIMIT:
            return f"the worker has {used} bytes of rooms, the limit is {self._total.limit} (PLENARY_WORKER_BYTES)"
        return ""

    async def commit_loop(self) -> None:
        while True:
            await self._commit_wanted.wait()
            await asyncio.sleep(0)  # deliveries that have come meanwhile are handled first, and go along
            taken: list[tuple[PersistentRoom, Commit]] = []
            for room in _first(self._to_commit):
                commit = room.next_commit()
                if commit is not None:
                    taken.append((room, commit))
            if not self._to_commit:
                self._commit_wanted.clear()
            if not taken:
                continue
            self.commits += len(taken)
            began = perf_counter()
            statuses = await self._store.commit([commit for _, commit in taken])
            self._counters.count_commits(statuses, perf_counter() - began)
            for (room, commit), status in zip(taken, statuses, strict=True):
                room.commit_answered(commit, status)


def _first(wanted: dict[PersistentRoom, None]) -> list[PersistentRoom]:
    rooms = list(wanted)[:ROOMS_PER_TRIP]
    for room in rooms:
        del wanted[room]
    return rooms
