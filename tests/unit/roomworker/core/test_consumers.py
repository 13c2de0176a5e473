"""Consumers: §enableConsumer, §pauseConsumer, §resumeConsumer, §setConsumerPreferredProfile."""

from typing import Any

import pytest

from roomworker.core import consumers
from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import AUDIO_ONLY, CAPABILITIES, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def call(harness: RoomHarness, kind: str = "video") -> tuple[Client, Client, int]:
    """A call in which alice sends and bob may receive; returns both and the consumer's id."""
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    return alice, bob, alice.produce(10, kind)


def test_enabled_consumer_gets_the_announced_parameters() -> None:
    harness = RoomHarness()
    alice, bob, consumer = call(harness)
    announced = bob.notifications_of("newConsumer")[0]["rtpParameters"]

    answer = bob.enable(consumer, preferredProfile="low")

    assert answer["data"] == {"paused": False, "preferredProfile": "low", "effectiveProfile": "default"}
    consumed = harness.requests[-1]
    assert isinstance(consumed, media.Consume)
    assert (consumed.preferred_profile, consumed.paused) == ("low", False)
    assert consumed.rtp_parameters.encodings[0].ssrc == announced["encodings"][0]["ssrc"]
    assert consumed.producer_ssrcs == harness.room.peers["alice"].producers[10].mapped_ssrcs
    assert alice.methods[-1] == "newPeer", "the sender is not notified"


def test_enable_answers_paused_for_the_producer_not_for_the_own_pause() -> None:
    harness = RoomHarness()
    alice, bob, consumer = call(harness)
    assert bob.enable(consumer, paused=True)["data"]["paused"] is False

    carol = harness.receiving("carol")
    alice.notify("pauseProducer", id=10)
    assert carol.enable(consumer)["data"]["paused"] is True


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"id": 999}, 404, "id"),
        ({"transportId": 999}, 404, "transportId"),
        ({"preferredProfile": "best"}, 400, "preferredProfile"),
        ({"paused": 1}, 400, "paused"),
    ],
)
def test_impossible_enable_is_rejected_naming_the_field(fields: dict[str, Any], code: int, field: str) -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)

    answer = error_of(bob.ask("enableConsumer", **{"id": consumer, "transportId": 2, **fields}))

    assert answer[0] == code
    assert answer[1].startswith(f"{field}: ")


def test_enabling_a_consumer_twice_is_a_conflict() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    bob.enable(consumer)

    assert error_of(bob.enable(consumer)) == (409, f"id: consumer {consumer} is enabled")


def test_peer_cannot_consume_its_own_producer() -> None:
    harness = RoomHarness()
    alice, _, consumer = call(harness)
    alice.ask("createTransport", id=2, direction="recv")

    assert error_of(alice.enable(consumer)) == (404, f"id: no consumer {consumer}")


def test_consumer_without_a_common_codec_cannot_be_enabled() -> None:
    harness = RoomHarness()
    _, _, consumer = call(harness)
    deaf = harness.receiving("deaf", AUDIO_ONLY)

    assert error_of(deaf.enable(consumer))[0] == 409


def test_pause_and_resume_by_the_receiver_act_once_without_notification() -> None:
    harness = RoomHarness()
    alice, bob, consumer = call(harness)
    bob.enable(consumer)
    alice.clear_sent()
    bob.clear_sent()

    for method in ("pauseConsumer", "pauseConsumer", "resumeConsumer", "resumeConsumer"):
        bob.notify(method, id=consumer)

    assert [type(order) for order in harness.orders] == [media.Pause, media.Resume]
    assert (alice.frames, bob.frames) == ([], [])


def test_consumer_paused_before_it_is_enabled_starts_paused() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)

    bob.notify("pauseConsumer", id=consumer)
    bob.notify("setConsumerPreferredProfile", id=consumer, profile="high")
    assert harness.orders == []
    bob.enable(consumer)

    consumed = harness.requests[-1]
    assert isinstance(consumed, media.Consume)
    assert (consumed.paused, consumed.preferred_profile) == (True, "high")


