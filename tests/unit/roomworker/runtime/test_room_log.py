"""The log has lines about rooms and peers, and one about each request."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from shared.protocol import media
from shared.telemetry import log
from tests.unit.roomworker.fake_worker import FakeWorker
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS
from tests.unit.roomworker.room_harness import NODE, RoomHarness

Line = dict[str, Any]


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    """All that is logged, at every level."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured  # type: ignore[misc]
    structlog.configure(**before)


def events(lines: list[Line], *keys: str) -> list[tuple[Any, ...]]:
    """The event and these keys of each line above debug, since the last call."""
    found = [(line["event"], *(line.get(key) for key in keys)) for line in lines if line["log_level"] != "debug"]
    lines.clear()
    return found


def leave(client: Client) -> None:
    client.disconnect()


def test_call_is_logged_from_its_first_peer_to_its_last(lines: list[Line]) -> None:
    harness = RoomHarness("salon")
    alice = harness.joined("alice")
    assert events(lines, "room", "peer", "session") == [
        ("room.started", "salon", None, None),
        ("peer.joined", "salon", "alice", alice.session),
    ]
    bob = harness.joined("bob")
    assert events(lines, "peer") == [("peer.joined", "bob")]

    assert alice.ask("createTransport", id=1, direction="send", dtlsParameters=DTLS)["ok"]
    assert events(lines, "room", "node") == [("room.placed", "salon", NODE)]

    leave(bob)
    assert events(lines, "peer", "session") == [("peer.left", "bob", bob.session)]
    leave(alice)
    assert events(lines, "peer", "room") == [("peer.left", "alice", "salon"), ("room.ended", None, "salon")]


def test_peer_that_connects_again_is_logged_as_left_and_joined(lines: list[Line]) -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    lines.clear()
    again = harness.joined("alice")
    assert events(lines, "peer", "session") == [
        ("peer.left", "alice", alice.session),
        ("peer.joined", "alice", again.session),
    ]


def test_uncommitted_changes_are_not_logged(lines: list[Line]) -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.connected("alice")
    alice.request("join", peerName="alice", rtpCapabilities=CAPABILITIES)
    harness.take()
    harness.store()
    harness.crash()
    assert events(lines) == []


def test_successor_logs_its_takeover_and_no_event_twice(lines: list[Line]) -> None:
    harness = RoomHarness("salon")
    harness.joined("alice")
    lines.clear()
    successor = FakeWorker(harness.memory)
    successor.actor("salon").announce()
    successor.actor("nowhere").announce()
    successor.work()
    assert events(lines, "room", "sessions", "peers") == [("room.taken_over", "salon", 1, 1)]


def test_each_request_is_logged_at_debug_with_its_outcome(lines: list[Line]) -> None:
    harness = RoomHarness("salon")
    alice = harness.joined("alice")
    lines.clear()
    alice.ask("createTransport", id=1, direction="send")
    alice.notify("closeTransport", id=7)

    handled = [line for line in lines if line["event"] == "request.handled"]

    assert [(line["method"], line["code"], line.get("reason")) for line in handled] == [
        ("createTransport", 200, None),
        ("closeTransport", 404, "id: no transport 7"),
    ]
    assert {(line["log_level"], line["room"], line["peer"], line["session"]) for line in handled} == {
        ("debug", "salon", "alice", alice.session)
    }
    assert all(line["seconds"] >= 0 for line in handled)


def test_room_events_are_not_derived_below_their_level(lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "is_enabled", lambda _: False)
    harness = RoomHarness()
    harness.joined("alice")
    assert [line["event"] for line in lines] == []


def lose_media(harness: RoomHarness, client: Client) -> None:
    for n in range(3):
        assert client.ask("createTransport", id=n, direction="send")["ok"]
        harness.event(media.RouterClosed(harness.room.router.id, "died", engine_died=True))


@pytest.mark.parametrize("level", ["info", "error"])
def test_loss_of_media_is_logged_and_counted_once(
    lines: list[Line], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "is_enabled", lambda asked: asked >= getattr(logging, level.upper()))
    harness = RoomHarness("salon")
    harness.tick(1000)
    alice = harness.joined("alice")
    lose_media(harness, alice)
    harness.joined("bob")
    harness.crash()
    harness.joined("carol")

    lost = [line for line in lines if line["event"] == "room.media_refused"]
    assert [(line["room"], line["engine_deaths"], line["seconds"], line["log_level"]) for line in lost] == [
        ("salon", 3, 300, "error")
    ]
    assert harness.counters.media_refusals_total == 1
