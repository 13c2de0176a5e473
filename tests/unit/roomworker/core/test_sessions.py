"""Connections of peers: which of two stays, and what a closed one leaves behind."""

from shared.errors import REPLACED
from tests.unit.roomworker.kit import World


def test_a_second_connection_of_a_peer_replaces_the_first_and_closes_its_peer() -> None:
    world = World()
    first, other = world.joined("alice"), world.joined("bob")

    second = world.connected("alice")

    assert first.closed == REPLACED.code == 4000
    assert other.told("peerClosed") == [{"name": "alice"}]
    assert second.closed is None
    assert second.ask("join", peerName="alice", rtpCapabilities={"codecs": []})["ok"]


def test_the_connection_accepted_later_stays_whichever_is_heard_of_first() -> None:
    world = World()
    later = world.joined("alice")
    earlier = world.client("alice")
    earlier.accepted = later.accepted - 1

    earlier.connect()

    assert earlier.closed == REPLACED.code
    assert later.closed is None
    assert "alice" in world.room.peers


def test_of_two_accepted_at_the_same_moment_one_stays_in_any_order() -> None:
    stayed = set()
    for order in ((0, 1), (1, 0)):
        world = World()
        both = [world.client("alice", accepted=1), world.client("alice", accepted=1)]
        for which in order:
            both[which].connect()
        stayed.add(tuple(it.closed is None for it in both))
    assert len(stayed) == 1
    assert sorted(stayed.pop()) == [False, True]


def test_what_a_replaced_connection_still_sends_has_no_effect() -> None:
    world = World()
    first = world.joined("alice")
    world.joined("alice")

    first.notify("leave")
    first.disconnect()

    assert "alice" in world.room.peers
    assert world.reports[-1][1].n == first.n, "the gateway may forget it"


def test_a_disconnect_closes_the_peer_and_the_last_one_leaves_an_empty_room() -> None:
    world = World()
    alice, bob = world.joined("alice"), world.joined("bob")

    alice.disconnect()
    assert bob.told("peerClosed") == [{"name": "alice"}]
    bob.disconnect()

    assert world.room.empty
    assert set(world.fields) <= {"meta"}
    assert set(world.gone) == {alice.session, bob.session}


def test_a_connect_that_comes_again_after_the_session_has_ended_is_no_new_arrival() -> None:
    world = World()
    alice = world.joined("alice")
    alice.disconnect()

    world.receive(alice.items[0])

    assert world.room.empty
    assert world.reports[-1][1].n == alice.n


def test_gone_sessions_are_remembered_up_to_a_bound() -> None:
    world = World(prompt=False)
    for _ in range(1005):
        it = world.client("alice")
        it.connect()
        it.disconnect()
    world.commit()

    assert len(world.room.gone) == 1000
    assert world.gone == world.room.gone
