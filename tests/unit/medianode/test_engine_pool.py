"""Engines are started again when they end, and a spare one runs while it is wanted."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from medianode import engine_pool
from medianode.engine_pool import EnginePool
from medianode.engines.port import Engine, EngineFailed
from shared.aio.backoff import Backoff
from tests.unit.medianode.conftest import HeldEngine


class Pool:
    """A pool whose engines die when the test says so; `used` are those with rooms."""

    def __init__(self, size: int) -> None:
        self.made: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.ended: asyncio.Queue[tuple[Any, str]] = asyncio.Queue()
        self.used: set[Any] = set()
        self.failures: list[str] = []
        self._starting: dict[Any, int] = {}
        self.pool = EnginePool(
            self._make,
            size,
            on_event=lambda _: None,
            on_started=lambda engine: self.made.put_nowait((self._starting[engine], engine)),
            on_ended=self._ended,
            in_use=lambda engine: engine in self.used,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def _make(self, index: int) -> Any:
        engine: Any = HeldEngine()
        if self.failures:
            reason = self.failures.pop()

            async def fail(*_: object) -> None:
                raise EngineFailed(reason)

            engine.start = fail
        self._starting[engine] = index
        return engine

    def _ended(self, engine: Engine, reason: str) -> None:
        self.used.discard(engine)
        self.ended.put_nowait((engine, reason))

    async def start(self) -> None:
        deaths = await self.pool.start()
        self.tasks = [asyncio.create_task(self.pool.supervise(i, death)) for i, death in enumerate(deaths)]
        self.tasks.append(asyncio.create_task(self.pool.supervise_spare()))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.pool.close()

    async def next(self) -> tuple[int, Any]:
        async with asyncio.timeout(10):
            return await self.made.get()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_pool, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(engine_pool, "SPARE_SECONDS", 0.05)
    monkeypatch.setattr(engine_pool, "SPARE_CHECK_SECONDS", 0.01)


@pytest.fixture
async def single() -> AsyncIterator[Pool]:
    pool = Pool(1)
    await pool.start()
    yield pool
    await pool.end()


def recorded_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Makes pauses short; returns what they would have been, in units of the first."""
    pauses: list[float] = []
    pause = Backoff.next

    def next_pause(backoff: Backoff) -> float:
        pauses.append(round(pause(backoff) / engine_pool.FIRST_PAUSE_SECONDS))
        return 0.0

    monkeypatch.setattr(Backoff, "next", next_pause)
    return pauses


@pytest.mark.parametrize(("used", "expected"), [(False, [1, 2, 4, 8]), (True, [1, 1, 1, 1])])
async def test_pauses_grow_only_while_no_room_was_on_the_engine(
    single: Pool, monkeypatch: pytest.MonkeyPatch, used: bool, expected: list[float]
) -> None:
    pauses = recorded_pauses(monkeypatch)
    for _ in expected:
        _, engine = await single.next()
        if used:
            single.used.add(engine)
        engine.on_death("died")
    await single.next()
    assert pauses == expected
    assert single.pool.deaths == len(expected)


async def test_spare_engine_has_the_next_index_and_ends_by_itself(single: Pool) -> None:
    await single.next()
    assert (single.pool.wanted, single.pool.spare) == (1, None)
    single.pool.want_spare()
    index, spare = await single.next()
    closed: list[Any] = []
    spare.close = partial(_close, closed, spare)
    assert index == 1
    assert single.pool.wanted == 2
    assert single.pool.spare is spare
    engine, reason = await single.ended.get()
    assert (engine, reason) == (spare, "no room is on the spare engine")
    assert (single.pool.wanted, single.pool.spare) == (1, None)
    assert closed == [spare]
    assert single.pool.deaths == 0


async def test_spare_engine_stays_while_a_room_is_on_it(single: Pool) -> None:
    await single.next()
    single.pool.want_spare()
    _, spare = await single.next()
    single.used.add(spare)
    await asyncio.sleep(0.2)
    assert single.ended.empty()
    single.used.clear()
    assert (await single.ended.get())[0] is spare


async def test_spare_engine_stays_while_it_is_wanted_again(single: Pool) -> None:
    await single.next()
    for _ in range(10):
        single.pool.want_spare()
        await asyncio.sleep(0.02)
    assert single.made.qsize() == 1
    assert single.ended.empty()


async def test_dead_spare_engine_is_started_again(single: Pool) -> None:
    await single.next()
    single.pool.want_spare()
    _, spare = await single.next()
    single.used.add(spare)
    single.pool.want_spare()
    spare.on_death("died")
    assert await single.ended.get() == (spare, "died")
    index, _ = await single.next()
    assert index == 1


async def test_spare_engine_runs_again_when_it_is_wanted_later(single: Pool) -> None:
    await single.next()
    for _ in range(2):
        single.pool.want_spare()
        index, _ = await single.next()
        assert index == 1
        await single.ended.get()


async def test_spare_engine_that_does_not_start_is_tried_until_it_is_not_wanted(
    single: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await single.next()
    single.failures += ["port taken"] * 100
    single.pool.want_spare()
    while single.pool.wanted == 2:
        await asyncio.sleep(0.01)
    assert 0 < 100 - len(single.failures) < 10
    assert single.made.empty()


async def test_node_with_several_engines_has_no_spare() -> None:
    pool = Pool(2)
    await pool.start()
    for _ in range(2):
        await pool.next()
    pool.pool.want_spare()
    await asyncio.sleep(0.05)
    assert pool.pool.wanted == 2
    assert pool.made.empty()
    await pool.end()


@pytest.mark.parametrize("when", ["never wanted", "running", "pausing"])
async def test_closed_pool_ends_the_spare_engine(when: str) -> None:
    pool = Pool(1)
    closed: list[HeldEngine] = []
    await pool.start()
    await pool.next()
    if when != "never wanted":
        pool.pool.want_spare()
        _, spare = await pool.next()
        spare.close = partial(_close, closed, spare)
        if when == "pausing":
            spare.on_death("died")
    await pool.end()
    assert len(closed) == (when == "running")
    assert pool.pool.engines == {}


async def _close(closed: list[Any], engine: Any) -> None:
    closed.append(engine)
