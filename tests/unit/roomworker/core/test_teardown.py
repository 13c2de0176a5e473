"""Cascades of closing: what is removed, who is notified, and what the engine is ordered to close."""

from msgspec import UNSET

from roomworker.core import teardown
from roomworker.core.room import Room
from shared.protocol import media
from tests.unit.roomworker.call_of_three import CallOfThree


def committed(call: CallOfThree) -> Room:
    """Commits what was done to the room directly."""
    call.harness.act(lambda executor: None)
    return call.harness.room


def test_removed_peer_leaves_nothing_behind_and_no_peer_is_notified() -> None:
    call = CallOfThree()
    room = call.harness.room
    transport = room.peers["alice"].transports[1].engine

    teardown.remove_peer(room, room.peers["alice"])

    committed(call)
    assert call.notified == {}
    assert call.ordered == [(media.Close, transport)]
    assert (room.producers_by_number, room.consumers_by_engine, room.consumer_parameters) == ({}, {}, {})
    assert not [name for name in call.harness.fields if name.endswith("|alice") and not name.startswith("session")]
    assert "consumer|" not in "".join(call.harness.fields)


def test_closed_transport_closes_its_producers_by_one_order() -> None:
    call = CallOfThree()
    room = call.harness.room
    alice = room.peers["alice"]
    transport = alice.transports[1]

    teardown.close_transport(room, alice, transport)

    committed(call)
    assert call.notified == {"bob": ["consumerClosed"], "carol": ["consumerClosed"]}
    assert call.ordered == [(media.Close, transport.engine)]
    assert (alice.transports, alice.producers) == ({}, {})


def test_closed_producer_is_closed_by_an_order_and_removes_its_consumers() -> None:
    call = CallOfThree()
    room = call.harness.room
    alice, engine = room.peers["alice"], call.producer_engine

    teardown.close_producer_by_server(room, alice, alice.producers[10], UNSET)

    committed(call)
    assert call.notified == {"alice": ["producerClosed"], "bob": ["consumerClosed"], "carol": ["consumerClosed"]}
    assert call.ordered == [(media.Close, engine)]
    assert room.peers["bob"].consumers == {}


def test_closed_receiving_transport_keeps_its_consumers_disabled() -> None:
    call = CallOfThree()
    room = call.harness.room
    bob = room.peers["bob"]

    teardown.close_transport(room, bob, bob.transports[2])

    committed(call)
    assert not bob.consumers[call.consumer].enabled
    assert room.consumers_by_engine == {}


def test_last_removed_peer_takes_the_room_off_its_media_node() -> None:
    call = CallOfThree()
    room = call.harness.room
    for peer in list(room.peers.values()):
        assert room.meta.placement is not None
        teardown.remove_peer(room, peer)

    assert room.meta.placement is None


def test_lost_media_node_closes_every_transport_and_notifies_its_peer() -> None:
    call = CallOfThree()
    room = call.harness.room

    teardown.lose_media_node(room)

    committed(call)
    assert room.meta.placement is None
    for client in (call.alice, call.bob, call.carol):
        assert client.methods.count("transportClosed") == 1
    assert not any(peer.transports for peer in room.peers.values())


def test_generation_counts_every_engine_object_that_is_closed() -> None:
    call = CallOfThree()
    room = call.harness.room
    alice = room.peers["alice"]
    before = alice.data.generation

    teardown.close_producer(room, alice, alice.producers[10])
    teardown.close_transport(room, alice, alice.transports[1])

    assert alice.data.generation == before + 2
