"""§createProducer, §pauseProducer, §resumeProducer, §closeProducer."""

from typing import Any

import pytest

from shared.protocol import media
from tests.unit.roomworker.kit import OPUS, VP8, World, error_of


def test_producing_tells_everybody_else_of_a_new_consumer() -> None:
    world = World()
    bob, alice = world.joined("bob"), world.sending("alice")

    consumer = alice.produce(10, appData={"source": "mic"})

    (told,) = bob.told("newConsumer")
    assert told == {
        "id": consumer,
        "kind": "audio",
        "peerName": "alice",
        "rtpParameters": told["rtpParameters"],
        "paused": False,
        "preferredProfile": "default",
        "effectiveProfile": None,
        "appData": {"source": "mic"},
    }
    assert alice.told("newConsumer") == []


def test_a_producer_paused_from_the_start_makes_paused_consumers() -> None:
    world = World()
    bob, alice = world.joined("bob"), world.sending("alice")

    alice.produce(10, paused=True)

    assert bob.told("newConsumer")[0]["paused"] is True
    produced = world.requests[-1]
    assert isinstance(produced, media.Produce)
    assert produced.paused


def test_the_node_gets_encodings_from_low_to_high_with_an_ssrc_each() -> None:
    world = World()
    world.sending("alice").produce(11, "video")

    produced = world.requests[-1]
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
def test_what_cannot_be_produced_is_refused_with_its_field_and_nobody_hears(
    change: dict[str, Any], code: int, field: str
) -> None:
    world = World()
    bob, alice = world.joined("bob"), world.sending("alice")
    alice.ask("createTransport", id=2, direction="recv")
    alice.produce(10)
    bob.hush()

    message = {"id": 11, "kind": "audio", "transportId": 1, "rtpParameters": OPUS, **change}
    answer = error_of(alice.ask("createProducer", **message))

    assert answer[0] == code
    assert answer[1].startswith(field)
    assert bob.frames == []
    assert list(world.room.peers["alice"].producers) == [10]


def test_pausing_and_resuming_tells_those_who_have_it_enabled_once_each() -> None:
    world = World()
    alice, bob, carol = world.sending("alice"), world.receiving("bob"), world.receiving("carol")
    consumer = alice.produce(10)
    engine = world.room.peers["alice"].producers[10].engine
    bob.enable(consumer)

    for method in ("pauseProducer", "pauseProducer", "resumeProducer", "resumeProducer"):
        alice.notify(method, id=10)

    assert bob.told("consumerPaused") == bob.told("consumerResumed") == [{"id": consumer, "peerName": "alice"}]
    assert {"consumerPaused", "consumerResumed"}.isdisjoint({*carol.methods, *alice.methods})
    assert [type(order) for order in world.orders] == [media.Pause, media.Resume]
    assert {order.object for order in world.orders} == {engine}


def test_who_paused_the_consumer_himself_is_still_told_of_the_source() -> None:
    """As the published Consumer: only what the server paused is not told."""
    world = World()
    alice, bob = world.sending("alice"), world.receiving("bob")
    consumer = alice.produce(10)
    bob.enable(consumer, paused=True)

    alice.notify("pauseProducer", id=10)

    assert bob.methods[-1] == "consumerPaused"


def test_closing_tells_everybody_else_enabled_or_not() -> None:
    world = World()
    alice, bob, carol = world.sending("alice"), world.receiving("bob"), world.receiving("carol")
    consumer = alice.produce(10)
    engine = world.room.peers["alice"].producers[10].engine
    bob.enable(consumer)

    alice.notify("closeProducer", id=10)

    for other in (bob, carol):
        assert other.told("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    assert "producerClosed" not in alice.methods
    assert world.orders == [media.Close(object=engine, v=world.n, kind="producer")]
    assert world.room.peers["bob"].consumers == {}
    assert world.room.sources == {}


def test_an_id_may_be_used_again_for_another_producer_with_other_consumers() -> None:
    world = World()
    alice = world.sending("alice")
    first = alice.produce(10)
    alice.notify("closeProducer", id=10)

    assert alice.produce(10) != first
    engines = [request.producer for request in world.requests if isinstance(request, media.Produce)]
    assert len(set(engines)) == 2


def test_closing_an_unknown_producer_is_ignored_and_pausing_one_changes_nothing() -> None:
    world = World()
    alice = world.sending("alice")
    before = world.fields["peer|alice"]

    alice.notify("closeProducer", id=77)
    alice.notify("pauseProducer", id=77)

    assert world.fields["peer|alice"] == before
    assert world.orders == []


def test_a_producer_whose_transport_closes_meanwhile_is_not_made() -> None:
    world = World()
    alice, bob = world.sending("alice"), world.joined("bob")
    bob.hush()
    world.prompt = False
    id_ = alice.request("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
    router = world.room.router.id

    world.event(media.RouterClosed(router, "died"))
    produced = world.answer()
    world.commit()

    assert isinstance(produced, media.Produce)
    assert error_of(alice.answers(id_)[0])[0] == 503
    assert bob.frames == []
    assert alice.told("transportClosed") == [{"id": 1}]
