"""Deliveries: acknowledged when all in them is committed and published, and not by a channel that is lost."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from roomworker.partitions import poison
from roomworker.partitions.partition import Partition
from roomworker.partitions.poison import PoisonDetector, batch_name
from shared.protocol import bus
from tests.unit.roomworker.fake_worker import FakeWorker


class Delivered:
    redelivered = False

    def __init__(self, *items: bytes, body: bytes | None = None) -> None:
        self.body = bus.encode_batch("gateway", items, time.time()) if body is None else body
        self.acks = 0

    def ack(self) -> None:
        self.acks += 1


def connect(room: str = "room", n: int = 1) -> bytes:
    return bus.encode_item(bus.Connect(room, f"gateway.{n}", n, f"peer{n}", 1))


def query(room: str = "room", n: int = 1, number: int = 1) -> bytes:
    data = b'{"method":"queryRoom"}'
    return bus.encode_item(bus.Input(room, f"gateway.{n}", n, number, "mediasoup-request", number, data))


async def receive(partition: Partition, *deliveries: Delivered) -> None:
    """Gives the partition deliveries, and the time to look at what others died with."""
    for delivery in deliveries:
        partition.receive(delivery)
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
async def partition(worker: FakeWorker) -> Partition:
    return worker.partition()


async def test_a_delivery_is_acknowledged_once_when_all_its_rooms_are_done(
    worker: FakeWorker, partition: Partition
) -> None:
    delivery = Delivered(connect("one"), connect("other"), query("one"))
    await receive(partition, delivery)
    worker.load()
    worker.commit()
    assert delivery.acks == 0

    worker.published.pop()[1]()
    assert delivery.acks == 0
    worker.work()

    assert delivery.acks == 1
    assert set(partition.actors) == {"one", "other"}


async def test_unreadable_items_of_a_batch_fail_alone(worker: FakeWorker, partition: Partition) -> None:
    delivery = Delivered(b"\xff", connect(), b"", b"\x92\xa4what\x01", query())

    await receive(partition, delivery)
    worker.work()

    assert delivery.acks == 1
    assert partition.bad_items == 3
    assert len(worker.stream["gateway.1"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(7),
        bytes(8),
        bytes(9),
        bus.encode_batch("gateway", [], time.time())[:-1],
        bytes(8) + b"\xff\xff\xff\xffx",
        bytes(8) + b"\x00\x00\x00\x01\xff",
    ],
    ids=["empty", "7-bytes", "8-bytes", "9-bytes", "truncated", "too-long-origin", "bad-utf-8"],
)
async def test_unreadable_batch_is_acknowledged(partition: Partition, body: bytes) -> None:
    delivery = Delivered(body=body)

    await receive(partition, delivery)

    assert delivery.acks == 1
    assert partition.bad_items == 1


async def test_tick_that_fails_ends_nothing_and_is_not_delivered_again(
    worker: FakeWorker, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(partition: Partition, tick: bus.Tick) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(partition, "_callbacks", replace(partition._callbacks, ticked=fail))
    delivery = Delivered(connect(), bus.encode_item(bus.Tick(1, 1)), query())
    delivery.redelivered = True

    await receive(partition, delivery)
    worker.work()

    assert delivery.acks == 1
    assert partition.bad_items == 1
    assert len(worker.stream["gateway.1"]) == 1


async def test_readable_items_of_a_truncated_batch_are_handled(worker: FakeWorker, partition: Partition) -> None:
    delivery = Delivered(body=bus.encode_batch("gateway", [connect(), query()], time.time())[:-3])

    await receive(partition, delivery)
    worker.work()

    assert delivery.acks == 1
    assert "session|peer1" in worker.fields()


async def test_first_delivery_activates_the_partition(worker: FakeWorker, partition: Partition) -> None:
    assert not partition.active
    for n in (1, 2):
        await receive(partition, Delivered(bus.encode_item(bus.Tick(n, 1000 * n))))

    assert (partition.active, worker.activations) == (True, 1)
    assert [tick.n for tick in worker.ticks] == [1, 2]


async def test_replay_request_is_handed_to_the_replayer(worker: FakeWorker, partition: Partition) -> None:
    item = bus.Replay("room", "gateway.1", 1, 7)
    delivery = Delivered(bus.encode_item(item))

    await receive(partition, delivery)

    assert worker.replays == [item]
    assert delivery.acks == 1


async def test_lost_channel_leaves_unacknowledged_work_to_the_successor(
    worker: FakeWorker, partition: Partition
) -> None:
    delivery = Delivered(connect())
    await receive(partition, delivery)
    worker.load()
    ((actor, commit),) = worker.take()

    partition.channel_lost()
    actor.commit_answered(commit, worker.apply(commit))
    assert (partition.active, partition.actors) == (False, {})
    again = Delivered(connect(), query())
    await receive(partition, again)
    worker.work()

    assert again.acks == 1
    assert worker.activations == 2
    assert [sent.out for sent in worker.stream["gateway.1"]] == [1]


async def test_wait_idle_waits_for_every_delivery(worker: FakeWorker, partition: Partition) -> None:
    await partition.wait_idle()
    await receive(partition, Delivered(connect()))
    await receive(partition, Delivered(query()))
    waiting = asyncio.ensure_future(partition.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()

    worker.work()

    async with asyncio.timeout(10):
        await waiting


async def test_wait_idle_ends_when_the_channel_is_lost(partition: Partition) -> None:
    await receive(partition, Delivered(connect()))
    waiting = asyncio.ensure_future(partition.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()

    partition.channel_lost()

    async with asyncio.timeout(10):
        await waiting


async def test_rooms_of_the_index_are_announced_after_a_takeover(worker: FakeWorker, partition: Partition) -> None:
    await receive(partition, Delivered(connect()))
    worker.work()
    partition.channel_lost()

    partition.actor("room").announce()
    partition.actor("never there").announce()
    worker.work()

    assert worker.reports == [bus.Applied(1, "gateway.1", 0, 0)]
    assert set(partition.actors) == {"room"}


class Redelivered(Delivered):
    redelivered = True


async def test_redelivered_batch_is_run_whole_once(worker: FakeWorker, partition: Partition) -> None:
    delivery = Redelivered(connect("one"), connect("two"))
    await receive(partition, delivery)
    assert set(partition.actors) == {"one", "two"}
    assert len(await worker.store.attempts(3)) == 1

    worker.work()
    await asyncio.gather(*worker.spawned)
    assert delivery.acks == 1
    assert not await worker.store.attempts(3)


async def test_redelivered_tick_is_not_marked(
    worker: FakeWorker, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick expires within seconds, so nothing would clear its mark."""
    marked: list[str] = []
    monkeypatch.setattr(worker.store, "record_attempt", lambda _, name: marked.append(name))
    delivery = Redelivered(bus.encode_item(bus.Tick(1, 1000)))
    await receive(partition, delivery)
    assert delivery.acks == 1
    assert not marked


