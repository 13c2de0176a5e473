"""Loads and commits rooms, many per round trip: what is wanted while one trip is under way goes with the next."""

import asyncio
from time import perf_counter
from typing import Final

from roomworker.counters import Counters
from roomworker.runtime.room_actor import RoomActor
from roomworker.storage.store import Commit, Store

ROOMS_PER_TRIP: Final = 256


class Committer:
    def __init__(self, store: Store, counters: Counters) -> None:
        self._store = store
        self._counters = counters
        self._to_load: dict[RoomActor, None] = {}
        self._to_commit: dict[RoomActor, None] = {}
        self._load_wanted = asyncio.Event()
        self._commit_wanted = asyncio.Event()
        self.commits = 0

    def want_load(self, actor: RoomActor) -> None:
        self._to_load[actor] = None
        self._load_wanted.set()

    def want_commit(self, actor: RoomActor) -> None:
        self._to_commit[actor] = None
        self._commit_wanted.set()

    async def load_loop(self) -> None:
        while True:
            await self._load_wanted.wait()
            actors = _first(self._to_load)
            if not self._to_load:
                self._load_wanted.clear()
            began = perf_counter()
            rooms = await self._store.load([actor.room for actor in actors])
            self._counters.load.observe(perf_counter() - began)
            for actor, stored in zip(actors, rooms, strict=True):
                actor.loaded(stored)

    async def commit_loop(self) -> None:
        while True:
            await self._commit_wanted.wait()
            await asyncio.sleep(0)  # what has come meanwhile is handled first, and goes along
            taken: list[tuple[RoomActor, Commit]] = []
            for actor in _first(self._to_commit):
                commit = actor.take()
                if commit is not None:
                    taken.append((actor, commit))
            if not self._to_commit:
                self._commit_wanted.clear()
            if not taken:
                continue
            self.commits += len(taken)
            began = perf_counter()
            statuses = await self._store.commit([commit for _, commit in taken])
            self._counters.count_commits(statuses, perf_counter() - began)
            for (actor, commit), status in zip(taken, statuses, strict=True):
                actor.commit_answered(commit, status)


def _first(wanted: dict[RoomActor, None]) -> list[RoomActor]:
    actors = list(wanted)[:ROOMS_PER_TRIP]
    for actor in actors:
        del wanted[actor]
    return actors
