"""What media nodes report: profiles, and the death of engines and nodes."""

import pytest

from roomworker.runtime.executor import Executor
from shared.protocol import bus, media
from tests.unit.roomworker.kit import NODE, Client, World


def call(world: World) -> tuple[Client, Client, int, str]:
    """alice sends, bob receives: the consumer's id and engine id."""
    alice, bob = world.sending("alice"), world.receiving("bob")
    consumer = alice.produce(10, "video")
    bob.enable(consumer)
    return alice, bob, consumer, world.room.peers["bob"].consumers[consumer].engine


def test_a_new_effective_profile_is_told_to_its_receiver_alone() -> None:
    world = World()
    alice, bob, consumer, engine = call(world)
    alice.hush()

    world.event(media.ProfileChanged(engine, "low"))

    assert bob.told("consumerEffectiveProfileChanged") == [{"id": consumer, "peerName": "alice", "profile": "low"}]
    assert alice.frames == []


def test_the_same_profile_again_is_no_news() -> None:
    world = World()
    _, bob, _, engine = call(world)

    world.event(media.ProfileChanged(engine, "low"), n=1)
    world.event(media.ProfileChanged(engine, "low"), n=2)

    assert len(bob.told("consumerEffectiveProfileChanged")) == 1


def test_an_event_that_comes_twice_or_late_counts_once() -> None:
    world = World()
    _, bob, _, engine = call(world)

    world.event(media.ProfileChanged(engine, "low"), n=5)
    world.event(media.ProfileChanged(engine, "high"), n=6)
    world.event(media.ProfileChanged(engine, "low"), n=5)
    world.crash()
    world.event(media.ProfileChanged(engine, "medium"), n=6)

    assert [told["profile"] for told in bob.told("consumerEffectiveProfileChanged")] == ["low", "high"]


@pytest.mark.parametrize(("node", "epoch"), [("other node", 1), (NODE, 0), (NODE, 2)])
def test_events_of_another_placement_have_no_effect(node: str, epoch: int) -> None:
    world = World()
    _, bob, _, engine = call(world)
    before = dict(world.fields)

    world.event(media.ProfileChanged(engine, "low"), node=node, epoch=epoch)
    world.event(media.RouterClosed("router", "died"), node=node, epoch=epoch, n=2)

    assert "consumerEffectiveProfileChanged" not in bob.methods
    assert world.fields == before


def test_events_of_unknown_objects_and_of_no_interest_change_nothing() -> None:
    world = World()
    _, _, _, engine = call(world)
    before = dict(world.fields)

    for event in (
        media.ProfileChanged("unknown", "low"),
        media.IceStateChanged(engine, "connected"),
        media.DtlsStateChanged(engine, "connected"),
        media.Score(engine, 10),
    ):
        world.event(event)

    assert world.fields == before
    assert not world.jobs


def test_an_event_that_cannot_be_read_is_set_aside() -> None:
    world = World()
    _, bob, _, engine = call(world)
    room = world.room

    world.receive(bus.MediaEvent(world.name, room.incarnation, room.meta.epochs, NODE, 1, b"{nonsense"), NODE)
    world.event(media.ProfileChanged(engine, "low"), n=2)

    assert len(world.defects) == 1
    assert len(bob.told("consumerEffectiveProfileChanged")) == 1
    assert not world.jobs


@pytest.mark.parametrize("how", ["engine", "node"])
def test_when_the_engine_or_node_dies_transports_close_and_the_room_is_placed_anew(how: str) -> None:
    world = World()
    alice, bob, consumer, _ = call(world)
    engines = {request.transport for request in world.requests if isinstance(request, media.CreateTransport)}
    orders = len(world.orders)

    if how == "engine":
        world.event(media.RouterClosed(world.room.router.id, "died"))
    else:
        world.act(Executor.node_died)

    assert alice.told("transportClosed") == [{"id": 1}]
    assert bob.told("transportClosed") == [{"id": 2}]
    assert bob.told("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    closed = world.orders[orders:]
    assert all(isinstance(order, media.Close) for order in closed), "for a node that lives after all"
    assert {order.kind for order in closed if isinstance(order, media.Close)} == {"transport", "router"}
    assert world.room.meta.placement is None

    world.node = "another"
    assert alice.ask("createTransport", id=1, direction="send")["ok"]
    last = world.requests[-1]
    assert isinstance(last, media.CreateTransport)
    assert last.transport not in engines
    assert world.room.meta.placement is not None
    assert world.room.meta.placement.node == "another"


def test_a_transport_under_way_when_the_node_dies_is_answered_with_try_again() -> None:
    world = World()
    world.sending("bob")
    alice = world.joined("alice")
    world.prompt = False
    id_ = alice.request("createTransport", id=1, direction="send")

    world.act(Executor.node_died)
    world.answer()
    world.commit()

    assert alice.answers(id_)[0]["errorCode"] == 503
    assert world.room.peers["alice"].transports == {}
