"""What clients ask is counted by method and outcome, and by nothing that a client could make up."""

import pytest

from roomworker.counters import Counts
from shared.protocol import bus, client, media
from tests.unit.roomworker.kit import World


def test_each_message_is_counted_once_with_its_outcome() -> None:
    world = World()
    alice = world.sending("alice")
    before = dict(world.counts.handled)
    alice.produce(10)
    alice.ask("queryRoom")
    alice.notify("pauseProducer", id=10)
    alice.notify("pauseProducer", id=11)
    alice.notify_asking("pauseProducer", id=12)

    handled = {kind: count - before.get(kind, 0) for kind, count in world.counts.handled.items()}
    assert {kind: count for kind, count in handled.items() if count} == {
        client.CreateProducer: 1,
        client.QueryRoom: 1,
        client.PauseProducer: 1,
    }
    assert world.counts.refused == {(client.PauseProducer, 404): 2}


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
def test_what_cannot_be_read_is_counted_as_what_it_was_to_be(method: str, data: bytes, kind: type | None) -> None:
    world = World()
    alice = world.connected("alice")
    world.receive(alice.input(method, 1, data))
    assert world.counts.refused == {(kind, 400): 1}


def test_what_the_gateway_refused_is_of_no_kind() -> None:
    world = World()
    alice = world.connected("alice")
    world.receive(alice.input("mediasoup-request", 1, b'{"method": "queryRoom"}'))
    n = world.room.sessions[alice.session].n_in + 1
    world.receive(bus.RejectedInput(world.name, alice.session, alice.connection, n, 2, 413, "too large"))
    assert world.counts.refused == {(None, 413): 1}


def test_commits_and_media_requests_are_counted_by_outcome() -> None:
    counts = Counts()
    counts.committed(["OK", "STALE", "OK"], 0.002)
    counts.answered(media.Produce, media.Produced(), 0.1)
    counts.answered(media.Produce, media.Failed(503, "away"), 0.1)
    assert counts.commits == {"OK": 2, "APPLIED": 0, "STALE": 1}
    assert (counts.commit.count, counts.rooms_committed.sum) == (1, 3)
    assert counts.asked == {(media.Produce, 200): 1, (media.Produce, 503): 1}
