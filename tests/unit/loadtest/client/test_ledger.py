"""The client's numbers of a resumable session."""

from typing import Any

import orjson
import pytest

from loadtest.client.ledger import KEPT_BYTES, KEPT_FRAMES, Ledger, Overflow


def frame(**fields: Any) -> bytes:
    return orjson.dumps({"notification": True, "method": "m", **fields})


def numbers(encoded: list[bytes]) -> list[int]:
    return [orjson.loads(one)["cseq"] for one in encoded]


def test_frames_are_numbered_from_one_and_kept_until_acknowledged() -> None:
    ledger = Ledger()
    encoded = [ledger.number(frame()) for _ in range(3)]
    assert numbers(encoded) == [1, 2, 3]
    assert orjson.loads(encoded[0]) == {"cseq": 1, "notification": True, "method": "m"}
    ledger.accept(1, 2)
    assert ledger.unacknowledged == 1
    assert numbers(ledger.resumed(2)) == [3]
    assert ledger.resumed(3) == []


def test_frame_beyond_the_limits_is_refused_and_gets_no_number() -> None:
    ledger = Ledger()
    for _ in range(KEPT_FRAMES):
        ledger.number(frame())
    with pytest.raises(Overflow):
        ledger.number(frame())
    ledger.acknowledged(KEPT_FRAMES)
    with pytest.raises(Overflow):
        ledger.number(frame(data="x" * KEPT_BYTES))
    assert numbers([ledger.number(frame())]) == [KEPT_FRAMES + 1]


def test_duplicates_and_gaps_are_counted_and_not_new() -> None:
    ledger = Ledger()
    assert [ledger.accept(seq, None) for seq in (1, 2, 2, 4, 3)] == [True, True, False, False, True]
    assert (ledger.duplicates, ledger.gaps, ledger.seq) == (1, 1, 3)


def test_frame_without_number_is_always_new() -> None:
    ledger = Ledger()
    assert ledger.accept(None, None)
    assert ledger.accept(None, None)
    assert ledger.seq == 0


def test_each_attempt_to_resume_has_its_number() -> None:
    ledger = Ledger(token="secret")
    ledger.accept(1, None)
    assert ledger.resume() == {"resume": "secret", "ack": "1", "attempt": "1"}
    assert ledger.resume()["attempt"] == "2"
