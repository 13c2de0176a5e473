"""A room read again is the room that was stored."""

import pytest

from roomworker.storage.loader import load
from tests.unit.roomworker.kit import Client, World, indexes, snapshot

NAMES = ["bob", "a|b", "producer|1|x", "meta", "v", "peer|", "日本", "}{%", '"', "|" * 5]


def full(name: str) -> tuple[World, Client, Client]:
    """Somebody of that name who sends and receives, with one who does too."""
    world = World(name)
    one, other = world.sending(name), world.sending("other")
    for it in (one, other):
        it.ask("createTransport", id=2, direction="recv", appData={"n": name})
    for it, receiver in ((one, other), (other, one)):
        receiver.enable(it.produce(10, appData=name), paused=True)
        receiver.enable(it.produce(11, "video"))
        it.notify("pauseProducer", id=11)
    return world, one, other


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_room_comes_back_whatever_its_peers_are_called(name: str) -> None:
    world, _, _ = full(name)

    assert snapshot(world.reloaded()) == snapshot(world.room)
    assert indexes(world.reloaded()) == indexes(world.room)
    assert set(world.fields) == set(snapshot(world.room))


def test_the_order_of_the_fields_does_not_matter() -> None:
    world, _, _ = full("bob")
    backwards = dict(reversed(world.fields.items()))

    room = load(world.name, 0, "incarnation", world.n, backwards, world.gone)

    assert indexes(room) == indexes(world.room)


def test_a_room_goes_on_after_loading_as_if_nothing_had_been() -> None:
    world, bob, other = full("bob")
    world.crash()

    bob.notify("resumeProducer", id=11)
    bob.notify("closeProducer", id=10)

    assert other.methods[-2:] == ["consumerResumed", "consumerClosed"]
    before = world.room.meta.numbers
    assert bob.produce(12) > before, "the id of no other consumer"


def test_engine_ids_are_never_used_again_after_loading() -> None:
    world, bob, _ = full("bob")
    before = {getattr(request, "transport", "") for request in world.requests}

    bob.notify("closeTransport", id=1)
    world.crash()
    bob.ask("createTransport", id=1, direction="send")

    assert getattr(world.requests[-1], "transport", "") not in before


def test_fields_of_a_later_version_are_left_alone() -> None:
    world, _, _ = full("bob")

    room = load(world.name, 0, "incarnation", world.n, {**world.fields, "whiteboard|1|bob": b"?"}, world.gone)

    assert indexes(room) == indexes(world.room)
