"""§join, §leave, §queryRoom and their notifications."""

import pytest

from tests.unit.roomworker.payloads import AUDIO_ONLY, CAPABILITIES, NO_CODECS, VP8, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def test_query_room_needs_no_join() -> None:
    alice = RoomHarness().connected("alice")

    assert alice.ask("queryRoom")["data"] == {"rtpCapabilities": CAPABILITIES, "mandatoryCodecPayloadTypes": []}


def test_the_first_to_join_finds_nobody() -> None:
    alice = RoomHarness().connected("alice")

    assert alice.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["data"] == {"peers": []}


def test_others_hear_of_a_new_peer_and_he_of_them_in_order_of_arrival() -> None:
    harness = RoomHarness()
    bob = harness.joined("bob", appData={"age": 7})
    alice = harness.joined("alice")

    carol = harness.connected("carol")
    peers = carol.ask("join", peerName="carol", rtpCapabilities=NO_CODECS, appData=[1])["data"]["peers"]

    assert peers == [{"name": "bob", "consumers": [], "appData": {"age": 7}}, {"name": "alice", "consumers": []}]
    for other in (alice, bob):
        assert other.notifications_of("newPeer")[-1] == {"name": "carol", "consumers": [], "appData": [1]}
    assert carol.notifications == []


def test_joining_describes_what_others_send_with_the_truth_about_pauses() -> None:
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


def test_a_peer_without_the_codec_is_told_of_a_consumer_it_cannot_enable() -> None:
    harness = RoomHarness()
    harness.sending("alice").produce(11, "video")

    bob = harness.connected("bob")
    (peer,) = bob.ask("join", peerName="bob", rtpCapabilities=AUDIO_ONLY)["data"]["peers"]

    assert peer["consumers"][0]["rtpParameters"]["codecs"] == []


def test_joining_under_another_name_than_the_connections_is_forbidden() -> None:
    alice = RoomHarness().connected("alice")

    code, reason = error_of(alice.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES))

    assert code == 403
    assert reason.startswith("peerName: ")


def test_joining_twice_is_a_conflict_and_nobody_hears_of_it() -> None:
    harness = RoomHarness()
    alice, bob = harness.joined("alice"), harness.joined("bob")
    alice.clear_sent()

    assert error_of(bob.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES))[0] == 409
    assert alice.frames == []


def test_capabilities_that_are_not_the_rooms_are_refused() -> None:
    alice = RoomHarness().connected("alice")
    codec = {**CAPABILITIES["codecs"][0], "preferredPayloadType": 77}

    code, reason = error_of(alice.ask("join", peerName="alice", rtpCapabilities={"codecs": [codec]}))

    assert code == 400
    assert reason.startswith("rtpCapabilities.codecs[0].preferredPayloadType")


def test_leaving_tells_the_others_with_the_leavers_app_data_and_no_object_by_object() -> None:
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


def test_who_left_may_join_again_on_the_same_connection_with_new_engine_objects() -> None:
    harness = RoomHarness()
    harness.joined("bob")
    alice = harness.sending("alice")
    before = harness.room.peers["alice"].transports[1].engine

    alice.notify("leave")
    assert alice.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]
    alice.ask("createTransport", id=1, direction="send")

    assert harness.room.peers["alice"].transports[1].engine != before


@pytest.mark.parametrize("method", ["createTransport", "createProducer", "enableConsumer", "restartTransport"])
def test_before_joining_there_is_nothing_to_do_but_join(method: str) -> None:
    alice = RoomHarness().connected("alice")
    fields = {
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
