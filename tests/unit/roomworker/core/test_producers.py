"""Producers: §createProducer, §updateProducer, §pauseProducer, §resumeProducer, §closeProducer."""

from typing import Any

import pytest
from msgspec import UNSET

from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, VP8, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import snapshot


def test_new_producer_notifies_all_other_peers_of_a_consumer() -> None:
    harness = RoomHarness()
    bob, alice = harness.joined("bob"), harness.sending("alice")

    consumer = alice.produce(10, appData={"source": "mic"})

    (announced,) = bob.notifications_of("newConsumer")
    assert announced == {
        "id": consumer,
        "kind": "audio",
        "peerName": "alice",
        "rtpParameters": announced["rtpParameters"],
        "paused": False,
        "preferredProfile": "default",
        "effectiveProfile": None,
        "appData": {"source": "mic"},
    }
    assert alice.notifications_of("newConsumer") == []


def test_producer_created_paused_has_paused_consumers() -> None:
    harness = RoomHarness()
    bob, alice = harness.joined("bob"), harness.sending("alice")

    alice.produce(10, paused=True)

    assert bob.notifications_of("newConsumer")[0]["paused"] is True
    produced = harness.requests[-1]
    assert isinstance(produced, media.Produce)
    assert produced.paused


def test_node_gets_encodings_from_low_to_high_with_an_ssrc_each() -> None:
    harness = RoomHarness()
    harness.sending("alice").produce(11, "video")

    produced = harness.requests[-1]
    assert isinstance(produced, media.Produce)
    assert [encoding.profile for encoding in produced.rtp_parameters.encodings] == ["low", "high"]
    assert len(set(produced.mapped_ssrcs)) == 2


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"transportId": 9}, 404, "transportId"),
        ({"transportId": 2}, 409, "transportId"),
        ({"rtpParameters": {"codecs": []}}, 400, "rtpParameters.codecs"),
        ({"rtpParameters": VP8}, 400, "rtpParameters.codecs[0]"),
        ({"rtpParameters": {**OPUS, "encodings": []}}, 400, "rtpParameters.encodings"),
        ({"kind": "smell"}, 400, "kind"),
        ({"id": 10}, 409, "id"),
        ({"id": "x"}, 400, "id"),
    ],
)
def test_impossible_producer_is_rejected_naming_the_field_without_notice(
    change: dict[str, Any], code: int, field: str
) -> None:
    harness = RoomHarness()
    bob, alice = harness.joined("bob"), harness.sending("alice")
    alice.ask("createTransport", id=2, direction="recv")
    alice.produce(10)
    bob.clear_sent()

    message = {"id": 11, "kind": "audio", "transportId": 1, "rtpParameters": OPUS, **change}
    answer = error_of(alice.ask("createProducer", **message))

    assert answer[0] == code
    assert answer[1].startswith(field)
    assert bob.frames == []
    assert list(harness.room.peers["alice"].producers) == [10]


def test_paused_and_resumed_producer_notifies_enabled_receivers_once() -> None:
    harness = RoomHarness()
    alice, bob, carol = harness.sending("alice"), harness.receiving("bob"), harness.receiving("carol")
    consumer = alice.produce(10)
    engine = harness.room.peers["alice"].producers[10].engine
    bob.enable(consumer)

    for method in ("pauseProducer", "pauseProducer", "resumeProducer", "resumeProducer"):
        alice.notify(method, id=10)

    assert (
        bob.notifications_of("consumerPaused")
        == bob.notifications_of("consumerResumed")
        == [{"id": consumer, "peerName": "alice"}]
    )
    assert {"consumerPaused", "consumerResumed"}.isdisjoint({*carol.methods, *alice.methods})
    assert [type(order) for order in harness.orders] == [media.Pause, media.Resume]
    assert {order.object for order in harness.orders} == {engine}


def test_receiver_that_paused_its_consumer_is_told_of_the_producers_pause() -> None:
    """Only receivers whose consumer the server paused are not told (as in the published Consumer)."""
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    consumer = alice.produce(10)
    bob.enable(consumer, paused=True)

    alice.notify("pauseProducer", id=10)

    assert bob.methods[-1] == "consumerPaused"


