"""Text of a client's in answers and in the log is cut, wherever in a message it stands and however long it is."""

import json
import logging
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from structlog.typing import EventDict

from shared.errors import TEXT_CHARS
from shared.protocol import client
from shared.telemetry import log
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.core.test_dispatch import NOTIFICATIONS, REQUESTS, paths, replaced, room
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS

HUGE: Final = 250 * 1024
RUN: Final = TEXT_CHARS + 1
"""Characters of one text that an answer or a line of the log never has."""
MOST: Final = 1500
"""Characters of an answer, and of a line of the log, that is about a client's message."""
MORE_FIELDS: Final[dict[str, Any]] = {
    "rtpCapabilities": {
        **CAPABILITIES,
        "codecs": [{**CAPABILITIES["codecs"][0], "rtcpFeedback": [{"type": "nack", "parameter": "pli"}]}],
        "fecMechanisms": ["red"],
    },
    "rtpParameters": {
        **OPUS,
        "muxId": "0",
        "headerExtensions": [{"uri": "urn:3gpp:video-orientation", "id": 8, "parameters": {"a": "b"}}],
        "encodings": [{"ssrc": 1, "encodingId": "r", "profile": "low"}],
    },
    "appData": "a",
    "options": {"udp": True},
}


ROOT: Final = Path(__file__).parents[4]
SPECIFIED: Final[dict[str, list[str]]] = {
    message["name"]: message["fields"]
    for message in tomllib.loads((ROOT / "docs/reference/protocol_messages.toml").read_text())["client"]
}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Collects all lines of the log as JSON, from level debug on."""
    written: list[str] = []

    def keep(_: Any, __: str, event: EventDict) -> EventDict:
        written.append(json.dumps(event, default=repr, ensure_ascii=False))
        raise structlog.DropEvent

    before, level = structlog.get_config(), log._level
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG), processors=[log.hide_secrets, keep]
    )
    log._level = logging.DEBUG
    yield written
    log._level = level
    structlog.configure(**before)


def test_every_message_of_the_specification_is_tried() -> None:
    assert set(SPECIFIED) == {*REQUESTS, *NOTIFICATIONS}


def check_texts(texts: list[str], letter: str) -> None:
    for text in texts:
        assert len(text) <= MOST, text[:MOST]
        assert letter * RUN not in text


def cases() -> Iterator[tuple[str, str, dict[str, Any], tuple[Any, ...]]]:
    """Every place of every message of the specification: protoo method, method, message and path."""
    for kind, messages in ((client.REQUEST, REQUESTS), (client.NOTIFICATION, NOTIFICATIONS)):
        for method, fields in messages.items():
            message = {"method": method, **fields, **{k: v for k, v in MORE_FIELDS.items() if k in fields}}
            for name in SPECIFIED[method]:
                message.setdefault(name, "a")
            for path in paths(message):
                yield kind, method, message, path


@pytest.mark.parametrize(("by", "size"), [("x", 256), ("x", HUGE), ("\x01", 256), ("😀", 256)])
def test_huge_text_in_any_place_of_any_message_is_cut(lines: list[str], by: str, size: int) -> None:
    """A text of 256 characters passes the limits of most fields, and is refused later and for other reasons."""
    shown = json.dumps(by, ensure_ascii=False)[1:-1]
    for kind, method, message, path in cases():
        harness, sender = room()
        if method == "join":
            sender = harness.connected("newcomer")
        lines.clear()
        sender.clear_sent()
        sender.ids += 1
        body = json.dumps(replaced(message, path, by * size), ensure_ascii=False).encode()

        harness.receive(sender.input(kind, sender.ids, body))

        (answer,) = [output.body.decode() for output in sender.sent if b'"response"' in output.body]
        check_texts(lines, shown)
        if '"ok":true' not in answer:
            check_texts([answer], shown)
        assert not harness.defects, (method, path)


@pytest.mark.parametrize("method", ["x" * HUGE, client.MESSAGE])
def test_huge_protoo_method_or_receiver_is_cut(lines: list[str], method: str) -> None:
    harness, alice = room()
    for body in ({"data": 1, "to": "x" * HUGE}, {"data": 1, "to": "x" * 128}, {"to": "x" * HUGE}, {}):
        lines.clear()
        alice.clear_sent()
        harness.receive(alice.input(method, 99, json.dumps(body).encode()))
        check_texts([output.body.decode() for output in alice.sent], "x")
        check_texts(lines, "x")


def test_huge_text_in_an_action_is_cut(lines: list[str]) -> None:
    harness, _ = room()
    backend = Backend(harness)
    huge = "x" * HUGE
    calls: list[dict[str, Any]] = [
        {"do": huge},
        {"do": "closePeer", "peer": huge},
        {"do": "closePeer", "peer": "x" * 128},
        {"do": "setConsumerProfile", "peer": "alice", "id": 1, "profile": huge},
        {"do": "createRoom", "codecs": [{"kind": huge, "name": "opus", "clockRate": 1}]},
        {"do": "createRoom", "codecs": [{"kind": "audio", "name": huge, "clockRate": 1}]},
        {"do": "createRoom", huge: huge},
    ]
    for call in calls:
        code, reason = backend.raw(json.dumps(call))
        assert code != 200
        check_texts([reason, *lines], "x")
