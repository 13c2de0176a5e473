"""Peers: §join, §leave, §queryRoom and their notifications."""

from typing import Any

import pytest

from tests.unit.roomworker.payloads import AUDIO_ONLY, CAPABILITIES, NO_CODECS, VP8, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def test_query_room_needs_no_join() -> None:
    alice = RoomHarness().connected("alice")

    assert alice.ask("queryRoom")["data"] == {"rtpCapabilities": CAPABILITIES, "mandatoryCodecPayloadTypes": []}


def test_first_peer_to_join_gets_no_peers() -> None:
    alice = RoomHarness().connected("alice")

    assert alice.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["data"] == {"peers": []}


def test_joining_peer_is_announced_and_gets_others_in_order_of_arrival() -> None:
    harness = RoomHarness()
    bob = harness.joined("bob", appData={"age": 7})
    alice = harness.joined("alice")

    carol = harness.connected("carol")
    peers = carol.ask("join", peerName="carol", rtpCapabilities=NO_CODECS, appData=[1])["data"]["peers"]

    assert peers == [{"name": "bob", "consumers": [], "appData": {"age": 7}}, {"name": "alice", "consumers": []}]
    for other in (alice, bob):
        assert other.notifications_of("newPeer")[-1] == {"name": "carol", "consumers": [], "appData": [1]}
    assert carol.notifications == []


def test_join_answer_describes_producers_with_their_pauses() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    audio = alice.produce(10, appData="mine")
    video = alice.produce(11, "video", paused=True)

    bob = harness.connected("bob")
    (peer,) = bob.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES)["data"]["peers"]

    first, second = peer["consumers"]
    assert first == {
        "id": audio,
        "kind": "audio",
        "rtpParameters": first["rtpParameters"],
        "paused": False,
        "peerName": "alice",
        "preferredProfile": "default",
        "effectiveProfile": None,
        "appData": "mine",
    }
    assert (second["id"], second["kind"], second["paused"]) == (video, "video", True)
    assert "appData" not in second
    assert [codec["name"] for codec in first["rtpParameters"]["codecs"]] == ["opus"]


def test_peer_without_the_codec_gets_a_consumer_that_cannot_be_enabled() -> None:
    harness = RoomHarness()
    harness.sending("alice").produce(11, "video")

    bob = harness.connected("bob")
    (peer,) = bob.ask("join", peerName="bob", rtpCapabilities=AUDIO_ONLY)["data"]["peers"]

    assert peer["consumers"][0]["rtpParameters"]["codecs"] == []


def test_join_under_another_name_than_the_connections_is_forbidden() -> None:
    alice = RoomHarness().connected("alice")

    code, reason = error_of(alice.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES))

    assert code == 403
    assert reason.startswith("peerName: ")


def test_second_join_is_a_conflict_without_notification() -> None:
    harness = RoomHarness()
    alice, bob = harness.joined("alice"), harness.joined("bob")
    alice.clear_sent()

    assert error_of(bob.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES))[0] == 409
    assert alice.frames == []


def test_join_with_capabilities_that_are_not_the_rooms_is_rejected() -> None:
    alice = RoomHarness().connected("alice")
    codec = {**CAPABILITIES["codecs"][0], "preferredPayloadType": 77}

    code, reason = error_of(alice.ask("join", peerName="alice", rtpCapabilities={"codecs": [codec]}))

    assert code == 400
    assert reason.startswith("rtpCapabilities.codecs[0].preferredPayloadType")


def test_leaving_peer_sends_the_others_one_notification_with_its_app_data() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    bob.enable(alice.produce())
    bob.clear_sent()

    alice.notify("leave", appData={"why": "tea"})

    assert bob.notifications == [
        {
            "method": "peerClosed",
            "target": "peer",
            "notification": True,
            "name": "alice",
            "appData": {"why": "tea"},
        }
    ]
    assert "closed" not in alice.methods
    assert harness.room.peers["bob"].consumers == {}


def test_peer_that_left_may_join_again_and_gets_new_engine_ids() -> None:
    harness = RoomHarness()
    harness.joined("bob")
    alice = harness.sending("alice")
    before = harness.room.peers["alice"].transports[1].engine

    alice.notify("leave")
    assert alice.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]
    alice.ask("createTransport", id=1, direction="send")

    assert harness.room.peers["alice"].transports[1].engine != before


@pytest.mark.parametrize("method", ["createTransport", "createProducer", "enableConsumer", "restartTransport"])
def test_request_before_joining_is_a_conflict(method: str) -> None:
    alice = RoomHarness().connected("alice")
    fields: dict[str, dict[str, Any]] = {
        "createTransport": {"id": 1, "direction": "send"},
        "createProducer": {"id": 1, "kind": "video", "transportId": 1, "rtpParameters": VP8},
        "enableConsumer": {"id": 1, "transportId": 1},
        "restartTransport": {"id": 1},
    }

    assert error_of(alice.ask(method, **fields[method])) == (409, "peer: join first")


def test_receivers_with_equal_capabilities_share_one_message() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    for name in ("bob", "carol", "dave"):
        harness.joined(name, AUDIO_ONLY if name == "dave" else CAPABILITIES)
    bodies: list[int] = []
    harness.observers.append(
        lambda changes: bodies.extend(len(m.to) for m in changes.messages if b"newConsumer" in m.body)
    )

    alice.produce(11, "video")

    assert sorted(bodies) == [1, 2]
