"""Loads and commits rooms, many per round trip: what is wanted while one trip is under way goes with the next."""

import asyncio
from time import perf_counter
from typing import Final, Protocol

from roomworker.counters import CommitStatus, Counters
from roomworker.storage.port import Commit, Store, Stored

ROOMS_PER_TRIP: Final = 256


class Client(Protocol):
    """A room that is loaded and committed."""

    room: str

    def loaded(self, stored: Stored) -> None:
        """What is stored of the room, asked for by `want_load`."""
        ...

    def next_commit(self) -> Commit | None:
        """What is to be committed now; None: nothing after all."""
        ...

    def commit_answered(self, commit: Commit, status: CommitStatus) -> None:
        """What became of the commit that `next_commit` gave."""
        ...


class Committer:
    """`load_loop` and `commit_loop` are to be run as tasks; each has one round trip under way at a time."""

    def __init__(self, store: Store, counters: Counters) -> None:
        self._store = store
        self._counters = counters
        self._to_load: dict[Client, None] = {}
        self._to_commit: dict[Client, None] = {}
        self._load_wanted = asyncio.Event()
        self._commit_wanted = asyncio.Event()
        self.commits = 0

    def want_load(self, client: Client) -> None:
        self._to_load[client] = None
        self._load_wanted.set()

    def want_commit(self, client: Client) -> None:
        self._to_commit[client] = None
        self._commit_wanted.set()

    async def load_loop(self) -> None:
        while True:
            await self._load_wanted.wait()
            clients = _first(self._to_load)
            if not self._to_load:
                self._load_wanted.clear()
            began = perf_counter()
            rooms = await self._store.load([client.room for client in clients])
            self._counters.load.observe(perf_counter() - began)
            for client, stored in zip(clients, rooms, strict=True):
                client.loaded(stored)

    async def commit_loop(self) -> None:
        while True:
            await self._commit_wanted.wait()
            await asyncio.sleep(0)  # what has come meanwhile is handled first, and goes along
            taken: list[tuple[Client, Commit]] = []
            for client in _first(self._to_commit):
                commit = client.next_commit()
                if commit is not None:
                    taken.append((client, commit))
            if not self._to_commit:
                self._commit_wanted.clear()
            if not taken:
                continue
            self.commits += len(taken)
            began = perf_counter()
            statuses = await self._store.commit([commit for _, commit in taken])
            self._counters.count_commits(statuses, perf_counter() - began)
            for (client, commit), status in zip(taken, statuses, strict=True):
                client.commit_answered(commit, status)


def _first(wanted: dict[Client, None]) -> list[Client]:
    clients = list(wanted)[:ROOMS_PER_TRIP]
    for client in clients:
        del wanted[client]
    return clients
