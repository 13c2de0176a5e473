"""What a room worker does by itself: how it takes the time."""

from collections.abc import Callable
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from roomworker.worker import QUIET_TICKS, RoomWorker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.protocol import bus
from shared.settings import WorkerSettings

SECOND = 1000


class Slot:
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
        self.slot = Slot()
        self.slots = {"salon": self.slot}


@pytest.fixture
async def worker() -> RoomWorker:
    return RoomWorker(WorkerSettings(partitions=1), MemoryBroker(MemoryHub(1)), FakeAsyncRedis())


async def test_nothing_ends_by_time_just_after_activation_or_a_gap_between_ticks(worker: RoomWorker) -> None:
    partition: Any = Partition()

    def due_after(now: int) -> bool:
        partition.slot.calls.clear()
        worker.ticked(partition, bus.Tick(1, now))
        return bool(partition.slot.calls)

    quiet = [False] * QUIET_TICKS
    assert [due_after(at * SECOND) for at in range(1, QUIET_TICKS + 3)] == [*quiet, True, True]
    assert [due_after(at * SECOND) for at in range(20, 20 + QUIET_TICKS + 1)] == [*quiet, True]
