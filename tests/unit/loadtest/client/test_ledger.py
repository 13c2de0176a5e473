"""The client's numbers of a resumable session."""

from typing import Any

import orjson
import pytest

from loadtest.client.ledger import KEPT_BYTES, KEPT_FRAMES, Ledger, Overflow


def frame(**fields: Any) -> dict[str, Any]:
    return {"notification": True, "method": "m", **fields}


def numbers(encoded: list[bytes]) -> list[int]:
    return [orjson.loads(one)["cseq"] for one in encoded]


def test_frames_are_numbered_from_one_and_kept_until_acknowledged() -> None:
    ledger = Ledger()
    assert numbers([ledger.number(frame()) for _ in range(3)]) == [1, 2, 3]
    ledger.received(frame(seq=1, ack=2))
    assert ledger.unacknowledged == 1
    assert numbers(ledger.resumed(2)) == [3]
    assert ledger.resumed(3) == []


def test_what_cannot_be_kept_is_refused_and_gets_no_number() -> None:
    ledger = Ledger()
    for _ in range(KEPT_FRAMES):
        ledger.number(frame())
    with pytest.raises(Overflow):
        ledger.number(frame())
    ledger.acknowledged(KEPT_FRAMES)
    with pytest.raises(Overflow):
        ledger.number(frame(data="x" * KEPT_BYTES))
    assert numbers([ledger.number(frame())]) == [KEPT_FRAMES + 1]


def test_duplicates_and_gaps_are_counted_and_not_taken() -> None:
    ledger = Ledger()
    assert [ledger.received(frame(seq=seq)) for seq in (1, 2, 2, 4, 3)] == [True, True, False, False, True]
    assert (ledger.duplicates, ledger.gaps, ledger.seq) == (1, 1, 3)


def test_a_frame_without_number_is_always_new() -> None:
    ledger = Ledger()
    assert ledger.received(frame())
    assert ledger.received(frame())
    assert ledger.seq == 0


def test_numbers_are_taken_off() -> None:
    got = frame(seq=1, ack=0)
    Ledger().received(got)
    assert got == frame()


def test_each_attempt_to_resume_has_its_number() -> None:
    ledger = Ledger(token="secret")
    ledger.received(frame(seq=1))
    assert ledger.resume() == {"resume": "secret", "ack": "1", "attempt": "1"}
    assert ledger.resume()["attempt"] == "2"
