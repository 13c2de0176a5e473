"""Spies: peers that see the others and are not seen (as in the published Room)."""

from typing import Any

from shared.protocol import media
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def test_spy_joins_and_leaves_without_notifications() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")

    left, cut = harness.joined("eve", spy=True, appData=1), harness.joined("mallory", spy=True)
    bob = harness.connected("bob")
    peers = bob.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES)["data"]["peers"]
    left.notify("leave", appData=1)
    cut.disconnect()

    assert [peer["name"] for peer in peers] == ["alice"]
    assert alice.methods == ["newPeer"], "bob's"
    assert bob.notifications == []


def test_spy_sees_every_peer_except_spies() -> None:
    harness = RoomHarness()
    alice, eve = harness.sending("alice"), harness.joined("eve", spy=True)
    consumer = alice.produce(10)

    mallory = harness.connected("mallory")
    peers = mallory.ask("join", peerName="mallory", rtpCapabilities=CAPABILITIES, spy=True)["data"]["peers"]

    assert [peer["name"] for peer in peers] == ["alice"]
    assert [announced["id"] for announced in eve.notifications_of("newConsumer")] == [consumer]
    assert eve.methods == ["newConsumer"]


def test_spy_receives_media_like_any_peer() -> None:
    harness = RoomHarness()
    alice, eve = harness.sending("alice"), harness.joined("eve", spy=True)
    eve.ask("createTransport", id=2, direction="recv")
    bob = harness.joined("bob")
    consumer = alice.produce(10)

    assert eve.enable(consumer)["ok"]
    alice.notify("pauseProducer", id=10)
    alice.notify("resumeProducer", id=10)
    alice.notify("closeProducer", id=10)
    bob.notify("leave")

    assert eve.methods == [
        "newPeer",
        "newConsumer",
        "consumerPaused",
        "consumerResumed",
        "consumerClosed",
        "peerClosed",
    ]


def test_spy_cannot_produce() -> None:
    harness = RoomHarness()
    alice, eve = harness.joined("alice"), harness.joined("eve", spy=True)
    assert eve.ask("createTransport", id=1, direction="send")["ok"]

    message: dict[str, Any] = {"id": 10, "kind": "audio", "transportId": 1, "rtpParameters": OPUS}
    answer = error_of(eve.ask("createProducer", **message))

    assert answer == (403, "peer: a spy cannot send")
    assert not [request for request in harness.requests if isinstance(request, media.Produce)]
    assert alice.notifications == []


def test_spy_is_still_a_spy_after_a_takeover() -> None:
    harness = RoomHarness()
    alice, eve = harness.joined("alice"), harness.joined("eve", spy=True)

    harness.crash()
    eve.notify("leave")

    assert alice.notifications == []


def test_former_spy_may_join_again_as_a_normal_peer() -> None:
    harness = RoomHarness()
    alice, eve = harness.joined("alice"), harness.joined("eve", spy=True)

    eve.notify("leave")
    eve.ask("join", peerName="eve", rtpCapabilities=CAPABILITIES)

    assert alice.methods == ["newPeer"]


def test_placement_is_kept_until_the_last_spy_leaves() -> None:
    harness = RoomHarness()
    alice, eve = harness.sending("alice"), harness.joined("eve", spy=True)
    router = harness.room.router.id

    alice.notify("leave")
    assert harness.room.meta.placement is not None
    eve.notify("leave")

    assert harness.room.meta.placement is None
    assert harness.orders[-1] == media.Close(object=router, v=harness.n, kind="router")
