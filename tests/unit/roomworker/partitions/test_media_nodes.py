"""Media nodes: what they say they have, what a room makes of it, and who is dead before its silence proves it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from roomworker.core.media_steps import Placed
from roomworker.partitions import media_nodes as nodes_module
from roomworker.partitions.media_nodes import MediaNodes
from roomworker.storage.memory import MemoryStore
from shared.broker import Broker, Unroutable
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.registry import Membership
from shared.protocol import bus, media
from tests.unit.roomworker.fake_worker import FakeWorker
from tests.unit.roomworker.payloads import DTLS

NODE = "node"


class Exchange:
    """A broker that has the queues named in `queues`."""

    connected = True

    def __init__(self) -> None:
        self.queues: set[str] = {NODE}
        self.published = 0

    def publish(self, exchange: str, key: str, body: bytes, *, mandatory: bool) -> "asyncio.Future[None]":
        assert (exchange, mandatory) == ("media", True)
        assert media.decode_commands(body).commands == []
        self.published += 1
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if key in self.queues:
            answer.set_result(None)
        else:
            answer.set_exception(Unroutable(key))
        return answer


class Scene:
    """A worker by hand with one partition and one room `room`, which is on `NODE`."""

    def __init__(self, store: MemoryStore) -> None:
        self.worker = FakeWorker(store)
        self.partition = self.worker.partition(0)
        self.broker = Exchange()
        self.cluster = MemoryCluster()
        self.orders: list[tuple[str, media.AnyOrder]] = []
        self.nodes = MediaNodes(
            self.cluster,
            cast("Broker", self.broker),
            "worker",
            {0: self.partition},
            lambda *order: self.orders.append(order),
        )
        self._n = 0

    async def say(self, method: str, **data: Any) -> None:
        if self._n == 0:
            await self._deliver(bus.Connect("room", "s", 1, "alice", 1))
        self._n += 1
        body = media.encode({"method": method, **data})
        await self._deliver(bus.Input("room", "s", 1, self._n, "mediasoup-request", self._n, body))

    async def _deliver(self, item: bus.AnyItem) -> None:
        self.partition.receive(Delivered(bus.encode_batch("gateway", [bus.encode_item(item)], time.time())))
        for _ in range(5):
            await asyncio.sleep(0)

    async def placed(self) -> bus.HeldRouter:
        """A call with a transport; the router that its node must have."""
        await self.say(
            "join", target="room", peerName="alice", rtpCapabilities={"codecs": [], "headerExtensions": []}
        )
        await self.say("createTransport", target="peer", id=1, direction="send", options={}, dtlsParameters=DTLS)
        self.worker.work()
        (actor,) = self.partition.actors.values()
        executor = actor._executor
        assert executor is not None
        ref = executor.room.router
        return bus.HeldRouter("room", ref.incarnation, ref.epoch, ref.id)

    def report(self, *held: bus.HeldRouter, now: float = 0.0) -> list[tuple[str, media.AnyOrder]]:
        """The orders that it causes, once committed."""
        before = len(self.worker.published)
        self.nodes.handle_report(self.partition, bus.NodeReport(NODE, list(held)), now)
        self.worker.load()
        self.worker.commit()
        return [order for changes, _ in self.worker.published[before:] for order in changes.orders]


class Delivered:
    redelivered = False

    def __init__(self, body: bytes) -> None:
        self.body = body

    def ack(self) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def scene(store: MemoryStore) -> Scene:
    return Scene(store)


def closes(held: bus.HeldRouter) -> Any:
    return lambda order: isinstance(order, media.Close) and (order.object, order.kind) == (held.router, "router")


# --- routers --------------------------------------------------------------------------------------------------


async def test_reported_router_of_the_room_is_kept(scene: Scene, store: MemoryStore) -> None:
    held = await scene.placed()
    before = store.read("room")

    assert scene.report(held) == []
    assert store.read("room") == before


async def test_a_successor_that_has_not_loaded_the_room_knows_its_router(scene: Scene, store: MemoryStore) -> None:
    held = await scene.placed()
    successor = Scene(store)

    assert successor.report(held) == []
    assert successor.partition.actor("room").placement is not None


async def test_router_of_a_deleted_room_is_closed_and_leaves_nothing(scene: Scene, store: MemoryStore) -> None:
    stray = bus.HeldRouter("never stored", "incarnation", 1, "stray")

    ((node, order),) = scene.report(stray)
    scene.worker.work()

    assert (node, closes(stray)(order)) == (NODE, True)
    assert store.read("never stored").fields == {}
    assert scene.partition.actors == {}


@pytest.mark.parametrize(("incarnation", "epoch"), [("another", 1), (None, 2), (None, 0)])
async def test_a_router_of_another_placement_is_closed(scene: Scene, incarnation: str | None, epoch: int) -> None:
    held = await scene.placed()
    stray = bus.HeldRouter("room", incarnation or held.incarnation, epoch, "stray")

    ((node, order),) = scene.report(held, stray)

    assert (node, closes(stray)(order)) == (NODE, True)
    assert order.v > 0


async def test_the_epoch_of_a_placement_that_was_never_committed_is_not_used_again(
    scene: Scene, store: MemoryStore
) -> None:
    """The router id is closed for ever, so the next placement must have another."""
    held = await scene.placed()
    successor = Scene(store)
    lost = bus.HeldRouter("room", held.incarnation, held.epoch + 1, "stray")
    assert len(successor.report(held, lost)) == 1

    third = Scene(store)
    actor = third.partition.actor("room")
    actor.when_live(lambda executor: executor.node_died())
    third.worker.work()
    assert actor._executor is not None
    placing = actor._executor.room.place()
    next(placing)
    with pytest.raises(StopIteration):
        placing.send(Placed(NODE))

    assert actor.placement is not None
    assert actor.placement.epoch > lost.epoch


async def test_superseded_worker_closes_no_router(scene: Scene, store: MemoryStore) -> None:
    """A superseded worker gets a report of the present placement (C4)."""
    held = await scene.placed()
    successor = Scene(store)
    successor.report(held)
    actor = successor.partition.actor("room")
    actor.when_live(lambda executor: executor.node_died())
    successor.worker.work()
    await successor.say("queryRoom")

    new = bus.HeldRouter("room", held.incarnation, held.epoch + 1, "new router")
    scene.nodes.handle_report(scene.partition, bus.NodeReport(NODE, [new]), 0.0)

    assert scene.worker.commit() == ["STALE"]
    assert not [order for changes, _ in scene.worker.published for order in changes.orders]


async def test_a_room_whose_router_is_not_reported_for_long_is_placed_anew(scene: Scene) -> None:
    held = await scene.placed()
    actor = scene.partition.actor("room")

    for now in (0.0, 4.0, 7.9):
        scene.report(now=now)
        assert actor.placement is not None
    scene.report(now=8.1)

    assert actor.placement is None
    assert scene.report(held, now=9.0), "the router that comes to light after all is closed"


async def test_room_whose_first_transport_is_being_created_needs_no_router(scene: Scene) -> None:
    """The node is slow; the room is placed, and its request waits."""
    await scene.say("join", target="room", peerName="alice", rtpCapabilities={"codecs": [], "headerExtensions": []})
    await scene.say("createTransport", target="peer", id=1, direction="send", options={}, dtlsParameters=DTLS)
    actor = scene.partition.actor("room")
    scene.worker.load()
    assert actor.placement is not None
    for now in (0.0, 5.0, 10.0):
        scene.report(now=now)
    assert actor.placement is not None


async def test_a_router_that_is_reported_again_was_not_lost(scene: Scene) -> None:
    held = await scene.placed()
    for now, reported in ((0.0, ()), (5.0, (held,)), (10.0, ()), (15.0, (held,)), (20.0, ())):
        scene.report(*reported, now=now)
    assert scene.partition.actor("room").placement is not None


async def test_node_that_lost_its_queue_gets_the_orders_of_its_rooms_again(scene: Scene) -> None:
    await scene.placed()
    pause = media.Pause("producer", 3, "producer")

    class Stored:
        async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
            assert list(rooms) == ["room"]
            return [("another node", pause), (NODE, pause)]

    await scene.nodes.resend_orders(Stored(), scene.partition, NODE)
    await scene.nodes.resend_orders(Stored(), scene.partition, "another node")

    assert scene.orders == [(NODE, pause)]


# --- deaths ---------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(nodes_module, "time", clock)
    return clock


async def seconds(scene: Scene, clock: Clock, count: float, membership: Membership | None = None) -> None:
    """Advances the clock by half seconds, the interval at which `watch` reads the registry."""
    for _ in range(round(count / 0.5)):
        clock.now += 0.5
        if membership is not None:
            await membership.beat()
        await scene.nodes.read_registry()
        scene.nodes._probe_late_nodes(clock.now)
        await asyncio.sleep(0)


@pytest.fixture
async def beating(scene: Scene, clock: Clock) -> Membership:
    """The node, seen for long enough."""
    membership = Membership(scene.cluster, "nodes", NODE, {})
    await scene.placed()
    await seconds(scene, clock, 6.0, membership)
    assert scene.nodes.choose() == NODE
    return membership


async def test_late_node_without_a_queue_is_dead(scene: Scene, clock: Clock, beating: Membership) -> None:
    scene.broker.queues.clear()

    await seconds(scene, clock, 1.5)

    assert scene.nodes.choose() is None
    assert scene.partition.actor("room").placement is None


async def test_late_node_with_its_queue_is_alive(scene: Scene, clock: Clock, beating: Membership) -> None:
    await seconds(scene, clock, 3.0)

    assert scene.broker.published
    assert scene.nodes.choose() == NODE
    assert scene.partition.actor("room").placement is not None


async def test_a_node_that_is_avoided_is_chosen_only_if_there_is_no_other(
    scene: Scene, clock: Clock, beating: Membership
) -> None:
    assert scene.nodes.choose({NODE}) == NODE

    await Membership(scene.cluster, "nodes", "other-1", {}).beat()
    await seconds(scene, clock, 0.5, beating)

    assert {scene.nodes.choose({NODE}) for _ in range(20)} == {"other-1"}


async def test_beating_node_is_not_probed(scene: Scene, clock: Clock, beating: Membership) -> None:
    scene.broker.queues.clear()
    await seconds(scene, clock, 10.0, beating)
    assert scene.broker.published == 0


@pytest.mark.parametrize("away", ["redis", "broker"])
async def test_no_node_is_declared_dead_just_after_an_outage(
    scene: Scene, clock: Clock, beating: Membership, away: str
) -> None:
    """The nodes come back one by one."""
    if away == "redis":
        scene.nodes.observer.failed()
    else:
        scene.broker.connected = False
        scene.nodes._probe_late_nodes(clock.now)
        scene.broker.connected = True
    scene.broker.queues.clear()

    await seconds(scene, clock, 3.0)
    assert scene.broker.published == 0
    await seconds(scene, clock, 1.0, beating)
    assert scene.partition.actor("room").placement is not None
