"""Sessions: which of two connections of a peer wins, and what a closed session leaves behind."""

from shared.errors import REPLACED
from tests.unit.roomworker.room_harness import RoomHarness


def test_second_connection_of_a_peer_replaces_the_first() -> None:
    harness = RoomHarness()
    first, other = harness.joined("alice"), harness.joined("bob")

    second = harness.connected("alice")

    assert first.close_code == REPLACED.code == 4000
    assert other.notifications_of("peerClosed") == [{"name": "alice"}]
    assert second.close_code is None
    assert second.ask("join", peerName="alice", rtpCapabilities={"codecs": []})["ok"]


def test_connection_accepted_later_wins_in_any_order_of_arrival() -> None:
    harness = RoomHarness()
    later = harness.joined("alice")
    earlier = harness.client("alice")
    earlier.accepted = later.accepted - 1

    earlier.connect()

    assert earlier.close_code == REPLACED.code
    assert later.close_code is None
    assert "alice" in harness.room.peers


def test_same_one_of_two_connections_accepted_at_once_wins_in_any_order() -> None:
    stayed = set()
    for order in ((0, 1), (1, 0)):
        harness = RoomHarness()
        both = [harness.client("alice", accepted=1), harness.client("alice", accepted=1)]
        for which in order:
            both[which].connect()
        stayed.add(tuple(client.close_code is None for client in both))
    assert len(stayed) == 1
    assert sorted(stayed.pop()) == [False, True]


def test_inputs_of_a_replaced_connection_have_no_effect() -> None:
    harness = RoomHarness()
    first = harness.joined("alice")
    harness.joined("alice")

    first.notify("leave")
    first.disconnect()

    assert "alice" in harness.room.peers
    assert harness.reports[-1][1].n == first.n, "the gateway may forget the input"


def test_disconnect_closes_the_peer_and_the_last_one_empties_the_room() -> None:
    harness = RoomHarness()
    alice, bob = harness.joined("alice"), harness.joined("bob")

    alice.disconnect()
    assert bob.notifications_of("peerClosed") == [{"name": "alice"}]
    bob.disconnect()

    assert not harness.room.exists
    assert set(harness.fields) <= {"meta"}
    assert set(harness.closed_sessions) == {alice.session, bob.session}


def test_connect_redelivered_after_the_session_closed_is_a_duplicate() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    alice.disconnect()

    harness.receive(alice.items[0])

    assert not harness.room.exists
    assert harness.reports[-1][1].n == alice.n


def test_closed_sessions_are_remembered_up_to_a_limit() -> None:
    harness = RoomHarness(prompt=False)
    for _ in range(1005):
        client = harness.client("alice")
        client.connect()
        client.disconnect()
    harness.commit()

    assert len(harness.room.closed_sessions) == 1000
    assert harness.closed_sessions == harness.room.closed_sessions
