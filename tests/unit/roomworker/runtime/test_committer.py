"""Rooms are loaded if they are not too large, and as many together as are not too large together."""

import asyncio
from collections.abc import Sequence

import pytest

from roomworker.core.budget import WorkerTotal
from roomworker.core.limits import Limits
from roomworker.counters import CommitStatus, Counters
from roomworker.runtime import committer as committer_module
from roomworker.runtime.committer import BESIDES_STATE, BYTES_PER_TRIP, Committer
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import UNCOUNTED, Commit, Stored

LIMIT = 1024 * 1024
TOO_LARGE = LIMIT + BESIDES_STATE + 1


class SizedStore(MemoryStore):
    """Rooms that are as large as their names say: `1000`, or `1000 b`."""

    def __init__(self) -> None:
        super().__init__()
        self.trips: list[list[str]] = []

    async def state_sizes(self, rooms: Sequence[str]) -> list[int]:
        return [int(room.split()[0]) for room in rooms]

    async def load(self, rooms: Sequence[str]) -> list[Stored]:
        self.trips.append(list(rooms))
        return await super().load(rooms)


class LoadedRoom:
    """A room that notes what it was loaded with."""

    def __init__(self, room: str) -> None:
        self.room = room
        self.stored: Stored | None = None

    def loaded(self, stored: Stored) -> None:
        self.stored = stored

    def next_commit(self) -> Commit | None:
        return None

    def commit_answered(self, commit: Commit, status: CommitStatus) -> None:
        raise AssertionError(commit, status)

    @property
    def fault(self) -> str:
        assert self.stored is not None
        return self.stored.unreadable


async def load(names: list[str], total: WorkerTotal | None = None) -> tuple[list[LoadedRoom], SizedStore]:
    """Loads the rooms at once; returns when all of them have been told."""
    store = SizedStore()
    committer = Committer(store, Counters(), Limits(room_bytes=LIMIT), total)
    rooms = [LoadedRoom(name) for name in names]
    for room in rooms:
        committer.want_load(room)
    loading = asyncio.create_task(committer.load_loop())
    while not all(room.stored for room in rooms):
        await asyncio.sleep(0)
    loading.cancel()
    return rooms, store


@pytest.mark.parametrize("size", [TOO_LARGE, UNCOUNTED])
async def test_room_that_is_too_large_is_set_aside_alone_and_not_loaded(size: int) -> None:
    (one, large, other), store = await load(["10 a", str(size), "10 b"])

    assert large.fault.startswith("too large: ")
    assert f"{LIMIT} bytes (PLENARY_ROOM_BYTES)" in large.fault
    assert (one.fault, other.fault) == ("", "")
    assert store.trips == [["10 a", "10 b"]]


async def test_room_as_large_as_the_limit_is_loaded() -> None:
    ((room,), _) = await load([str(TOO_LARGE - 1)])
    assert room.fault == ""


async def test_rooms_that_are_large_together_are_loaded_in_several_trips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "BYTES_PER_TRIP", 1000)
    assert BYTES_PER_TRIP > LIMIT
    names = ["400 a", "400 b", "400 c", "5000 d", "0 e", "1000 f", "0 g"]
    rooms, store = await load(names)

    assert store.trips == [["400 a", "400 b"], ["400 c"], ["5000 d"], ["0 e", "1000 f", "0 g"]]
    assert not any(room.fault for room in rooms)


async def test_room_beyond_what_a_worker_may_have_is_set_aside() -> None:
    total = WorkerTotal(limit=100_000, used=120_000)
    (small, large), store = await load(["5000 a", "50000 b"], total)

    assert small.fault == ""
    assert "125000 bytes of rooms" in large.fault
    assert store.trips == [["5000 a"]]
