"""Batches are fair to sessions, bounded, and in order whatever the broker answers."""

import asyncio

import pytest

from gateway.bus.partition_publisher import BATCH_BYTES, BATCH_ITEMS, InputPublisher, PartitionPublisher
from gateway.counters import Counters
from gateway.protocol.session import Session
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.protocol import bus
from shared.protocol.protoo import Frame
from tests.support.gateways import FaultyBroker
from tests.support.waiting import until


def session(number: int, inputs: int = 0, size: int = 0) -> Session:
    made = Session("room", f"gw.{number}", number)
    made.connect("peer", 0)
    for _ in range(inputs):
        made.input(Frame(request=True, id=1, method="m" * size))
    return made


def names(items: list[bytes]) -> list[tuple[int, int]]:
    decoded = [bus.decode_item(item) for item in items]
    assert all(isinstance(item, bus.Connect | bus.Input) for item in decoded)
    return [(item.connection, getattr(item, "n", 0)) for item in decoded if not isinstance(item, bus.Tick)]


def test_sessions_take_turns() -> None:
    publisher = PartitionPublisher(0)
    for one in (session(1, inputs=3), session(2), session(3, inputs=1)):
        publisher.schedule(one)
    assert names(publisher.take_batch()) == [(1, 0), (2, 0), (3, 0), (1, 1), (3, 1), (1, 2), (1, 3)]
    assert publisher.take_batch() == []


def test_a_busy_session_leaves_room_for_others_in_the_next_batch() -> None:
    publisher = PartitionPublisher(0)
    busy = session(1, inputs=10 * BATCH_ITEMS)
    publisher.schedule(busy)
    assert len(publisher.take_batch()) == BATCH_ITEMS
    publisher.schedule(session(2))
    assert (2, 0) in names(publisher.take_batch())[:2]


def test_a_batch_is_bounded_in_bytes() -> None:
    publisher = PartitionPublisher(0)
    publisher.schedule(session(1, inputs=10, size=BATCH_BYTES // 4))
    assert [len(names(publisher.take_batch())) for _ in range(3)] == [5, 4, 2]


def test_a_scheduled_session_is_queued_once() -> None:
    publisher = PartitionPublisher(0)
    one = session(1)
    publisher.schedule(one)
    publisher.schedule(one)
    assert len(publisher.take_batch()) == 1
    publisher.schedule(one)
    assert publisher.take_batch() == []


class Partition:
    """A partition that records what arrives, in order."""

    def __init__(self) -> None:
        self.hub = MemoryHub(1)
        self.broker = FaultyBroker(self.hub)
        self.batches: list[list[tuple[int, int]]] = []
        self.arrived = asyncio.Condition()
        self._reader = MemoryBroker(self.hub)

    async def start(self) -> InputPublisher:
        await self.broker.connect()
        await self._reader.connect()
        await self._reader.subscribe_partition(0, self._receive, prefetch=0, on_lost=lambda: None)
        return InputPublisher(self.broker, "gw", 1, Counters())

    def _receive(self, delivery: object) -> None:
        origin, items = bus.split_batch(delivery.body)  # type: ignore[attr-defined]
        assert origin == "gw"
        self.batches.append(names(list(items)))

    async def until(self, number: tuple[int, int]) -> None:
        await until(lambda: any(number in batch for batch in self.batches))


@pytest.fixture
async def partition() -> Partition:
    return Partition()


async def test_inputs_that_arrive_during_a_publish_form_the_next_batch(partition: Partition) -> None:
    inputs = await partition.start()
    publisher = inputs.publisher_of("room")
    one = session(1)
    publisher.schedule(one)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(inputs.run())
        await partition.until((1, 0))
        for _ in range(5):
            one.input(Frame(request=True, id=1, method="m"))
            publisher.schedule(one)
        await partition.until((1, 5))
        running.cancel()
    assert partition.batches == [[(1, 0)], [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]]


async def test_unapplied_inputs_are_published_again_after_a_lost_connection(partition: Partition) -> None:
    inputs = await partition.start()
    publisher = inputs.publisher_of("room")
    one = session(1, inputs=2)
    publisher.sources.add(one)
    publisher.schedule(one)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(inputs.run())
        await partition.until((1, 2))
        partition.hub.drop(partition.broker, heal=False)
        one.input(Frame(request=True, id=1, method="m"))
        publisher.schedule(one)
        await asyncio.sleep(0)
        partition.hub.restore(partition.broker)
        await partition.until((1, 3))
        running.cancel()
    assert partition.batches[-1] == [(1, 0), (1, 1), (1, 2), (1, 3)]


async def test_a_rejected_batch_is_repeated_before_later_batches(partition: Partition) -> None:
    inputs = await partition.start()
    publisher = inputs.publisher_of("room")
    one = session(1)
    publisher.schedule(one)
    partition.broker.nack_next = 1
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(inputs.run())
        await until(lambda: not partition.broker.nack_next)
        one.input(Frame(request=True, id=1, method="m"))
        publisher.schedule(one)
        await partition.until((1, 1))
        running.cancel()
    assert partition.batches[0] == [(1, 0)]
