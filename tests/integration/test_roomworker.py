"""Room workers, whole, between a broker, Redis and a media node: in memory and on real servers."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from devtools.probes import amqp_connection
from roomworker import worker as worker_module
from roomworker.partitions import clock, coordinator
from roomworker.runtime import committer, room_actor
from roomworker.storage.port import Commit
from roomworker.worker import RoomWorker
from shared.cluster import registry
from shared.protocol import bus
from shared.protocol.bus import partition_of
from shared.settings import WorkerSettings
from tests.support.brokers import PARTITIONS, WITHIN, AmqpHarness, MemoryHarness
from tests.support.reference_cycles import cycles_of
from tests.support.replays import replay_of
from tests.support.roomworker_harness import FakeSession, RoomWorkerHarness
from tests.support.waiting import until
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS

SYSTEMS = ["memory", pytest.param("servers", marks=pytest.mark.servers)]


@pytest.fixture(params=SYSTEMS)
async def harness(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RoomWorkerHarness]:
    monkeypatch.setattr(coordinator, "BEAT_EVERY", 0.1)
    monkeypatch.setattr(clock, "TICK_EVERY", 0.1)
    monkeypatch.setattr(worker_module, "CLEAN_UP_EVERY", 0.1)
    monkeypatch.setattr(registry, "DEAD_AFTER", 1.0)
    if request.param == "memory":
        made = RoomWorkerHarness(MemoryHarness())
    else:
        amqp, redis = request.getfixturevalue("amqp_url"), request.getfixturevalue("redis_url")
        made = RoomWorkerHarness(AmqpHarness(amqp, "classic"), redis)
    yield made
    await made.end()


async def has_node(worker: RoomWorker) -> None:
    """A worker sees a node within its next look at the registry."""
    await until(lambda: worker.nodes.choose() is not None)


async def join(session: FakeSession) -> list[Any]:
    peers: list[Any] = (await session.ask("join", peerName=session.peer, rtpCapabilities=CAPABILITIES))["peers"]
    return peers


def serving(harness: RoomWorkerHarness, room: str) -> RoomWorker | None:
    number = partition_of(room, PARTITIONS)
    return next((worker for worker in harness.workers if worker.partitions[number].active), None)


async def test_call_works_and_leaves_only_its_closed_sessions(harness: RoomWorkerHarness) -> None:
    await harness.node()
    await has_node(await harness.worker())
    one, other = await harness.gateway(), await harness.gateway()
    alice, bob = one.connect("salon", "alice"), other.connect("salon", "bob")
    assert await join(alice) == []
    assert [peer["name"] for peer in await join(bob)] == ["alice"]

    assert (await alice.ask("createTransport", id=1, direction="send"))["iceParameters"]["iceLite"]
    await bob.ask("createTransport", id=2, direction="recv")
    await alice.ask("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
    await other.until(lambda: bob.notifications("newConsumer"))
    (told,) = bob.notifications("newConsumer")
    enabled = await bob.ask("enableConsumer", id=told["id"], transportId=2)
    assert enabled == {"paused": False, "preferredProfile": "default", "effectiveProfile": "default"}
    alice.notify("pauseProducer", id=10)
    await other.until(lambda: bob.notifications("consumerPaused"))

    alice.disconnect()
    await other.until(lambda: bob.notifications("peerClosed"))
    await alice.done()
    bob.disconnect()
    await bob.done()

    async def only_closed_sessions() -> bool:
        (stored,) = await harness.store.load(["salon"])
        rooms = await harness.cluster.rooms(range(PARTITIONS))
        return not stored.version and bool(stored.closed_sessions) and not any(rooms)

    await until(only_closed_sessions)
    assert (alice.closed, bob.closed) == (None, None)


async def test_many_requests_through_lost_links_are_answered_once_each_in_order(harness: RoomWorkerHarness) -> None:
    worker = await harness.worker()
    gateway = await harness.gateway()
    sessions = [gateway.connect(f"room{n % 3}", f"peer{n}") for n in range(9)]
    for session in sessions:
        await join(session)

    for _ in range(3):
        for session in sessions:
            for _ in range(10):
                session.send("queryRoom")
        await harness.brokers.cut(harness.links[worker])
        for session in sessions:
            session.send("queryRoom")
        await asyncio.sleep(0)  # memory knows no time between: the loss is noticed before the return
        await harness.brokers.heal(harness.links[worker])
        for session in sessions:
            await session.done()

    for session in sessions:
        assert list(session.answers) == list(range(1, 35))
        assert all(answer["ok"] for answer in session.answers.values())


async def test_takeover_by_a_second_worker_loses_and_repeats_nothing(harness: RoomWorkerHarness) -> None:
    await harness.node()
    one = await harness.worker("one")
    other = await harness.worker("other")
    await has_node(one)
    await has_node(other)
    gateway = await harness.gateway()
    alice, bob = gateway.connect("salon", "alice"), gateway.connect("salon", "bob")
    await join(alice)
    await join(bob)
    killed = serving(harness, "salon")
    assert killed is not None

    ids = [alice.send("createTransport", id=n, direction="send") for n in range(10)]
    ids += [alice.send("createProducer", id=n, kind="audio", transportId=n, rtpParameters=OPUS) for n in range(10)]
    await alice.answer(ids[3])
    await harness.kill(killed)
    for id_ in ids:
        assert (await alice.answer(id_))["ok"]
    await gateway.until(lambda: len(bob.notifications("newConsumer")) >= 10)
    await bob.done()

    assert list(alice.answers) == sorted(alice.answers)
    assert (
        len({told["id"] for told in bob.notifications("newConsumer")}) == len(bob.notifications("newConsumer")) == 10
    )
    await until(lambda: serving(harness, "salon") in harness.workers)


async def test_outputs_that_went_to_a_lost_queue_are_fetched_again(harness: RoomWorkerHarness) -> None:
    await harness.worker()
    gateway, elsewhere = await harness.gateway(), await harness.gateway()
    alice = gateway.connect("salon", "alice")
    await join(alice)

    await harness.brokers.cut(gateway.broker)
    others = [elsewhere.connect("salon", f"peer{n}") for n in range(5)]
    for session in others:
        await join(session)
    await harness.brokers.heal(gateway.broker)

    await gateway.until(lambda: len(alice.notifications("newPeer")) == 5)
    assert [told["name"] for told in alice.notifications("newPeer")] == [session.peer for session in others]


class SharedDelivery:
    """A delivery given to several workers, as a broker never should."""

    redelivered = False

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.acked = asyncio.Event()

    def ack(self) -> None:
        self.acked.set()


async def test_two_workers_on_one_room_apply_each_message_once(harness: RoomWorkerHarness) -> None:
    """Commits are exclusive even if the broker delivers one queue to two workers."""
    pair = [await harness.worker("one"), await harness.worker("other")]
    gateway = await harness.gateway()
    alice = FakeSession(gateway, "salon", "alice", 1)
    gateway.sessions[alice.id] = alice
    number = partition_of("salon", PARTITIONS)
    items: list[Any] = list(alice.kept)
    for n in range(1, 31):
        data = b'{"method":"queryRoom"}'
        items.append(bus.Input("salon", alice.id, 1, n, "mediasoup-request", n, data))

    handed = []
    for item in items:
        for worker in pair:
            handed.append(SharedDelivery(bus.encode_batch(gateway.id, [bus.encode_item(item)], time.time())))
            worker.partitions[number].receive(handed[-1])
        await asyncio.sleep(0)
    async with asyncio.timeout(WITHIN):
        for delivery in handed:
            await delivery.acked.wait()

    await gateway.until(lambda: len(alice.written) == 30)
    assert list(alice.answers) == list(range(1, 31))
    (kept,) = await replay_of(harness.store, [("salon", alice.id, 0)])
    assert [out for _, out in kept] == list(range(1, 31))


def damage(room: str, n: int, meta: bytes | None) -> Commit:
    """Returns a commit of a room that this version cannot read."""
    number, expected = partition_of(room, PARTITIONS), f"x:{n - 1}" if n > 1 else ""
    return Commit(room, number, expected, f"x:{n}", f"token{n}", {"meta": meta}, None, {}, first=n == 1)


def neighbour_of(room: str) -> str:
    """Returns another room of the same partition."""
    number = partition_of(room, PARTITIONS)
    return next(name for name in (f"room{n}" for n in range(1000)) if partition_of(name, PARTITIONS) == number)


async def test_an_unreadable_room_does_not_stop_its_partition(
    harness: RoomWorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given more messages for the room than a partition may have unacknowledged."""
    monkeypatch.setattr(room_actor, "RETRY_UNREADABLE_AFTER", 0.5)
    neighbour = neighbour_of("broken")
    await harness.store.commit([damage("broken", 1, b"{broken")])
    worker = await harness.worker()
    gateway = await harness.gateway()
    waiting = [gateway.connect("broken", f"peer{n}") for n in range(WorkerSettings().prefetch + 20)]

    alice = gateway.connect(neighbour, "alice")
    assert await join(alice) == []

    async def told() -> bool:
        info = (await harness.cluster.members("workers"))[worker.id]
        return info["unreadable"] == 1 and "broken" in info["unreadable_rooms"]

    await until(told)
    await harness.store.commit([damage("broken", 2, None)])
    for session in waiting[:3]:
        await join(session)


