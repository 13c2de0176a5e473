"""Sessions: which of two connections of a peer wins, and what a closed session leaves behind."""

import pytest

from shared.errors import REPLACED
from shared.protocol import bus
from tests.unit.roomworker.harness_client import GATEWAY
from tests.unit.roomworker.room_harness import RoomHarness


def test_second_connection_of_a_peer_replaces_the_first() -> None:
    harness = RoomHarness()
    first, other = harness.joined("alice"), harness.joined("bob")

    second = harness.connected("alice")

    assert first.close_code == REPLACED.code == 4000
    assert other.notifications_of("peerClosed") == [{"name": "alice"}]
    assert second.close_code is None
    assert second.ask("join", peerName="alice", rtpCapabilities={"codecs": []})["ok"]


@pytest.mark.parametrize("clock", [-90_000, 0, 90_000])
def test_connection_that_arrives_later_wins_whatever_its_gateways_clock_says(clock: int) -> None:
    harness = RoomHarness()
    harness.connected("bob")
    first = harness.joined("alice")
    second = harness.client("alice", gateway="elsewhere", accepted=first.accepted + clock)
    second.connection = 1  # the first one of a gateway that was just started

    second.connect()

    assert first.close_code == REPLACED.code
    assert second.close_code is None
    assert second.ask("join", peerName="alice", rtpCapabilities={"codecs": []})["ok"]


def test_connect_behind_a_later_connection_of_its_gateway_loses() -> None:
    """A gateway repeats what the broker lost, so two of its connections may arrive in the wrong order."""
    harness = RoomHarness()
    earlier, later = harness.client("alice"), harness.client("alice")
    later.connect()

    earlier.connect()

    assert earlier.close_code == REPLACED.code
    assert later.close_code is None
    assert list(harness.room.sessions) == [later.session]


def test_connect_behind_the_resumption_of_a_session_at_its_gateway_loses() -> None:
    harness = RoomHarness()
    resumed = harness.client("alice", token="hash")
    resumed.connect()
    late = harness.client("alice")
    harness.receive(bus.Resume("room", resumed.session, late.connection + 1, "hash", 1, 0), GATEWAY)

    late.connect()

    assert late.close_code == REPLACED.code
    assert list(harness.room.sessions) == [resumed.session]


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