def test_preferred_profile_is_ordered_once() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    bob.enable(consumer)
    engine = harness.room.peers["bob"].consumers[consumer].engine

    for profile in ("low", "low", "default"):
        bob.notify("setConsumerPreferredProfile", id=consumer, profile=profile)

    ordered = [(o.object, o.profile) for o in harness.orders if isinstance(o, media.SetPreferredProfile)]
    assert ordered == [(engine, "low"), (engine, "default")]
    assert "consumerPreferredProfileSet" not in bob.methods


def test_consumer_whose_producer_closes_during_enable_is_released() -> None:
    harness = RoomHarness()
    alice, bob, consumer = call(harness)
    harness.prompt = False
    id_ = bob.request("enableConsumer", id=consumer, transportId=2)
    alice.notify("closeProducer", id=10)
    alice.disconnect()

    consumed = harness.answer()
    harness.commit()

    assert isinstance(consumed, media.Consume)
    assert error_of(bob.answers(id_)[0])[0] == 404
    assert consumed.consumer in [order.object for order in harness.orders]
    assert harness.room.peers["bob"].consumers == {}


def test_untouched_consumers_are_not_stored() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)

    assert not [name for name in harness.fields if name.startswith("consumer|")]
    bob.notify("resumeConsumer", id=consumer)
    assert not [name for name in harness.fields if name.startswith("consumer|")]


def test_consumer_has_the_same_id_and_ssrc_for_every_receiver() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    carol = harness.connected("carol")

    alice, _ = carol.ask("join", peerName="carol", rtpCapabilities=CAPABILITIES)["data"]["peers"]

    (described,), (announced,) = alice["consumers"], bob.notifications_of("newConsumer")
    assert described["id"] == announced["id"] == consumer
    assert described["rtpParameters"] == announced["rtpParameters"]


def test_consumer_resumed_by_the_server_during_enable_is_not_paused() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    backend = Backend(harness)
    backend.do("pauseConsumer", peer="bob", id=consumer)
    harness.prompt = False
    bob.request("enableConsumer", id=consumer, transportId=2)

    backend.send(backend.item("resumeConsumer", peer="bob", id=consumer))
    asked = harness.answer()
    harness.commit()

    assert isinstance(asked, media.Consume)
    assert asked.paused
    assert [(type(order), order.object) for order in harness.orders] == [(media.Resume, asked.consumer)]


def test_consumer_paused_by_the_server_during_enable_is_paused() -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    backend = Backend(harness)
    harness.prompt = False
    id_ = bob.request("enableConsumer", id=consumer, transportId=2)

    backend.send(backend.item("pauseConsumer", peer="bob", id=consumer))
    asked = harness.answer()
    harness.commit()

    assert isinstance(asked, media.Consume)
    assert [(type(order), order.object) for order in harness.orders] == [(media.Pause, asked.consumer)]
    assert bob.answers(id_)[0]["data"]["paused"] is True


@pytest.mark.parametrize("wish", [{}, {"preferredProfile": "high"}])
def test_profile_set_by_the_server_during_enable_wins(wish: dict[str, str]) -> None:
    harness = RoomHarness()
    _, bob, consumer = call(harness)
    backend = Backend(harness)
    harness.prompt = False
    id_ = bob.request("enableConsumer", id=consumer, transportId=2, **wish)

    backend.send(backend.item("setConsumerProfile", peer="bob", id=consumer, profile="low"))
    asked = harness.answer()
    harness.commit()

    assert isinstance(asked, media.Consume)
    assert asked.preferred_profile != "low"
    assert bob.answers(id_)[0]["data"]["preferredProfile"] == "low"
    assert harness.orders == [media.SetPreferredProfile(object=asked.consumer, v=harness.n, profile="low")]
    assert harness.room.peers["bob"].consumers[consumer].preferred_profile == "low"


def test_parameters_kept_for_consumers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given receivers none of which has the capabilities of another."""
    monkeypatch.setattr(consumers, "PARAMETERS_KEPT", 5)
    harness = RoomHarness()
    alice = harness.sending("alice")
    alice.produce(10)
    for n in range(20):
        codecs = [{**CAPABILITIES["codecs"][0], "rtcpFeedback": [{"type": f"own {n}"}]}]
        harness.joined(f"peer{n}", {"codecs": codecs, "headerExtensions": []})

    assert len(harness.room.consumer_parameters) == 5
