"""Resumption: a session outlives its connection for the grace."""

import pytest

from roomworker.core.resumption import GRACE, LOST_BYTES_LIMIT
from shared.protocol import bus
from tests.unit.roomworker.harness_client import GATEWAY, Client
from tests.unit.roomworker.payloads import CAPABILITIES
from tests.unit.roomworker.room_harness import RoomHarness

ELSEWHERE = "elsewhere"


@pytest.fixture
def harness() -> RoomHarness:
    return RoomHarness()


def tick(harness: RoomHarness, now: int) -> None:
    harness.act(lambda executor: executor.tick(now))


def resumable(harness: RoomHarness, peer: str) -> Client:
    client = harness.connected(peer, token="hash")
    assert client.ask("join", peerName=peer, rtpCapabilities=CAPABILITIES)["ok"]
    tick(harness, 1)  # a room has no time before its first tick
    return client


def lose(client: Client, *, final: bool = False) -> None:
    client.harness.receive(
        bus.ConnectionLost(client.harness.name, client.session, client.connection, final), client.gateway
    )


def resume(
    client: Client, gateway: str = ELSEWHERE, connection: int = 9, attempt: int = 1, token: str = "hash"
) -> bus.Link:
    item = bus.Resume(client.harness.name, client.session, connection, token, attempt, 0)
    client.harness.receive(item, gateway)
    (receiver, link) = client.harness.links[-1]
    assert receiver == gateway
    if link.state == "resumed":
        client.gateway, client.connection = gateway, connection
    return link


