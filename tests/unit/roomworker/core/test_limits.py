"""Limits of a room, and the errors beyond them."""

from typing import Any

import pytest

from roomworker.core.limits import DEFAULTS, Growth, Limits
from shared.errors import MEMORY_USED_UP
from shared.protocol import media
from shared.protocol.actions import RoomLimits
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import snapshot


def limited(**limits: Any) -> RoomHarness:
    harness = RoomHarness()
    harness.limits = Limits(**limits)
    harness.crash()
    return harness


def bitrates(harness: RoomHarness) -> list[tuple[str, int]]:
    return [(o.object, o.bitrate) for o in harness.orders if isinstance(o, media.SetMaxIncomingBitrate)]


def join(client: Client, **more: Any) -> Json:
    return client.ask("join", peerName=client.peer, rtpCapabilities=CAPABILITIES, **more)


def test_full_room_accepts_no_peer_until_one_leaves() -> None:
    harness = limited(peers=2)
    alice, spy, carol = harness.joined("alice"), harness.joined("spy", spy=True), harness.connected("carol")
    alice.clear_sent()

    assert error_of(join(carol)) == (429, "peers of a room: at most 2")
    assert alice.frames == []
    spy.notify("leave")
    assert join(carol)["ok"]


def test_session_that_has_not_joined_does_not_count_as_peer() -> None:
    harness = limited(peers=1)
    harness.connected("alice")

    assert join(harness.connected("bob"))["ok"]


def test_transports_of_a_peer_are_limited() -> None:
    harness = limited(transports_per_peer=2)
    alice, bob = harness.joined("alice"), harness.joined("bob")
    for id_ in (1, 2):
        assert alice.ask("createTransport", id=id_, direction="send")["ok"]

    answer = error_of(alice.ask("createTransport", id=3, direction="recv"))

    assert answer == (429, "transports of a peer: at most 2")
    assert bob.ask("createTransport", id=1, direction="send")["ok"]
    alice.notify("closeTransport", id=1)
    assert alice.ask("createTransport", id=3, direction="recv")["ok"]


def test_producers_of_a_peer_are_limited() -> None:
    harness = limited(producers_per_peer=1)
    alice, bob = harness.sending("alice"), harness.joined("bob")
    alice.produce(10, rtpParameters={**OPUS, "muxId": "1"})
    bob.clear_sent()
    message = {"id": 11, "kind": "audio", "transportId": 1, "rtpParameters": OPUS}

    assert error_of(alice.ask("createProducer", **message)) == (429, "producers of a peer: at most 1")
    assert bob.frames == []
    alice.notify("updateProducer", id=10, rtpParameters={**OPUS, "encodings": [{"ssrc": 7}]})
    assert bob.methods == ["consumerClosed", "newConsumer"], "an update is not counted as another producer"
    alice.notify("closeProducer", id=10)
    assert alice.ask("createProducer", **message)["ok"]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("createTransport", {"id": 2, "direction": "send"}),
        ("createProducer", {"id": 10, "kind": "audio", "transportId": 1, "rtpParameters": OPUS}),
        ("leave", {}),
    ],
)
def test_app_data_that_is_too_large_is_rejected_and_changes_nothing(method: str, fields: Json) -> None:
    harness = limited(app_data_bytes=10)
    alice, bob = harness.sending("alice"), harness.joined("bob")
    before, asked = snapshot(harness.room), len(harness.requests)
    bob.clear_sent()
    ask = alice.notify_asking if method == "leave" else alice.ask

    assert error_of(ask(method, **fields, appData="123456789")) == (413, "appData: larger than 10 bytes")

    assert bob.frames == []
    assert len(harness.requests) == asked
    assert {**snapshot(harness.room), "session|alice": 0} == {**before, "session|alice": 0}
    assert ask(method, **fields, appData="12345678")["ok"]


def test_join_with_too_large_app_data_is_rejected() -> None:
    harness = limited(app_data_bytes=10)
    alice = harness.connected("alice")

    assert error_of(join(alice, appData="123456789")) == (413, "appData: larger than 10 bytes")
    assert harness.room.peers == {}
    assert join(alice, appData="12345678")["ok"]


def test_bitrate_limit_applies_to_sending_transports_only() -> None:
    harness = limited(max_incoming_bitrate=400_000)
    alice = harness.sending("alice")
    alice.ask("createTransport", id=2, direction="recv")

    assert bitrates(harness) == [(harness.room.peers["alice"].transports[1].engine, 400_000)]


def test_bitrate_limit_of_zero_sends_no_order() -> None:
    harness = RoomHarness()
    harness.sending("alice")

    assert bitrates(harness) == []


def test_own_limits_of_a_room_override_the_clusters() -> None:
    cluster = Limits(peers=5, max_incoming_bitrate=100)

    assert cluster.overridden_by(RoomLimits()) == cluster
    own = cluster.overridden_by(RoomLimits(peers=7, max_incoming_bitrate=0))
    assert (own.peers, own.max_incoming_bitrate) == (7, 0)
    assert own.producers_per_peer == DEFAULTS.producers_per_peer


# --- while memory is short ----------------------------------------------------------------------------------------


REFUSED = (503, "the server's memory is nearly used up: try again later")


def media_objects(harness: RoomHarness) -> Json:
    """The room's records without the sessions, whose numbers move with each request."""
    return {name: record for name, record in snapshot(harness.room).items() if not name.startswith("session|")}


def test_requests_that_grow_a_room_are_refused_and_others_go_on() -> None:
    growth = Growth()
    harness = limited(growth=growth)
    alice, bob, carol = harness.sending("alice"), harness.receiving("bob"), harness.connected("carol")
    consumer = alice.produce(5)
    growth.refused = True
    before = media_objects(harness)

    assert error_of(alice.ask("createTransport", id=9, direction="recv")) == REFUSED
    assert error_of(alice.ask("createProducer", id=6, transportId=1, kind="audio", rtpParameters=OPUS)) == REFUSED
    assert error_of(bob.enable(consumer)) == REFUSED
    assert error_of(carol.ask("queryRoom")) == REFUSED
    assert error_of(join(carol)) == REFUSED
    assert media_objects(harness) == before

    alice.notify("closeProducer", id=5)
    alice.notify("closeTransport", id=1)
    bob.notify("leave")
    assert set(harness.room.peers) == {"alice"}
    assert not harness.room.peers["alice"].transports
    growth.refused = False
    assert join(carol)["ok"]


def test_calls_that_grow_a_room_are_refused_and_others_go_on() -> None:
    growth = Growth()
    harness = limited(growth=growth)
    backend = Backend(harness)
    harness.joined("alice")
    growth.refused = True

    assert backend.call("createRoom") == REFUSED
    assert backend.call("sendMessage", data=1) == REFUSED
    assert backend.do("inspectRoom")["connections"] == 1
    backend.do("closeRoom")
    assert harness.room.sessions == {}


def test_room_that_is_ended_closes_every_session_with_the_reason() -> None:
    harness = RoomHarness()
    alice, bob = harness.joined("alice"), harness.connected("bob")
    harness.act(lambda executor: executor.end_room(MEMORY_USED_UP))

    for client in (alice, bob):
        last = harness.stream[client.session][-1]
        assert (last.close, last.body.decode()) == (MEMORY_USED_UP.code, MEMORY_USED_UP.reason)
    assert harness.stored.version == ""
    assert set(harness.closed_sessions) == {alice.session, bob.session}