def test_closed_producer_notifies_all_other_peers_enabled_or_not() -> None:
    harness = RoomHarness()
    alice, bob, carol = harness.sending("alice"), harness.receiving("bob"), harness.receiving("carol")
    consumer = alice.produce(10)
    engine = harness.room.peers["alice"].producers[10].engine
    bob.enable(consumer)

    alice.notify("closeProducer", id=10)

    for other in (bob, carol):
        assert other.notifications_of("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    assert "producerClosed" not in alice.methods
    assert harness.orders == [media.Close(object=engine, v=harness.n, kind="producer")]
    assert harness.room.peers["bob"].consumers == {}
    assert harness.room.producers_by_number == {}


def test_producer_id_may_be_used_again_and_gets_other_consumers() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    first = alice.produce(10)
    alice.notify("closeProducer", id=10)

    assert alice.produce(10) != first
    engines = [request.producer for request in harness.requests if isinstance(request, media.Produce)]
    assert len(set(engines)) == 2


def test_unknown_producer_is_ignored_when_closed_and_when_paused() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    before = harness.fields["peer|alice"]

    alice.notify("closeProducer", id=77)
    alice.notify("pauseProducer", id=77)

    assert harness.fields["peer|alice"] == before
    assert harness.orders == []


def test_producer_whose_transport_closes_meanwhile_is_not_created() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.joined("bob")
    bob.clear_sent()
    harness.prompt = False
    id_ = alice.request("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
    router = harness.room.router.id

    harness.event(media.RouterClosed(router, "died"))
    produced = harness.answer()
    harness.commit()

    assert isinstance(produced, media.Produce)
    assert error_of(alice.answers(id_)[0])[0] == 503
    assert bob.frames == []
    assert alice.notifications_of("transportClosed") == [{"id": 1}]


# --- updateProducer -----------------------------------------------------------------------------------------------

AGAIN = {**OPUS, "encodings": [{"ssrc": 2222}]}
MUXED = {**OPUS, "muxId": "0"}


def updates(harness: RoomHarness) -> list[media.UpdateProducer]:
    return [request for request in harness.requests if isinstance(request, media.UpdateProducer)]


def produced(harness: RoomHarness) -> list[media.Produce]:
    return [request for request in harness.requests if isinstance(request, media.Produce)]


def test_updated_producer_gets_new_ssrcs_in_place_without_notification() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    bob.enable(alice.produce(10))
    before = harness.room.peers["alice"].producers[10].engine
    alice.clear_sent()
    bob.clear_sent()

    alice.notify("updateProducer", id=10, rtpParameters=AGAIN)
    alice.notify("updateProducer", id=10, rtpParameters=OPUS)

    assert produced(harness)[0].updatable
    assert [(update.producer, update.generation) for update in updates(harness)] == [(before, 1), (before, 2)]
    assert [update.rtp_parameters.encodings[0].ssrc for update in updates(harness)] == [2222, 1111]
    assert (alice.frames, bob.frames, harness.orders) == ([], [], [])


def test_producer_update_that_is_redone_has_the_same_generation() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    alice.produce(10)
    harness.prompt = False
    alice.notify("updateProducer", id=10, rtpParameters=AGAIN)

    harness.crash()
    harness.answer()
    harness.commit()

    first, again = updates(harness)
    assert first == again
    assert harness.reloaded().peers["alice"].producers[10].rtp_parameters.encodings[0].ssrc == 2222


def test_producer_update_after_a_failed_one_has_a_new_generation() -> None:
    """The node may have applied the update, and would answer the same generation without effect."""
    harness = RoomHarness()
    alice = harness.sending("alice")
    alice.produce(10)
    harness.prompt = False

    alice.notify("updateProducer", id=10, rtpParameters=AGAIN)
    harness.fail()
    harness.commit()
    alice.notify("updateProducer", id=10, rtpParameters=AGAIN)
    harness.answer()
    harness.commit()

    assert [update.generation for update in updates(harness)] == [1, 2]
    assert harness.room.peers["alice"].producers[10].rtp_parameters.encodings[0].ssrc == 2222


@pytest.mark.parametrize(
    ("kind", "first", "then"),
    [
        ("audio", MUXED, {**MUXED, "encodings": [{"ssrc": 2222}]}),
        ("video", VP8, {**VP8, "encodings": [{"ssrc": 3001, "profile": "high"}, {"ssrc": 3002, "profile": "low"}]}),
    ],
    ids=["muxId", "simulcast"],
)
def test_producer_not_updatable_in_place_is_replaced_under_the_same_id(
    kind: str, first: dict[str, Any], then: dict[str, Any]
) -> None:
    harness = RoomHarness()
    alice, bob, carol = harness.sending("alice"), harness.receiving("bob"), harness.receiving("carol")
    old = alice.produce(10, kind, rtpParameters=first, paused=True, appData={"source": "mic"})
    bob.enable(old)
    engine = harness.room.peers["alice"].producers[10].engine
    for peer in (alice, bob, carol):
        peer.clear_sent()

    alice.notify("updateProducer", id=10, rtpParameters=then)

    updated = harness.room.peers["alice"].producers[10]
    assert updates(harness) == []
    assert alice.frames == []
    for other in (bob, carol):
        assert other.methods == ["consumerClosed", "newConsumer"]
        assert other.notifications_of("consumerClosed") == [{"id": old, "peerName": "alice"}]
        (announced,) = other.notifications_of("newConsumer")
        assert (announced["id"], announced["paused"], announced["appData"]) == (
            updated.number,
            True,
            {"source": "mic"},
        )
    assert updated.number != old
    assert produced(harness)[-1].paused
    assert produced(harness)[-1].producer == updated.engine != engine, "closing one must not close the other"
    assert harness.orders == [media.Close(object=engine, v=harness.n, kind="producer")]
    assert bob.enable(updated.number)["ok"]
    assert snapshot(harness.reloaded()) == snapshot(harness.room)


def test_replacement_of_a_producer_is_sent_to_the_node_without_mux_id() -> None:
    """The engine has both for a moment, and accepts a muxId once per transport."""
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.joined("bob")
    alice.produce(10, rtpParameters=MUXED)
    bob.clear_sent()

    alice.notify("updateProducer", id=10, rtpParameters={**MUXED, "encodings": [{"ssrc": 2222}]})
    assert [request.rtp_parameters.mux_id for request in produced(harness)] == ["0", UNSET]
    assert bob.methods == ["consumerClosed", "newConsumer"]

    alice.notify("updateProducer", id=10, rtpParameters={**MUXED, "encodings": [{"ssrc": 3333}]})
    assert [update.producer for update in updates(harness)] == [produced(harness)[1].producer]
    assert len(bob.methods) == 2, "further updates are applied in place"


def test_mux_id_in_a_producer_update_changes_nothing() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.joined("bob")
    alice.produce(10)
    bob.clear_sent()

    alice.notify("updateProducer", id=10, rtpParameters={**MUXED, "encodings": [{"ssrc": 2222}]})

    assert len(updates(harness)) == 1
    assert bob.frames == []


def test_peer_joining_after_an_update_gets_what_a_takeover_would_send() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    alice.produce(10)
    assert bob.notifications_of("newConsumer")

    alice.notify("updateProducer", id=10, rtpParameters={**AGAIN, "rtcp": {"cname": "another"}})
    described = []
    for name in ("carol", "dave"):
        joined = harness.connected(name).ask("join", peerName=name, rtpCapabilities=CAPABILITIES)
        described.append(joined["data"]["peers"][0]["consumers"])
        harness.crash()

    assert described[0] == described[1]


def test_replacement_of_a_producer_has_the_same_engine_id_after_a_crash() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    alice.produce(10, rtpParameters=MUXED)
    harness.prompt = False
    alice.notify("updateProducer", id=10, rtpParameters=MUXED)

    harness.crash()

    assert produced(harness)[-1] == produced(harness)[-2]


def test_producer_paused_by_the_server_during_an_update_stays_paused() -> None:
    harness = RoomHarness()
    alice, bob, backend = harness.sending("alice"), harness.receiving("bob"), Backend(harness)
    alice.produce(10, rtpParameters=MUXED)
    harness.prompt = False
    alice.notify("updateProducer", id=10, rtpParameters=MUXED)
    backend.send(backend.item("pauseProducer", peer="alice", id=10))
    bob.clear_sent()

    harness.answer()
    harness.commit()

    updated = harness.room.peers["alice"].producers[10]
    assert updated.locally_paused
    assert bob.notifications_of("newConsumer")[0]["paused"] is True
    assert [order.object for order in harness.orders if isinstance(order, media.Pause)][-1] == updated.engine


@pytest.mark.parametrize("parameters", [OPUS, MUXED])
def test_producer_closed_by_the_server_during_an_update_stays_closed(parameters: dict[str, Any]) -> None:
    harness = RoomHarness()
    alice, bob, backend = harness.sending("alice"), harness.receiving("bob"), Backend(harness)
    alice.produce(10, rtpParameters=parameters)
    harness.prompt = False
    alice.notify("updateProducer", id=10, rtpParameters=AGAIN)
    backend.send(backend.item("closeProducer", peer="alice", id=10))
    harness.commit()
    bob.clear_sent()

    asked = harness.answer()
    harness.commit()

    assert isinstance(asked, media.UpdateProducer | media.Produce)
    assert bob.frames == []
    assert harness.reloaded().peers["alice"].producers == {}
    assert asked.producer in [order.object for order in harness.orders]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"id": 11}, 404, "id"),
        ({"rtpParameters": VP8}, 400, "rtpParameters.codecs[0]"),
        ({"rtpParameters": {**OPUS, "encodings": []}}, 400, "rtpParameters.encodings"),
        (
            {"rtpParameters": {**OPUS, "codecs": [{**OPUS["codecs"][0], "payloadType": 99}]}},
            400,
            "rtpParameters.codecs",
        ),
    ],
)
def test_invalid_producer_update_is_rejected_naming_the_field(fields: dict[str, Any], code: int, field: str) -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.joined("bob")
    alice.produce(10)
    before = snapshot(harness.room)
    bob.clear_sent()

    message = {"id": 10, "rtpParameters": AGAIN, **fields}
    answer = error_of(alice.notify_asking("updateProducer", **message))

    assert answer[0] == code
    assert answer[1].startswith(field)
    assert bob.frames == []
    assert {**snapshot(harness.room), "session|alice": 0} == {**before, "session|alice": 0}