def test_session_without_connection_is_kept_and_no_peer_is_told(harness: RoomHarness) -> None:
    alice, bob = resumable(harness, "alice"), harness.joined("bob")
    lose(alice)
    tick(harness, 1 + GRACE - 1)

    assert bob.notifications_of("peerClosed") == []
    assert harness.links[-1] == (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    assert harness.room.sessions[alice.session].gateway == ""


def test_session_is_resumed_over_another_gateway_without_a_gap(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    lose(alice)
    harness.joined("bob")

    link = resume(alice)

    assert (link.state, link.n) == ("resumed", alice.n)
    assert link.out == len(alice.sent)
    assert alice.notifications_of("newPeer") == [{"name": "bob", "consumers": []}]
    assert alice.ask("queryRoom")["ok"]
    tick(harness, 1 + 10 * GRACE)
    assert alice.session in harness.room.sessions


def test_session_is_closed_after_the_grace(harness: RoomHarness) -> None:
    alice, bob = resumable(harness, "alice"), harness.joined("bob")
    lose(alice)
    tick(harness, 1 + GRACE)

    assert bob.notifications_of("peerClosed") == [{"name": "alice"}]
    assert resume(alice).state == "refused"


def test_session_with_a_final_loss_is_closed_at_once(harness: RoomHarness) -> None:
    alice, bob = resumable(harness, "alice"), harness.joined("bob")
    lose(alice, final=True)
    assert bob.notifications_of("peerClosed") == [{"name": "alice"}]


def test_grace_of_a_loss_at_an_unknown_time_begins_with_the_next_tick() -> None:
    harness = RoomHarness()
    alice = resumable(harness, "alice")
    harness.crash()  # the next worker has not had a tick
    lose(alice)
    tick(harness, 5 * GRACE)
    tick(harness, 6 * GRACE - 1)
    assert alice.session in harness.room.sessions
    tick(harness, 6 * GRACE)
    assert alice.session not in harness.room.sessions


def test_session_lost_in_a_room_without_ticks_has_its_whole_grace(harness: RoomHarness) -> None:
    """A room gets ticks only while something in it is due, so its last one may be long ago."""
    alice = resumable(harness, "alice")
    harness.services.room_time[0] = 100 * GRACE
    lose(alice)
    tick(harness, 101 * GRACE - 1)
    assert alice.session in harness.room.sessions
    tick(harness, 101 * GRACE)
    assert alice.session not in harness.room.sessions


def test_time_of_loss_that_is_still_to_come_is_another_clocks(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    tick(harness, 100 * GRACE)
    lose(alice)
    harness.crash()
    harness.services.room_time.clear()
    tick(harness, 2 * GRACE)
    tick(harness, 3 * GRACE - 1)
    assert alice.session in harness.room.sessions
    tick(harness, 3 * GRACE)
    assert alice.session not in harness.room.sessions


def test_late_loss_of_the_old_connection_has_no_effect(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    old = bus.ConnectionLost(harness.name, alice.session, alice.connection)
    resume(alice)
    harness.receive(old, GATEWAY)
    assert harness.room.sessions[alice.session].gateway == ELSEWHERE
    assert harness.links[-1][1].state == "released"


def test_old_connection_is_released_when_the_session_is_resumed(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    before = alice.connection
    resume(alice)
    assert (GATEWAY, bus.Link(before, alice.session, "released")) in harness.links


def test_later_of_two_attempts_wins_in_any_order_of_arrival(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    lose(alice)
    assert resume(alice, connection=7, attempt=2).state == "resumed"
    assert resume(alice, connection=6, attempt=1).state == "refused"
    assert resume(alice, connection=7, attempt=2).state == "resumed"
    assert harness.room.sessions[alice.session].connection == 7


@pytest.mark.parametrize("token", ["", "other"])
def test_resumption_with_another_token_is_refused(harness: RoomHarness, token: str) -> None:
    alice = resumable(harness, "alice")
    assert resume(alice, token=token).state == "refused"
    assert harness.room.sessions[alice.session].gateway == GATEWAY


def test_session_without_token_cannot_be_resumed(harness: RoomHarness) -> None:
    bob = harness.joined("bob")
    assert resume(bob, token="").state == "refused"


def test_resumption_of_an_unknown_session_is_refused(harness: RoomHarness) -> None:
    harness.receive(bus.Resume(harness.name, "nobody.1", 1, "hash", 1, 0), ELSEWHERE)
    assert harness.links == [(ELSEWHERE, bus.Link(1, "nobody.1", "refused"))]
    assert harness.fields == {}


def test_session_of_a_dead_gateway_loses_its_connection_and_is_released(harness: RoomHarness) -> None:
    alice, bob = resumable(harness, "alice"), harness.joined("bob")
    harness.act(lambda executor: executor.gateway_died(GATEWAY))
    assert harness.links[-1] == (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    assert bob.close_code == 4001
    assert resume(alice).state == "resumed"


def test_session_is_resumed_after_a_takeover(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    lose(alice)
    harness.crash()
    assert resume(alice).state == "resumed"
    assert alice.ask("queryRoom")["ok"]


def test_grace_continues_after_a_takeover(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    lose(alice)
    harness.crash()
    tick(harness, 1 + GRACE)
    assert alice.session not in harness.room.sessions


def test_session_without_connection_is_closed_beyond_its_output_limit(harness: RoomHarness) -> None:
    """One suspended client must not make a room grow without bound (DELIVERY O1)."""
    resumable(harness, "alice")
    alice, bob = resumable(harness, "sleeper"), harness.joined("bob")
    lose(alice)
    data = "x" * 60_000
    for _ in range(LOST_BYTES_LIMIT // len(data) + 1):
        bob.harness.receive(bob.input("message", None, b'{"data":"' + data.encode() + b'"}'), GATEWAY)
    tick(harness, 2)
    assert alice.session not in harness.room.sessions


def test_new_connection_of_the_peer_replaces_a_lost_session(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    lose(alice)
    again = harness.connected("alice")
    assert again.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]
    assert resume(alice).state == "refused"


def test_gateway_that_missed_the_release_is_told_on_its_next_input(harness: RoomHarness) -> None:
    alice = resumable(harness, "alice")
    released = (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    replay = bus.Replay(harness.name, alice.session, alice.connection, 0)
    assert not harness.executor.report_released(GATEWAY, replay)
    harness.act(lambda executor: executor.gateway_died(GATEWAY))

    harness.links.clear()
    alice.request("queryRoom")
    assert harness.links == [released]
    assert harness.room.sessions[alice.session].n_in == alice.n, "the input is applied all the same"

    harness.links.clear()
    harness.receive(alice.connect_item())
    assert harness.links == [released]

    harness.links.clear()
    harness.act(lambda executor: executor.report_released(GATEWAY, replay))
    assert harness.links == [released]
