"""Redis' memory is saved before it is used up: streams are trimmed, growth is refused, the largest room ends."""

from types import SimpleNamespace
from typing import Any

import pytest

from roomworker.core.limits import Growth
from roomworker.counters import Counters
from roomworker.partitions.memory_guard import KEEP_PAST_S, MemoryGuard
from roomworker.storage.retention import Retention
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.port import MemoryUse
from shared.cluster.redis_memory import MemoryWatch
from shared.errors import MEMORY_USED_UP, CloseKind

LIMIT = 100_000
GRACE = 15.0
FULL, HIGH, LOW = 90_000, 80_000, 10_000


class RecordingStore:
    """Records what it is asked for; rooms have the sizes that the test gives them."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.room_sizes = sizes
        self.trimmed: list[tuple[list[str], int]] = []
        self.shortened: list[int] = []

    async def trim(self, rooms: list[str], keep_ms: int) -> int:
        self.trimmed.append((list(rooms), keep_ms))
        return len(rooms)

    async def footprints(self, rooms: list[str]) -> list[int]:
        return [self.room_sizes[room] for room in rooms]

    async def shorten_past(self, keep_s: int) -> int:
        self.shortened.append(keep_s)
        return 0


class Scene:
    """A guard over rooms of these sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
        self.cluster, self.store = MemoryCluster(), RecordingStore(sizes)
        self.growth, self.counters, self.retention = Growth(), Counters(), Retention(GRACE, 0.0)
        self.leads = True
        self.ended: list[tuple[str, CloseKind]] = []
        monkeypatch.setattr(
            "roomworker.partitions.memory_guard.Executor.end_room",
            lambda room, why: self.ended.append((room, why)),
        )
        actors = {room: SimpleNamespace(room=room, loaded_room=SimpleNamespace(exists=True)) for room in sizes}
        for room, actor in actors.items():
            actor.when_live = lambda call, room=room: call(room)
        partitions: Any = {0: SimpleNamespace(actors=actors)}
        store: Any = self.store
        self.guard = MemoryGuard(
            self.cluster,
            store,
            MemoryWatch(0.75, 0.85),
            partitions,
            self.retention,
            self.growth,
            self.counters,
            lambda: self.leads,
        )

    async def uses(self, used: int) -> None:
        self.cluster.memory_use = MemoryUse(used, LIMIT)
        await self.guard.look()
        if self.guard.watch.is_high:
            await self.guard.save()


async def test_first_mark_trims_every_stream_to_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a=50_000, b=10)
    await scene.uses(HIGH)

    assert scene.store.trimmed == [(["a", "b"], 15_000)]
    assert scene.retention.keep_ms(list, 0.0) == 15_000
    assert not scene.growth.refused
    assert (scene.ended, scene.store.shortened) == ([], [])
    assert scene.counters.trimmed_entries_total == 2


async def test_second_mark_refuses_growth_and_ends_the_largest_room(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a=2000, b=50_000, c=3000)
    await scene.uses(FULL)

    assert scene.growth.refused
    assert scene.ended == [("b", MEMORY_USED_UP)]
    assert scene.store.shortened == [KEEP_PAST_S]
    assert scene.counters.evicted_rooms_total == 1


async def test_room_too_small_to_matter_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a=999, b=1)
    await scene.uses(FULL)

    assert scene.ended == []


async def test_only_the_leader_shortens_what_is_known_of_deleted_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    scene.leads = False
    await scene.uses(FULL)

    assert scene.store.shortened == []


async def test_everything_is_allowed_again_when_less_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, a=50_000)
    await scene.uses(FULL)
    await scene.uses(LOW)

    assert not scene.growth.refused
    assert scene.guard.watch.trouble == ""
    assert scene.retention.keep_ms(list, 1000.0) == 30_000
    assert len(scene.store.trimmed) == 1


async def test_figures_hold_while_redis_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> MemoryUse:
        raise ConnectionError

    scene = Scene(monkeypatch)
    await scene.uses(FULL)
    monkeypatch.setattr(scene.cluster, "memory", refuse)
    await scene.guard.look()

    assert scene.growth.refused
