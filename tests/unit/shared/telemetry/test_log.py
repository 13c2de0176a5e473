"""Logs: what is never in a line, how many lines there are, and what they look like."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
import structlog

from shared.telemetry import log

SECRETS = """
from shared.telemetry import log
log.configure("info", "{format}", role="gateway")
logger = log.get("test")
names = ("token", "resume", "password", "authorization", "api_key", "query")
secrets = {{name: f"secret-{{name}}" for name in names}}
logger.info("connection.opened", peer="alice", nested={{"token": "secret-nested"}}, **secrets)
logger.warning("redis.unavailable", error="Error 111 connecting to redis://user:secret-redis@redis:6379/0")
logger.warning("rabbitmq.unavailable", error=ConnectionError("amqps://me:secret-amqp@rabbit:5671/"))
logger.info("request.handled", url="ws://host/?roomId=salon&resume=secret-query", path="/v1/rooms?after=secret-path")
try:
    raise ValueError("https://user:secret-trace@host/?key=secret-trace-query")
except ValueError:
    logger.exception("request.failed")
"""
ESCAPE = "\x1b["


def logged(program: str) -> str:
    """Returns what a new process writes, since a process sets its logs up only once."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize("format", ["json", "text"])
def test_tokens_keys_passwords_and_queries_are_not_logged(format: str) -> None:
    said = logged(SECRETS.format(format=format))
    assert "alice" in said
    assert "redis:6379" in said
    assert "roomId" not in said
    assert "secret" not in said.replace("secrets", "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("amqp://guest:guest@127.0.0.1:5672/", "amqp://…@127.0.0.1:5672/"),
        ("redis://:p@ss@host/0", "redis://…@host/0"),
        ("two: amqp://a:b@c/, redis://d:e@f/", "two: amqp://…@c/, redis://…@f/"),
        ("GET /?roomId=a&peerId=b HTTP/1.1", "GET /?… HTTP/1.1"),
        ("http://127.0.0.1:9090/metrics", "http://127.0.0.1:9090/metrics"),
        ("what now? nothing", "what now? nothing"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_only_credentials_and_queries_are_taken_out_of_a_text(text: str, cleaned: str) -> None:
    assert log.without_secrets(text) == cleaned


def test_text_in_a_file_has_no_ansi_codes() -> None:
    assert ESCAPE not in logged(SECRETS.format(format="text"))


def test_text_on_a_terminal_has_colors() -> None:
    ours, theirs = pty.openpty()
    program = "from shared.telemetry import log\nlog.configure('info', 'text')\nlog.get('test').info('room.started')"
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run([sys.executable, "-c", program], stderr=theirs, env=environment, check=True)
        os.close(theirs)
        assert ESCAPE.encode() in terminal.read(4096)


class Limited:
    """A rate limit with a clock that the test sets, and what it reported."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reported: list[tuple[str, int]] = []
        self.limit = log.RateLimit(lambda name, count: self.reported.append((name, count)), lambda: self.now)

    def write(self, event: str, lines: int = 1) -> int:
        """Writes some lines of one event and returns how many pass."""
        passed = 0
        for _ in range(lines):
            line: dict[str, Any] = {"event": event}
            try:
                self.limit(None, "info", line)
            except structlog.DropEvent:
                continue
            passed += 1
        return passed


def test_at_most_fifty_lines_a_second_of_one_event_pass() -> None:
    limited = Limited()
    assert limited.write("connection.opened", 60) == 50
    assert limited.write("connection.closed", 3) == 3
    limited.now = 0.999
    assert limited.write("connection.opened") == 0
    limited.now = 1.0
    assert limited.write("connection.opened", 60) == 50
    assert limited.reported == [("connection.opened", 11)]


def test_next_line_of_another_event_reports_the_dropped_ones() -> None:
    limited = Limited()
    limited.write("connection.opened", 52)
    limited.now = 5.0
    assert limited.write("connection.closed") == 1
    assert limited.reported == [("connection.opened", 2)]


def test_events_within_the_limit_are_not_reported() -> None:
    limited = Limited()
    limited.write("connection.opened", 50)
    limited.limit.flush()
    assert limited.reported == []


async def test_dropped_lines_are_reported_even_if_no_line_follows() -> None:
    reported: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    limit = log.RateLimit(lambda name, count: reported.set_result((name, count)))
    passed = 0
    for _ in range(70):
        try:
            limit(None, "info", {"event": "connection.opened"})
        except structlog.DropEvent:
            continue
        passed += 1
    assert passed == 50
    assert await asyncio.wait_for(reported, 10) == ("connection.opened", 20)


def test_process_that_ends_counts_the_dropped_lines_in_one_line() -> None:
    program = (
        "from shared.telemetry import log\nlog.configure('info', 'json', role='gateway')\n"
        "for number in range(1000):\n    log.get('test').info('room.started', room=number)"
    )
    lines = [json.loads(line) for line in logged(program).splitlines()]
    written = [line for line in lines if line["event"] == "room.started"]
    dropped = [line for line in lines if line["event"] == "log.suppressed"]
    assert len(written) % 50 == 0
    assert {line["suppressed"] for line in dropped} == {"room.started"}
    assert len(written) + sum(line["count"] for line in dropped) == 1000


def test_values_of_a_line_are_cut() -> None:
    program = """
from shared.telemetry import log
log.configure("info", "json")
logger = log.get("test")
logger.info("request.handled", room="r" * 250_000, peer="p" * 250_000, method="m" * 250_000, error="e" * 250_000)
try:
    raise ValueError("v" * 250_000)
except ValueError:
    logger.exception("request.failed")
"""
    named, failed = map(json.loads, logged(program).splitlines())

    lengths = {key: len(named[key]) for key in ("room", "peer", "method", "error")}
    assert lengths == {"room": 100, "peer": 100, "method": 100, "error": log.VALUE_CHARS}
    assert len(failed["exception"]) == log.TRACEBACK_CHARS
