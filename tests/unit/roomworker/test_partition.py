"""Deliveries: acknowledged when all in them is committed and published, and not by a channel that is lost."""

import asyncio

import pytest

from roomworker.partition import Partition
from shared.protocol import bus
from tests.unit.roomworker.desk import Desk


class Delivered:
    redelivered = False

    def __init__(self, *items: bytes, body: bytes | None = None) -> None:
        self.body = bus.batch("gateway", items) if body is None else body
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1


def connect(room: str = "room", n: int = 1) -> bytes:
    return bus.encode_item(bus.Connect(room, f"gateway.{n}", n, f"peer{n}", 1))


def query(room: str = "room", n: int = 1, number: int = 1) -> bytes:
    data = b'{"method":"queryRoom"}'
    return bus.encode_item(bus.Input(room, f"gateway.{n}", n, number, "mediasoup-request", number, data))


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def partition(desk: Desk) -> Partition:
    return Partition(3, desk)


def test_a_delivery_is_acknowledged_once_when_all_its_rooms_are_done(desk: Desk, partition: Partition) -> None:
    delivery = Delivered(connect("one"), connect("other"), query("one"))
    partition.receive(delivery)
    desk.load()
    desk.commit()
    assert delivery.acks == 0

    desk.published.pop()[1]()
    assert delivery.acks == 0
    desk.work()

    assert delivery.acks == 1
    assert set(partition.slots) == {"one", "other"}


def test_items_that_cannot_be_read_fail_alone(desk: Desk, partition: Partition) -> None:
    delivery = Delivered(b"\xff", connect(), b"", b"\x92\xa4what\x01", query())

    partition.receive(delivery)
    desk.work()

    assert delivery.acks == 1
    assert partition.bad_items == 3
    assert len(desk.shelf.stream["gateway.1"]) == 1


@pytest.mark.parametrize(
    "body", [b"", b"\x00", bus.batch("gateway", [])[:-1], b"\xff\xff\xff\xffx", b"\x00\x00\x00\x01\xff"]
)
def test_a_batch_that_cannot_be_read_is_taken_off_the_queue(partition: Partition, body: bytes) -> None:
    delivery = Delivered(body=body)

    partition.receive(delivery)

    assert delivery.acks == 1
    assert partition.bad_items == 1


def test_what_can_be_read_of_a_truncated_batch_counts(desk: Desk, partition: Partition) -> None:
    delivery = Delivered(body=bus.batch("gateway", [connect(), query()])[:-3])

    partition.receive(delivery)
    desk.work()

    assert delivery.acks == 1
    assert "session|peer1" in desk.shelf.rooms["room"].fields


def test_the_first_delivery_tells_that_the_partition_is_ours(desk: Desk, partition: Partition) -> None:
    assert not partition.active
    for n in (1, 2):
        partition.receive(Delivered(bus.encode_item(bus.Tick(n, 1000 * n))))

    assert (partition.active, desk.activations) == (True, 1)
    assert [tick.n for tick in desk.ticks] == [1, 2]


def test_replays_are_handed_on(desk: Desk, partition: Partition) -> None:
    item = bus.Replay("room", "gateway.1", 1, 7)
    delivery = Delivered(bus.encode_item(item))

    partition.receive(delivery)

    assert desk.replays == [item]
    assert delivery.acks == 1


def test_a_lost_channel_leaves_everything_to_the_next(desk: Desk, partition: Partition) -> None:
    delivery = Delivered(connect())
    partition.receive(delivery)
    desk.load()
    ((slot, commit),) = desk.take()

    partition.lost()
    slot.settled(commit, desk.shelf.commit(commit))
    assert (partition.active, partition.slots) == (False, {})
    again = Delivered(connect(), query())
    partition.receive(again)
    desk.work()

    assert again.acks == 1
    assert desk.activations == 2
    assert [sent.out for sent in desk.shelf.stream["gateway.1"]] == [1]


async def test_quiet_waits_for_all_that_was_delivered(desk: Desk, partition: Partition) -> None:
    await partition.quiet()
    partition.receive(Delivered(connect()))
    partition.receive(Delivered(query()))
    waiting = asyncio.ensure_future(partition.quiet())
    await asyncio.sleep(0)
    assert not waiting.done()

    desk.work()

    async with asyncio.timeout(10):
        await waiting


async def test_quiet_ends_with_the_channel(partition: Partition) -> None:
    partition.receive(Delivered(connect()))
    waiting = asyncio.ensure_future(partition.quiet())
    await asyncio.sleep(0)

    partition.lost()

    async with asyncio.timeout(10):
        await waiting


def test_rooms_of_the_index_are_announced_after_a_takeover(desk: Desk, partition: Partition) -> None:
    partition.receive(Delivered(connect()))
    desk.work()
    partition.lost()

    partition.announce("room")
    partition.announce("never there")
    desk.work()

    assert desk.reports == [bus.Applied(1, "gateway.1", 0, 0)]
    assert set(partition.slots) == {"room"}
