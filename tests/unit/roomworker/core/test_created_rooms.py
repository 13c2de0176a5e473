"""Rooms that the application's server creates, with their own codecs and limits, and closes."""

import pytest

from roomworker.core.limits import Limits
from shared.protocol import media
from tests.unit.roomworker.backend import OK, Backend
from tests.unit.roomworker.call_of_three import CallOfThree
from tests.unit.roomworker.payloads import CAPABILITIES, NO_CODECS, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import indexes, snapshot

OPUS_ONLY = [{"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2}]


def ticks(harness: RoomHarness, *seconds: float) -> None:
    for second in seconds:
        harness.tick(second)


def test_created_room_exists_before_the_first_peer() -> None:
    harness = RoomHarness()
    backend = Backend(harness)

    view = backend.do("createRoom", appData={"title": "é"})

    assert (view["connections"], view["peers"], view["mediaNode"]) == (0, [], None)
    assert view["appData"] == {"title": "é"}
    assert harness.room.exists
    harness.crash()
    assert backend.do("inspectRoom") == view


def test_codecs_of_a_created_room_are_offered_and_enforced() -> None:
    harness = RoomHarness()
    backend = Backend(harness)

    assert backend.do("createRoom", codecs=OPUS_ONLY)["codecs"] == ["opus"]
    harness.crash()

    alice = harness.connected("alice")
    offered = alice.ask("queryRoom")["data"]["rtpCapabilities"]
    assert [codec["name"] for codec in offered["codecs"]] == ["opus"]
    code, reason = error_of(alice.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES))
    assert (code, reason.partition(":")[0]) == (400, "rtpCapabilities.codecs[1].name")
    assert alice.ask("join", peerName="alice", rtpCapabilities=offered)["ok"]


@pytest.mark.parametrize(
    ("codecs", "field"),
    [
        ([*OPUS_ONLY, {"kind": "video", "name": "AV9", "clockRate": 90000}], "codecs[1]"),
        ([{"kind": "video", "name": "opus", "clockRate": 48000}], "codecs[0]"),
        ([{"kind": "audio", "name": "opus", "clockRate": 8000}], "codecs[0]"),
        ([{"kind": "video", "name": "VP8", "clockRate": 90000}] * 17, "codecs"),
        ([], "codecs"),
    ],
)
def test_unusable_codec_is_rejected_and_no_room_is_created(codecs: list[Json], field: str) -> None:
    harness = RoomHarness()

    code, reason = Backend(harness).call("createRoom", codecs=codecs)

    assert code == 400
    assert reason.startswith(f"{field}: ")
    assert not harness.room.exists
    assert harness.fields == {}


def test_creating_an_existing_room_conflicts_only_if_settings_differ() -> None:
    backend = Backend(RoomHarness())
    backend.do("createRoom", codecs=OPUS_ONLY, limits={"peers": 3}, appData=1)

    assert backend.do("createRoom", codecs=OPUS_ONLY, limits={"peers": 3}, appData=2)["appData"] == 2
    for other in ({}, {"codecs": OPUS_ONLY}, {"limits": {"peers": 3}}):
        assert backend.call("createRoom", **other) == (409, "room: 'room' exists with other codecs or limits")
    assert backend.do("inspectRoom")["appData"] == 2


def test_room_that_a_client_made_can_be_created_with_defaults_only() -> None:
    harness = RoomHarness()
    alice, backend = harness.joined("alice"), Backend(harness)

    assert backend.call("createRoom", codecs=OPUS_ONLY)[0] == 409
    assert backend.do("createRoom", idleSeconds=60)["peers"][0]["name"] == "alice"
    alice.disconnect()

    assert harness.room.exists


@pytest.mark.parametrize("crash", [False, True])
def test_limits_of_a_created_room_take_effect(crash: bool) -> None:
    harness = RoomHarness()
    backend = Backend(harness)
    backend.do("createRoom", limits={"peers": 1, "maxIncomingBitrate": 300_000, "producersPerPeer": 1})
    if crash:
        harness.crash()

    alice, bob = harness.sending("alice"), harness.connected("bob")

    assert error_of(bob.ask("join", peerName="bob", rtpCapabilities=NO_CODECS))[0] == 429
    assert [order.bitrate for order in harness.orders if isinstance(order, media.SetMaxIncomingBitrate)] == [300_000]
    alice.produce(10)
    limits = backend.do("inspectRoom")["limits"]
    assert limits == {"peers": 1, "transportsPerPeer": 16, "producersPerPeer": 1, "maxIncomingBitrate": 300_000}


def test_app_data_of_a_created_room_has_a_limit() -> None:
    harness = RoomHarness()
    harness.limits = Limits(app_data_bytes=10)
    harness.crash()

    assert Backend(harness).call("createRoom", appData="x" * 9) == (413, "appData: larger than 10 bytes")
    assert not harness.room.exists


def test_created_room_expires_after_its_idle_seconds_without_sessions() -> None:
    harness = RoomHarness()
    backend = Backend(harness)
    backend.do("createRoom", idleSeconds=10)

    ticks(harness, 100, 105, 109.9)
    assert harness.room.exists
    harness.crash()
    ticks(harness, 110)

    assert not harness.room.exists
    assert not harness.executor.needs_ticks
    assert backend.call("inspectRoom")[0] == 404


def test_idle_time_that_began_by_another_clock_begins_anew() -> None:
    harness = RoomHarness()
    Backend(harness).do("createRoom", idleSeconds=10)
    ticks(harness, 5000)
    harness.crash()
    harness.services.room_time.clear()

    ticks(harness, 100, 109.9)
    assert harness.room.exists
    ticks(harness, 110)

    assert not harness.room.exists


def test_created_room_stays_for_its_idle_seconds_after_the_last_session() -> None:
    harness = RoomHarness()
    Backend(harness).do("createRoom", idleSeconds=10)
    ticks(harness, 100)
    alice = harness.connected("alice")

    ticks(harness, 120, 140)
    alice.disconnect()
    ticks(harness, 141, 150.9)
    assert harness.room.exists
    ticks(harness, 151)

    assert not harness.room.exists


def test_short_session_between_two_ticks_restarts_the_idle_time() -> None:
    harness = RoomHarness()
    Backend(harness).do("createRoom", idleSeconds=10)
    ticks(harness, 100, 109)

    alice = harness.connected("alice")
    alice.disconnect()
    ticks(harness, 110, 119.9)
    assert harness.room.exists
    ticks(harness, 120)

    assert not harness.room.exists


@pytest.mark.parametrize("closed", [False, True])
def test_expired_room_is_an_ordinary_room_for_the_next_peer(closed: bool) -> None:
    """A client may come before the room has left the worker's memory."""
    harness = RoomHarness()
    backend = Backend(harness)
    backend.do("createRoom", codecs=OPUS_ONLY, limits={"peers": 1}, idleSeconds=1)

    if closed:
        backend.do("closeRoom")
    else:
        ticks(harness, 1, 3)

    for name in ("alice", "bob"):
        harness.joined(name)
    assert harness.room.limits == harness.reloaded().limits


# --- closing a room -----------------------------------------------------------------------------------------------


def test_closed_room_notifies_every_peer_once_and_closes_every_socket() -> None:
    call = CallOfThree()
    dave = call.harness.connected("dave")
    router = call.harness.room.router.id

    assert call.backend.do("closeRoom", appData="bye") == {}

    assert call.notified == {"alice": ["closed"], "bob": ["closed"], "carol": ["closed"]}
    assert call.bob.notifications_of("closed") == [{"appData": "bye"}]
    for peer in (call.alice, call.bob, call.carol, dave):
        assert peer.close_code == peer.sent[-1].close == 4000
    assert dave.notifications == []
    assert (media.Close, router) in call.ordered


def test_closed_room_leaves_only_the_numbers_of_its_sessions() -> None:
    call = CallOfThree()
    call.harness.connected("dave")

    call.backend.do("closeRoom", key="close")

    assert not call.harness.room.exists
    assert set(call.harness.fields) <= {"meta"}
    assert len(call.harness.closed_sessions) == 4
    assert snapshot(call.harness.reloaded()) == snapshot(call.harness.room)
    assert indexes(call.harness.reloaded()) == indexes(call.harness.room)
    assert call.backend.call("closeRoom", key="close") == (OK, {})
    assert call.backend.call("closeRoom") == (404, "room: no room 'room'")


def test_closed_room_may_be_entered_again_at_once() -> None:
    call = CallOfThree()
    before = call.harness.room.incarnation
    call.backend.do("closeRoom")

    again = call.harness.sending("alice")

    assert again.close_code is None
    assert again.produce(10) in call.harness.room.producers_by_number
    assert call.harness.room.incarnation != before


def test_pending_requests_of_a_closed_room_are_abandoned() -> None:
    call = CallOfThree()
    call.harness.prompt = False
    call.alice.request("createTransport", id=3, direction="send")
    call.carol.request("enableConsumer", id=call.consumer, transportId=2)

    call.backend.send(call.backend.item("closeRoom"))
    call.harness.answer()
    call.harness.answer()
    call.harness.commit()

    assert not call.harness.jobs
    assert not call.harness.room.exists
    assert [frame for frame in call.alice.frames if frame.get("response")] == []
