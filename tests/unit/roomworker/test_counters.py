"""Counters have labels from the protocol only, never from a client's text."""

import pytest

from roomworker.counters import Counters
from shared.protocol import bus, client, media
from tests.unit.roomworker.room_harness import RoomHarness


def test_message_is_counted_once_with_its_outcome() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    before = dict(harness.counters.handled)
    alice.produce(10)
    alice.ask("queryRoom")
    alice.notify("pauseProducer", id=10)
    alice.notify("pauseProducer", id=11)
    alice.notify_asking("pauseProducer", id=12)

    handled = {kind: count - before.get(kind, 0) for kind, count in harness.counters.handled.items()}
    assert {kind: count for kind, count in handled.items() if count} == {
        client.CreateProducer: 1,
        client.QueryRoom: 1,
        client.PauseProducer: 1,
    }
    assert harness.counters.rejected == {(client.PauseProducer, 404): 2}


@pytest.mark.parametrize(
    ("method", "data", "kind"),
    [
        ("mediasoup-request", b'{"method": "createTransport", "id": "one"}', client.CreateTransport),
        ("mediasoup-request", b'{"method": "salon-4711"}', None),
        ("mediasoup-request", b'{"id": 1}', None),
        ("mediasoup-request", b"[]", None),
        ("mediasoup-request", b"[" * 60, None),
        ("message", b"{}", client.Message),
        ("salon-4711", b"{}", None),
    ],
)
def test_unreadable_message_is_counted_by_its_intended_kind(method: str, data: bytes, kind: type | None) -> None:
    harness = RoomHarness()
    alice = harness.connected("alice")
    harness.receive(alice.input(method, 1, data))
    assert harness.counters.rejected == {(kind, 400): 1}


def test_input_rejected_by_the_gateway_is_counted_without_kind() -> None:
    harness = RoomHarness()
    alice = harness.connected("alice")
    harness.receive(alice.input("mediasoup-request", 1, b'{"method": "queryRoom"}'))
    n = harness.room.sessions[alice.session].n_in + 1
    harness.receive(bus.RejectedInput(harness.name, alice.session, alice.connection, n, 2, 413, "too large"))
    assert harness.counters.rejected == {(None, 413): 1}


def test_commits_and_media_requests_are_counted_by_outcome() -> None:
    counters = Counters()
    counters.count_commits(["OK", "STALE", "OK"], 0.002)
    counters.count_media_request(media.Produce, media.Produced(), 0.1)
    counters.count_media_request(media.Produce, media.Failed(503, "away"), 0.1)
    assert counters.commits == {"OK": 2, "APPLIED": 0, "STALE": 1, "FAILED": 0}
    assert (counters.commit.count, counters.rooms_committed.sum) == (1, 3)
    assert counters.media_requests == {(media.Produce, 200): 1, (media.Produce, 503): 1}
