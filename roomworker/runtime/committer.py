"""Loads and commits rooms, many per round trip: requests made while one trip is under way go with the next."""

import asyncio
from time import perf_counter
from typing import Final, Protocol

from roomworker.counters import CommitStatus, Counters
from roomworker.storage.port import Commit, Store, Stored

ROOMS_PER_TRIP: Final = 256


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

    `load_loop` and `commit_loop` are to be run as tasks; each has one round trip under way at a time.
    """

    def __init__(self, store: Store, counters: Counters) -> None:
        self._store = store
        self._counters = counters
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
            began = perf_counter()
            found = await self._store.load([room.room for room in rooms])
            self._counters.load.observe(perf_counter() - began)
            for room, stored in zip(rooms, found, strict=True):
                room.loaded(stored)

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
