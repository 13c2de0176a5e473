"""An outage that several users notice is logged once."""

from typing import Any

import pytest
import structlog

from shared.broker.amqp import outage
from shared.broker.amqp.outage import Outage


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    captured = structlog.testing.LogCapture()
    monkeypatch.setattr(outage, "_log", structlog.wrap_logger(None, processors=[captured]))
    return captured.entries  # type: ignore[return-value]


async def test_outage_is_logged_once_when_it_begins_and_once_when_it_ends(lines: list[dict[str, Any]]) -> None:
    it = Outage("x.failed", "x.restored", address="a")
    for who in ("one", "two", "one"):
        it.failed(who, f"refused {who}")
    it.recovered("one")
    assert it.reason == "refused one"
    it.recovered("two")

    assert [(line["event"], line["log_level"], line["failures"]) for line in lines] == [
        ("x.failed", "warning", 1),
        ("x.restored", "info", 3),
    ]
    assert (lines[0]["error"], lines[0]["address"]) == ("refused one", "a")
    assert it.reason == ""


async def test_next_outage_is_logged_again(lines: list[dict[str, Any]]) -> None:
    it = Outage("x.failed", "x.restored")
    for _ in range(2):
        it.failed("one", "refused")
        it.recovered("one")
    it.recovered("one")

    assert [line["event"] for line in lines] == ["x.failed", "x.restored"] * 2
    assert [line["failures"] for line in lines] == [1, 1, 1, 1]


async def test_lasting_outage_is_logged_from_time_to_time(lines: list[dict[str, Any]]) -> None:
    it = Outage("x.failed", "x.restored", remind_after=0)
    for _ in range(3):
        it.failed("one", "refused")

    assert [line["failures"] for line in lines] == [1, 2, 3]
