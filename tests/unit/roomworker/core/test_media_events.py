"""Media events: changed profiles, and dead engines and nodes."""

import pytest

from roomworker.runtime.executor import Executor
from shared.protocol import bus, media
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.room_harness import NODE, RoomHarness


def call(harness: RoomHarness) -> tuple[Client, Client, int, str]:
    """A call in which alice sends and bob receives; returns both, the consumer's id and its engine id."""
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    consumer = alice.produce(10, "video")
    bob.enable(consumer)
    return alice, bob, consumer, harness.room.peers["bob"].consumers[consumer].engine


def test_new_effective_profile_notifies_only_its_receiver() -> None:
    harness = RoomHarness()
    alice, bob, consumer, engine = call(harness)
    alice.clear_sent()

    harness.event(media.ProfileChanged(engine, "low"))

    assert bob.notifications_of("consumerEffectiveProfileChanged") == [
        {"id": consumer, "peerName": "alice", "profile": "low"}
    ]
    assert alice.frames == []


def test_unchanged_effective_profile_sends_no_notification() -> None:
    harness = RoomHarness()
    _, bob, _, engine = call(harness)

    harness.event(media.ProfileChanged(engine, "low"), n=1)
    harness.event(media.ProfileChanged(engine, "low"), n=2)

    assert len(bob.notifications_of("consumerEffectiveProfileChanged")) == 1


def test_event_that_arrives_twice_or_late_is_applied_once() -> None:
    harness = RoomHarness()
    _, bob, _, engine = call(harness)

    harness.event(media.ProfileChanged(engine, "low"), n=5)
    harness.event(media.ProfileChanged(engine, "high"), n=6)
    harness.event(media.ProfileChanged(engine, "low"), n=5)
    harness.crash()
    harness.event(media.ProfileChanged(engine, "medium"), n=6)

    assert [changed["profile"] for changed in bob.notifications_of("consumerEffectiveProfileChanged")] == [
        "low",
        "high",
    ]


@pytest.mark.parametrize(("node", "epoch"), [("other node", 1), (NODE, 0), (NODE, 2)])
def test_events_of_another_placement_have_no_effect(node: str, epoch: int) -> None:
    harness = RoomHarness()
    _, bob, _, engine = call(harness)
    before = dict(harness.fields)

    harness.event(media.ProfileChanged(engine, "low"), node=node, epoch=epoch)
    harness.event(media.RouterClosed("router", "died"), node=node, epoch=epoch, n=2)

    assert "consumerEffectiveProfileChanged" not in bob.methods
    assert harness.fields == before


def test_events_of_unknown_objects_and_other_kinds_change_nothing() -> None:
    harness = RoomHarness()
    _, _, _, engine = call(harness)
    before = dict(harness.fields)

    for event in (
        media.ProfileChanged("unknown", "low"),
        media.IceStateChanged(engine, "connected"),
        media.DtlsStateChanged(engine, "connected"),
        media.Score(engine, 10),
    ):
        harness.event(event)

    assert harness.fields == before
    assert not harness.jobs


def test_malformed_event_is_a_defect_and_discarded() -> None:
    harness = RoomHarness()
    _, bob, _, engine = call(harness)
    room = harness.room

    harness.receive(bus.MediaEvent(harness.name, room.incarnation, room.meta.epochs, NODE, 1, b"{nonsense"), NODE)
    harness.event(media.ProfileChanged(engine, "low"), n=2)

    assert len(harness.defects) == 1
    assert len(bob.notifications_of("consumerEffectiveProfileChanged")) == 1
    assert not harness.jobs


@pytest.mark.parametrize("how", ["engine", "node"])
def test_dead_engine_or_node_closes_transports_and_room_is_placed_anew(how: str) -> None:
    harness = RoomHarness()
    alice, bob, consumer, _ = call(harness)
    engines = {request.transport for request in harness.requests if isinstance(request, media.CreateTransport)}
    orders = len(harness.orders)

    if how == "engine":
        harness.event(media.RouterClosed(harness.room.router.id, "died"))
    else:
        harness.act(Executor.node_died)

    assert alice.notifications_of("transportClosed") == [{"id": 1}]
    assert bob.notifications_of("transportClosed") == [{"id": 2}]
    assert bob.notifications_of("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    closed = harness.orders[orders:]
    assert all(isinstance(order, media.Close) for order in closed), (
        "the node is told to close them in case it is alive"
    )
    assert {order.kind for order in closed if isinstance(order, media.Close)} == {"transport", "router"}
    assert harness.room.meta.placement is None

    harness.node = "another"
    assert alice.ask("createTransport", id=1, direction="send")["ok"]
    last = harness.requests[-1]
    assert isinstance(last, media.CreateTransport)
    assert last.transport not in engines
    assert harness.room.meta.placement is not None
    assert harness.room.meta.placement.node == "another"


def test_transport_pending_when_the_node_dies_is_answered_unavailable() -> None:
    harness = RoomHarness()
    harness.sending("bob")
    alice = harness.joined("alice")
    harness.prompt = False
    id_ = alice.request("createTransport", id=1, direction="send")

    harness.act(Executor.node_died)
    harness.answer()
    harness.commit()

    assert alice.answers(id_)[0]["errorCode"] == 503
    assert harness.room.peers["alice"].transports == {}
