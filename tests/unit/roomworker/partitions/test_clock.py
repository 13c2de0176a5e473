"""Ticks: when they are published, and what they cause."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from roomworker.partitions import clock
from roomworker.partitions.clock import QUIET_TICKS, TickPublisher, TickReceiver
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.registry import Observer
from shared.protocol import bus

SECOND = 1000


class Actor:
    """A room in which something is due."""

    needs_ticks = True
    placement = None

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.retries = 0

    def gateways(self) -> set[str]:
        return set()

    def when_live(self, call: Callable[[Any], None]) -> None:
        self.calls.append(call)

    def retry(self) -> None:
        self.retries += 1


class Partition:
    number = 0

    def __init__(self) -> None:
        self.actor = Actor()
        self.actors = {"salon": self.actor}


@pytest.fixture
def receiver() -> TickReceiver:
    cluster = MemoryCluster()
    return TickReceiver(15_000, Observer(cluster, "gateways"), Observer(cluster, "nodes"))


def test_sessions_do_not_expire_just_after_activation_or_a_gap_in_ticks(receiver: TickReceiver) -> None:
    partition: Any = Partition()

    def due_after(now: int) -> bool:
        partition.actor.calls.clear()
        receiver.ticked(partition, bus.Tick(1, now))
        return bool(partition.actor.calls)

    quiet = [False] * QUIET_TICKS
    assert [due_after(at * SECOND) for at in range(1, QUIET_TICKS + 3)] == [*quiet, True, True]
    assert [due_after(at * SECOND) for at in range(20, 20 + QUIET_TICKS + 1)] == [*quiet, True]
    receiver.activated(partition)
    assert [due_after(at * SECOND) for at in range(24, 24 + QUIET_TICKS + 1)] == [*quiet, True]


def test_unreadable_rooms_are_tried_again_from_the_first_tick_on(receiver: TickReceiver) -> None:
    partition: Any = Partition()
    receiver.ticked(partition, bus.Tick(1, SECOND))
    assert partition.actor.retries == 1


@pytest.fixture
def ten_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "TICK_EVERY", 0.1)


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
    publisher = TickPublisher("worker", broker, 40)
    publishing = asyncio.create_task(publisher.run())
    publisher.lead(seconds)
    await asyncio.sleep(seconds + 0.1)
    publishing.cancel()
    assert not publisher.leads
    return Counter(broker.ticks)


@pytest.mark.usefixtures("ten_a_second")
async def test_ticks_do_not_wait_for_each_others_confirms() -> None:
    ticks = await leading(confirm=0.05, seconds=0.5)
    assert len(ticks) == 40
    assert max(ticks.values()) <= 6


@pytest.mark.usefixtures("ten_a_second")
async def test_a_partition_whose_tick_is_not_confirmed_gets_no_other() -> None:
    assert set((await leading(confirm=60, seconds=0.5)).values()) == {1}


@pytest.mark.usefixtures("ten_a_second")
async def test_a_worker_that_resigned_publishes_no_ticks() -> None:
    broker = SlowBroker(MemoryHub(4), 0.0)
    publisher = TickPublisher("worker", broker, 4)
    publishing = asyncio.create_task(publisher.run())
    publisher.lead(60)
    publisher.resign()
    await asyncio.sleep(0.1)
    publishing.cancel()
    assert broker.ticks == []