async def test_room_that_is_too_large_is_set_aside_and_its_neighbours_are_served(
    harness: RoomWorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after its worker has died, by each worker that takes the partition over."""
    monkeypatch.setattr(committer, "BESIDES_STATE", 0)
    monkeypatch.setattr(room_actor, "RETRY_UNREADABLE_AFTER", 0.5)
    neighbour = neighbour_of("broken")
    large = damage("broken", 1, b'{"name":"broken","x":"' + b"x" * 200_000 + b'"}')
    await harness.store.commit([large])
    gateway = await harness.gateway()
    waiting = gateway.connect("broken", "bob")
    for name in ("one", "two"):
        worker = await harness.worker(name, room_bytes=100_000)
        alice = gateway.connect(neighbour, f"alice of {name}")
        await join(alice)

        async def told(worker: RoomWorker = worker) -> bool:
            rooms = (await harness.cluster.members("workers"))[worker.id]["unreadable_rooms"]
            return "too large" in rooms.get("broken", "")

        await until(told)
        await harness.kill(worker)
        gateway.repeat()

    await harness.store.commit([damage("broken", 2, None)])
    await harness.worker("three", room_bytes=100_000)
    gateway.repeat()
    await join(waiting)


async def test_a_takeover_of_500_rooms_needs_few_connections_to_redis(harness: RoomWorkerHarness) -> None:
    await harness.worker("one")
    gateway = await harness.gateway()
    sessions = [gateway.connect(f"room{n}", "alice") for n in range(500)]
    for session in sessions:
        await session.done()
    await harness.kill(harness.workers[0])

    other = await harness.worker("other")
    gateway.repeat()
    await until(lambda: other.counters.replays_total >= 500)

    assert other.store.failures == 0


async def test_sessions_of_a_dead_gateway_are_closed(harness: RoomWorkerHarness) -> None:
    await harness.worker()
    lost, living = await harness.gateway(), await harness.gateway()
    alice, bob = lost.connect("salon", "alice"), living.connect("salon", "bob")
    await join(alice)
    await join(bob)

    await lost.die()

    await living.until(lambda: bob.notifications("peerClosed"))
    assert bob.notifications("peerClosed")[0]["name"] == "alice"
    assert bob.closed is None


async def test_room_closes_its_transports_when_its_media_node_dies(harness: RoomWorkerHarness) -> None:
    node = await harness.node()
    worker = await harness.worker()
    await has_node(worker)
    gateway = await harness.gateway()
    alice = gateway.connect("salon", "alice")
    await join(alice)
    await alice.ask("createTransport", id=1, direction="send")

    harness.nodes.remove(node)
    await asyncio.wait_for(node.close(), WITHIN)
    await gateway.until(lambda: alice.notifications("transportClosed"))
    assert alice.notifications("transportClosed")[0]["id"] == 1

    await harness.node()
    while not (again := await alice.answer(alice.send("createTransport", id=1, direction="send"))).get("ok"):
        assert again["errorCode"] == 503, "until the worker has seen that one is gone and the other there"


async def test_leaving_worker_hands_over_and_does_not_register_again(harness: RoomWorkerHarness) -> None:
    """Given a worker that is slow to leave, because a delivery waits for a media node that says nothing."""
    one = await harness.worker("a")
    gateway = await harness.gateway()
    alice = gateway.connect("salon", "alice")
    await join(alice)
    await harness.cluster.announce("nodes", "silent", {"beat": 1, "load": 0})
    silence = await harness.brokers.broker()
    await silence.subscribe_exclusive(
        "media", "silent", lambda _: None, on_lost=lambda: None, on_restored=lambda: None
    )
    await has_node(one)
    slow = alice.send("createTransport", id=1, direction="send")
    await until(lambda: one.media.waiting)

    other = await harness.worker("b")
    harness.workers.remove(one)
    await asyncio.wait_for(one.close(), WITHIN)
    await harness.cluster.withdraw("nodes", "silent")

    assert list(await harness.cluster.members("workers")) == [other.id]
    bob = gateway.connect("salon", "bob")
    assert [peer["name"] for peer in await join(bob)] == ["alice"]
    assert not one.coordinator.subscribed
    await gateway.until(lambda: slow in alice.answers)  # by the other: there is no node left
    assert alice.answers[slow]["errorCode"] == 503


async def test_partitions_are_shared_fairly_and_rebalanced_without_loss(harness: RoomWorkerHarness) -> None:
    await harness.worker("one")
    gateway = await harness.gateway()
    sessions = [gateway.connect(f"room{n}", "alice") for n in range(12)]
    for session in sessions:
        await join(session)

    await harness.worker("other")
    ids = [session.send("queryRoom") for session in sessions]

    def fair() -> bool:
        active = [sum(p.active for p in worker.partitions.values()) for worker in harness.workers]
        return active == [PARTITIONS // 2] * 2

    await until(fair)
    ids = [session.send("queryRoom") for session in sessions]
    for session, id_ in zip(sessions, ids, strict=True):
        assert (await session.answer(id_))["ok"]
        assert list(session.answers) == list(range(1, id_ + 1))


async def test_queues_are_empty_after_all_sessions_were_closed(
    harness: RoomWorkerHarness, request: pytest.FixtureRequest
) -> None:
    if not isinstance(harness.brokers, AmqpHarness):
        pytest.skip("memory has nothing to look into")
    worker = await harness.worker()
    gateway = await harness.gateway()
    sessions = [gateway.connect(f"room{n}", "alice") for n in range(8)]
    for session in sessions:
        await join(session)
        session.disconnect()
    for session in sessions:
        await session.done()
    harness.workers.remove(worker)
    await worker.close()

    def counts() -> list[int]:
        connection = amqp_connection(request.getfixturevalue("amqp_url"))
        try:
            channel = connection.channel()
            declared = [channel.queue_declare(f"rooms.{p}", passive=True).method for p in range(PARTITIONS)]
            return [queue.message_count for queue in declared]
        finally:
            connection.close()

    # a tick that the closing worker did not acknowledge expires; a client's message would stay
    await until(lambda: not any(counts()), "the queues of all partitions are empty", in_thread=True)


async def test_deleted_rooms_leave_no_reference_cycles(harness: RoomWorkerHarness) -> None:
    """Full collections are rare (`plenary/processes/event_loop.py`): a cycle of an ended room stays for minutes."""
    if not isinstance(harness.brokers, MemoryHarness):
        pytest.skip("links to servers make cycles of their own")
    await harness.node()
    worker = await harness.worker()
    await has_node(worker)
    gateway = await harness.gateway()

    async def one_room(name: str) -> None:
        alice, bob = gateway.connect(name, "alice"), gateway.connect(name, "bob")
        await join(alice)
        await join(bob)
        await alice.ask("createTransport", id=1, direction="send")
        await bob.ask("createTransport", id=2, direction="recv")
        await alice.ask("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
        await gateway.until(lambda: bob.notifications("newConsumer"))
        await bob.ask("enableConsumer", id=bob.notifications("newConsumer")[0]["id"], transportId=2)
        for session in (alice, bob):
            session.disconnect()
            await session.done()

    await one_room("first")
    await until(lambda: not any(partition.actors for partition in worker.partitions.values()))
    with cycles_of("roomworker", "shared") as left:
        for n in range(20):
            await one_room(f"room{n}")
        await until(lambda: not any(partition.actors for partition in worker.partitions.values()))
    assert left == set()
