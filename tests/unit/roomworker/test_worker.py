"""What a room worker does by itself: how it takes the time."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

import roomworker.worker
from roomworker.worker import QUIET_TICKS, RoomWorker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.protocol import bus
from shared.settings import WorkerSettings

SECOND = 1000


class RoomActor:
    """A room in which something is due."""

    wants_time = True
    placement = None

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def gateways(self) -> set[str]:
        return set()

    def when_live(self, call: Callable[[Any], None]) -> None:
        self.calls.append(call)


class Partition:
    number = 0

    def __init__(self) -> None:
        self.actor = RoomActor()
        self.actors = {"salon": self.actor}


@pytest.fixture
async def worker() -> RoomWorker:
    return RoomWorker(WorkerSettings(partitions=1), MemoryBroker(MemoryHub(1)), FakeAsyncRedis())


async def test_nothing_ends_by_time_just_after_activation_or_a_gap_between_ticks(worker: RoomWorker) -> None:
    partition: Any = Partition()

    def due_after(now: int) -> bool:
        partition.actor.calls.clear()
        worker.ticked(partition, bus.Tick(1, now))
        return bool(partition.actor.calls)

    quiet = [False] * QUIET_TICKS
    assert [due_after(at * SECOND) for at in range(1, QUIET_TICKS + 3)] == [*quiet, True, True]
    assert [due_after(at * SECOND) for at in range(20, 20 + QUIET_TICKS + 1)] == [*quiet, True]


class SlowBroker(MemoryBroker):
    """Confirms each tick late, or never."""

    def __init__(self, hub: MemoryHub, confirm: float) -> None:
        super().__init__(hub)
        self.confirm = confirm
        self.ticks: list[str] = []

    @property
    def connected(self) -> bool:
        return True

    def publish(self, exchange: Any, key: str, body: bytes, **_: Any) -> asyncio.Future[None]:
        self.ticks.append(key)
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        loop.call_later(self.confirm, told.set_result, None)
        return told


async def leading(confirm: float, seconds: float) -> Counter[str]:
    """How many ticks each of 40 partitions was given in this time, with ten to a second."""
    broker = SlowBroker(MemoryHub(40), confirm)
    worker = RoomWorker(WorkerSettings(partitions=40), broker, FakeAsyncRedis())
    telling = asyncio.create_task(worker._publish_ticks())
    worker._leads_until = time.monotonic() + seconds
    worker._leads.set()
    await asyncio.sleep(seconds + 0.1)
    telling.cancel()
    assert not worker._leads.is_set()
    return Counter(broker.ticks)


async def test_ticks_do_not_wait_for_each_others_confirms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roomworker.worker, "BEAT_EVERY", 0.1)
    ticks = await leading(confirm=0.05, seconds=0.5)
    assert len(ticks) == 40
    assert max(ticks.values()) <= 6


async def test_a_partition_whose_tick_is_not_confirmed_gets_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roomworker.worker, "BEAT_EVERY", 0.1)
    assert set((await leading(confirm=60, seconds=0.5)).values()) == {1}