async def test_first_new_delivery_clears_the_marks_of_batches_of_others(
    worker: FakeWorker, partition: Partition
) -> None:
    for name in ("batch/lost with RabbitMQ", "gateway.9/1"):
        await worker.store.record_attempt(3, name)
    again, new = Redelivered(connect("one")), Delivered(connect("two"))
    await receive(partition, again)
    assert len(await worker.store.attempts(3)) == 3

    await receive(partition, new)
    assert len(await worker.store.attempts(3)) == 2, "the batch that is being run again keeps its mark"
    worker.work()
    await asyncio.gather(*worker.spawned)
    assert (again.acks, new.acks) == (1, 1)
    assert await worker.store.attempts(3) == {"gateway.9/1": 1}, "a message may come in a new batch"


async def test_delivery_after_a_redelivered_batch_waits_for_it(worker: FakeWorker, partition: Partition) -> None:
    await receive(partition, Redelivered(connect()), Delivered(query()))
    worker.work()
    assert worker.stream["gateway.1"], "the request was answered, so its session was known"


async def test_task_of_a_lost_channel_does_not_take_the_place_of_its_successor(
    partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_answers = asyncio.Event()

    async def admit_batch(_: PoisonDetector, __: bytes) -> bool:
        with suppress(asyncio.CancelledError):  # redis-py can lose a cancellation
            await redis_answers.wait()
        return True

    monkeypatch.setattr(PoisonDetector, "admit_batch", admit_batch)
    await receive(partition, Redelivered(connect("before")))
    partition.channel_lost()
    await receive(partition, Redelivered(connect("after")))
    await receive(partition, Delivered(connect("behind")))
    assert {"after", "behind"}.isdisjoint(partition.actors)

    redis_answers.set()
    await receive(partition)
    assert list(partition.actors)[-2:] == ["after", "behind"]


async def test_message_that_kills_workers_is_answered_500_and_set_aside_alone(worker: FakeWorker) -> None:
    """Each new partition object is a worker that died with the second message of the batch and was replaced."""
    store, stream = worker.store, worker.stream
    body = bus.encode_batch("gateway", [connect(), query(number=1), query(number=2)], time.time())

    def dies_with(item: object) -> bool:
        return isinstance(item, bus.Input) and item.n == 1

    for _ in range(4):
        worker = FakeWorker(store)
        worker.stream = stream
        partition = worker.partition()
        delivery = Redelivered(body=body)
        await receive(partition, delivery)
        for _ in range(10):  # one message at a time, until the worker would die
            worker.load()
            running = [job.item for actor in partition.actors.values() for job in actor._jobs]
            if any(dies_with(item) for item in running) and not store.dead_letter_items:
                break
            worker.work()
            await receive(partition)
        if delivery.acks:
            break

    assert delivery.acks == 1
    ((_, item, reason),) = store.dead_letter_items
    assert dies_with(item)
    assert "died" in reason
    frames = [sent.body for sent in stream["gateway.1"]]
    assert b'"errorCode":500' in frames[0]
    assert b'"ok":true' in frames[1]


@pytest.mark.parametrize("by_itself", [False, True])
async def test_lost_channel_of_a_living_worker_does_not_count_as_its_death(
    worker: FakeWorker, partition: Partition, by_itself: bool
) -> None:
    """As when RabbitMQ closes the connection again and again: no message is to blame."""
    body = bus.encode_batch("gateway", [connect(), query(number=1)], time.time())
    if by_itself:
        await worker.store.record_attempt(3, batch_name(body))
    for _ in range(10):
        await receive(partition, Redelivered(body=body))
        partition.channel_lost()
        await asyncio.gather(*worker.spawned, return_exceptions=True)
    assert set((await worker.store.attempts(3)).values()) == ({0, 1} if by_itself else {0})

    again = Redelivered(body=body)
    await receive(partition, again)
    for _ in range(4):
        worker.work()
        await receive(partition)
    await asyncio.gather(*worker.spawned, return_exceptions=True)
    assert again.acks == 1
    assert not worker.store.dead_letter_items
    assert not await worker.store.attempts(3)


async def test_message_with_which_a_channel_is_lost_for_ever_is_set_aside(
    worker: FakeWorker, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poison, "INTERRUPTIONS_LIMIT", 3)
    body = bus.encode_batch("gateway", [connect(), query(number=1)], time.time())
    for _ in range(30):
        delivery = Redelivered(body=body)
        await receive(partition, delivery)
        if delivery.acks or worker.store.dead_letter_items:
            break
        partition.channel_lost()
        await asyncio.gather(*worker.spawned, return_exceptions=True)
    assert worker.store.dead_letter_items


async def test_batch_whose_delivery_raises_counts_as_the_death_of_its_worker(
    worker: FakeWorker, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    await receive(partition, Redelivered(connect()))

    def defect(_: Delivered) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(partition, "_receive", defect)
    with pytest.raises(KeyError):
        partition.receive(Redelivered(connect()))
    partition.channel_lost()
    await asyncio.gather(*worker.spawned, return_exceptions=True)
    assert set((await worker.store.attempts(3)).values()) == {1}


async def test_marked_message_in_a_new_batch_is_run_by_itself(worker: FakeWorker, partition: Partition) -> None:
    for _ in range(2):
        await worker.store.record_attempt(3, "gateway.1/1")
    delivery = Delivered(connect(), query(number=1))
    await receive(partition, delivery)
    for _ in range(3):
        worker.work()
        await receive(partition)
    assert delivery.acks == 1
    assert b'"errorCode":500' in worker.stream["gateway.1"][0].body
    assert await worker.store.count_dead_letters() == 1


async def test_room_time_is_that_of_the_last_tick_until_the_partition_is_lost(
    worker: FakeWorker, partition: Partition
) -> None:
    assert worker.services.room_time[partition.number] == 0
    await receive(partition, Delivered(bus.encode_item(bus.Tick(1, 5000))))
    await receive(partition, Delivered(bus.encode_item(bus.Tick(2, 6000))))
    assert worker.services.room_time[partition.number] == 6000
    partition.channel_lost()
    assert worker.services.room_time[partition.number] == 0
