"""The query of a new connection."""

import re
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import handshake
from gateway.protocol.handshake import ConnectionRequest, Resumption, parse, valid_name

SECRET = "0123456789abcdef" * 2
SESSION = "gateway-1-2abe90f0.31"
TOKEN = handshake.token(SESSION, SECRET)


@pytest.mark.parametrize("name", ["a", "räum/1?&=", "☺" * 42, "x" * 128, " "])
def test_names_are_utf8_without_control_characters(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "☺" * 43, "a\nb", "\x7f", "\x85", "\ud800"])
def test_other_names_are_invalid(name: str) -> None:
    assert not valid_name(name)


def test_names_in_the_query_are_percent_decoded() -> None:
    assert parse("roomId=r%C3%A4um+1&peerName=a%26b&x=1&x=2") == ConnectionRequest("räum 1", "a&b")


@pytest.mark.parametrize(
    "text", ["", "roomId=r", "peerName=p", "roomId=r&roomId=s&peerName=p", "roomId=%ff&peerName=p"]
)
def test_both_names_are_required_exactly_once(text: str) -> None:
    assert parse(text) is None


def asked(**fields: str) -> ConnectionRequest | None:
    return parse(urlencode({"roomId": "r", "peerName": "p", **fields}))


@pytest.mark.parametrize(("value", "resumable"), [("1", True), ("0", False), ("", False), ("yes", False)])
def test_a_session_is_resumable_only_on_request(value: str, resumable: bool) -> None:
    assert asked(resumable=value) == ConnectionRequest("r", "p", resumable)


def test_a_resumption_names_session_hash_ack_and_attempt() -> None:
    resume = Resumption(SESSION, handshake.digest(SECRET), 7, 2)
    assert asked(resumable="1", resume=TOKEN, ack="7", attempt="2") == ConnectionRequest("r", "p", True, resume)
    assert SECRET not in repr(resume)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resume": ""},
        {"resume": "ä"},
        {"resume": "A"},
        {"resume": TOKEN[:-3]},
        {"resume": "x" * 10_000},
        {"resume": handshake.token("no dot", SECRET)},
        {"resume": handshake.token(SESSION, "short")},
        {"resume": handshake.token(SESSION + "\n", SECRET)},
        {"ack": "-1"},
        {"ack": ""},
        {"ack": "+5"},
        {"ack": "٣"},
        {"ack": str(2**53)},
        {"attempt": "0"},
        {"attempt": "1.5"},
        {"resumable": "0"},
    ],
)
def test_a_query_with_an_invalid_resumption_is_rejected(wrong: dict[str, str]) -> None:
    assert asked(**{"resumable": "1", "resume": TOKEN, "ack": "0", "attempt": "1", **wrong}) is None


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_any_query_is_parsed_without_an_exception(text: str) -> None:
    parse(text)


@given(st.text(), st.text(), st.text())
def test_any_resumption_is_parsed_without_an_exception(resume: str, ack: str, attempt: str) -> None:
    fields = {"resume": resume, "ack": ack, "attempt": attempt}
    asked(resumable="1", **{name: text.encode(errors="replace").decode() for name, text in fields.items()})


@given(st.text() | st.integers().map(str))
def test_an_attempt_is_a_positive_number_of_53_bits(attempt: str) -> None:
    sent = attempt.encode(errors="replace").decode()
    request = asked(resumable="1", resume=TOKEN, ack="0", attempt=sent)
    valid = re.fullmatch(r"[1-9][0-9]{0,15}", sent, re.ASCII) is not None and int(sent) < 2**53
    assert (request is not None) is valid
    if request is not None:
        assert request.resume == Resumption(SESSION, handshake.digest(SECRET), 0, int(sent))
