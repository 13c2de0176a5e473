"""Spies: peers that see the others and are not seen (as the published Room has them)."""

from typing import Any

from shared.protocol import media
from tests.unit.roomworker.kit import CAPABILITIES, OPUS, World, error_of


def test_nobody_hears_of_a_spy_coming_or_going() -> None:
    world = World()
    alice = world.joined("alice")

    left, cut = world.joined("eve", spy=True, appData=1), world.joined("mallory", spy=True)
    bob = world.connected("bob")
    peers = bob.ask("join", peerName="bob", rtpCapabilities=CAPABILITIES)["data"]["peers"]
    left.notify("leave", appData=1)
    cut.disconnect()

    assert [peer["name"] for peer in peers] == ["alice"]
    assert alice.methods == ["newPeer"], "bob's"
    assert bob.notifications == []


def test_spies_see_everybody_but_spies() -> None:
    world = World()
    alice, eve = world.sending("alice"), world.joined("eve", spy=True)
    consumer = alice.produce(10)

    mallory = world.connected("mallory")
    peers = mallory.ask("join", peerName="mallory", rtpCapabilities=CAPABILITIES, spy=True)["data"]["peers"]

    assert [peer["name"] for peer in peers] == ["alice"]
    assert [told["id"] for told in eve.told("newConsumer")] == [consumer]
    assert eve.methods == ["newConsumer"]


def test_a_spy_receives_like_anybody() -> None:
    world = World()
    alice, eve = world.sending("alice"), world.joined("eve", spy=True)
    eve.ask("createTransport", id=2, direction="recv")
    bob = world.joined("bob")
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


def test_a_spy_cannot_send() -> None:
    world = World()
    alice, eve = world.joined("alice"), world.joined("eve", spy=True)
    assert eve.ask("createTransport", id=1, direction="send")["ok"]

    message: dict[str, Any] = {"id": 10, "kind": "audio", "transportId": 1, "rtpParameters": OPUS}
    answer = error_of(eve.ask("createProducer", **message))

    assert answer == (403, "peer: a spy cannot send")
    assert not [request for request in world.requests if isinstance(request, media.Produce)]
    assert alice.notifications == []


def test_a_spy_stays_one_with_the_next_worker() -> None:
    world = World()
    alice, eve = world.joined("alice"), world.joined("eve", spy=True)

    world.crash()
    eve.notify("leave")

    assert alice.notifications == []


def test_who_was_a_spy_may_come_back_as_anybody() -> None:
    world = World()
    alice, eve = world.joined("alice"), world.joined("eve", spy=True)

    eve.notify("leave")
    eve.ask("join", peerName="eve", rtpCapabilities=CAPABILITIES)

    assert alice.methods == ["newPeer"]


def test_the_last_spy_keeps_the_media_node_until_he_leaves() -> None:
    world = World()
    alice, eve = world.sending("alice"), world.joined("eve", spy=True)
    router = world.room.router.id

    alice.notify("leave")
    assert world.room.meta.placement is not None
    eve.notify("leave")

    assert world.room.meta.placement is None
    assert world.orders[-1] == media.Close(object=router, v=world.n, kind="router")
