"""Text of a client becomes a frame, or a rejection that names the field."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import frame_validation
from gateway.protocol.frame_validation import (
    MalformedFrame,
    RejectedNotification,
    RejectedRequest,
    Response,
    rate_limited,
    skim,
    validate,
)
from shared.errors import TEXT_CHARS
from shared.protocol import decoding
from shared.protocol.decoding import CONTAINERS_LIMIT
from shared.protocol.protoo import Frame

LIMIT = 1000


def verdict(frame: Any, limit: int = LIMIT) -> frame_validation.ValidationResult:
    text = frame if isinstance(frame, str) else json.dumps(frame)
    return validate(text, len(text.encode()), limit)


def test_a_request_passes_with_its_data_untouched() -> None:
    data = '{ "method":"join",\n "appData" : {"smile":"☺\\u0041\\ud83d\\ude00"} }'
    accepted = verdict(f'{{"request":true,"id":7,"method":"mediasoup-request","data":{data}}}')
    assert isinstance(accepted, Frame)
    assert (accepted.id, accepted.method, bytes(accepted.data)) == (7, "mediasoup-request", data.encode())


def test_a_notification_passes_without_id_and_without_data() -> None:
    accepted = verdict({"notification": True, "method": "mediasoup-notification"})
    assert isinstance(accepted, Frame)
    assert (accepted.id, bytes(accepted.data)) == (None, b"{}")


@pytest.mark.parametrize("extra", [{}, {"cseq": 5}, {"unknown": [1]}])
def test_unknown_fields_and_cseq_are_accepted(extra: dict[str, Any]) -> None:
    assert isinstance(verdict({"request": True, "id": 0, "method": "m", "data": None, **extra}), Frame)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        '{"request":true,"id":1,"method":"m","data":{"a":01}}',
        '{"request":true,"id":1,"method":"m","data":{"a":NaN}}',
        '{"request":true,"id":1,"method":"m","data":{"a":"\\ud800"}}',
        '{"request":true,"id":1,"method":"\\udc00","data":{}}',
        '{"request":true,"id":1,"method":"m","data":{"a":"\x01"}}',
        '{"request":true,"id":1,"method":"m","data":{}} {}',
        '{"request":true,"id":1,"method":"m","data":{"a":"\\q"}}',
    ],
)
def test_invalid_json_is_a_malformed_frame(text: str) -> None:
    complaint = verdict(text)
    assert isinstance(complaint, MalformedFrame)
    assert "not valid JSON" in complaint.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ([], "expected"),
        (5, "expected"),
        (None, "expected"),
        ({}, "exactly one"),
        ({"method": "m", "id": 3}, "exactly one"),
        ({"request": True, "method": "m"}, "id: missing"),
        ({"request": True, "id": None, "method": "m"}, "id: missing"),
        ({"request": True, "id": "1", "method": "m"}, "id: expected"),
        ({"request": True, "id": -1, "method": "m"}, "id: expected"),
        ({"request": True, "id": 2**53, "method": "m"}, "id: expected"),
        ({"request": True, "id": 1.5, "method": "m"}, "id: expected"),
        ({"request": True, "id": True, "method": "m"}, "id: expected"),
        ({"request": 1, "id": 1, "method": "m"}, "request: expected"),
    ],
)
def test_a_request_without_a_valid_id_is_a_malformed_frame(frame: Any, reason: str) -> None:
    complaint = verdict(frame)
    assert isinstance(complaint, MalformedFrame)
    assert reason in complaint.reason


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"request": True, "id": 4}, "method: missing"),
        ({"request": True, "id": 4, "method": ""}, "method: missing"),
        ({"request": True, "id": 4, "method": 5}, "method: expected"),
        ({"request": True, "id": 4, "method": "m", "cseq": 0}, "cseq: expected"),
        ({"request": True, "notification": True, "id": 4, "method": "m"}, "exactly one"),
        ({"request": True, "response": True, "id": 4, "method": "m"}, "exactly one"),
    ],
)
def test_an_invalid_request_with_an_id_is_rejected_under_that_id(frame: Any, reason: str) -> None:
    refused = verdict(frame)
    assert isinstance(refused, RejectedRequest)
    assert (refused.id, refused.code) == (4, 400)
    assert reason in refused.reason


def test_a_too_large_request_is_rejected_with_413() -> None:
    frame = {"request": True, "id": 4, "method": "m", "data": "x" * LIMIT}
    refused = verdict(frame)
    assert isinstance(refused, RejectedRequest)
    assert (refused.id, refused.code) == (4, 413)


@pytest.mark.parametrize(
    "frame", [{"notification": True}, {"notification": True, "method": "m", "data": "x" * LIMIT}]
)
def test_an_invalid_notification_is_rejected_without_an_answer(frame: Any) -> None:
    assert isinstance(verdict(frame), RejectedNotification)


def test_a_response_is_recognised() -> None:
    assert isinstance(verdict({"response": True, "id": 3, "ok": True}), Response)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_data_of_64_levels_is_accepted_and_of_65_rejected(opening: str) -> None:
    def nested(levels: int) -> str:
        closing = "]" if opening == "[" else "}"
        return f'{{"request":true,"id":1,"method":"m","data":{opening * levels}1{closing * levels}}}'

    assert isinstance(verdict(nested(64), 10**6), Frame)
    refused = verdict(nested(65), 10**6)
    assert isinstance(refused, RejectedRequest)
    assert "64 levels" in refused.reason


def test_brackets_in_strings_and_siblings_do_not_count_as_depth() -> None:
    data = json.dumps(['[[[{{{\\"' * 100, [{}] * 500])
    assert isinstance(verdict(f'{{"request":true,"id":1,"method":"m","data":{data}}}', 10**6), Frame)


@pytest.mark.parametrize("unit", ["[],", '{"a":{}},', '"[",'])
def test_message_with_too_many_arrays_and_objects_is_rejected(unit: str) -> None:
    def with_brackets(number: int) -> frame_validation.ValidationResult:
        units = unit * ((number - 2) // (unit.count("[") + unit.count("{")))
        return verdict(f'{{"request":true,"id":1,"method":"m","data":[{units}0]}}', 10**6)

    assert isinstance(with_brackets(CONTAINERS_LIMIT), Frame)
    refused = with_brackets(CONTAINERS_LIMIT + 2)
    assert isinstance(refused, RejectedRequest)
    assert refused.code == 413


def test_depth_is_found_by_steps_that_do_not_depend_on_the_number_of_tokens() -> None:
    """Strings, escapes and brackets in every order, of which a loop over tokens would have hundreds of thousands."""
    deep = "[" * 40 + "]" * 40
    for unit in ('"",', '"]",', r'"\"[",', "[],", f"{deep},", '["["],', r'"\\",["]"],'):
        data = f"[{unit * (200_000 // len(unit))}{deep}]"
        json.loads(data)
        assert decoding.nesting_depth(data) == 41
        assert calls_of(lambda data=data: decoding.nesting_depth(data)) < 40  # type: ignore[misc]


def calls_of(work: Callable[[], object]) -> int:
    """The number of functions that are called, those written in C included."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def test_absurdly_deep_data_is_a_malformed_frame() -> None:
    complaint = verdict('{"request":true,"id":1,"method":"m","data":' + "[" * 300_000, 10**6)
    assert isinstance(complaint, MalformedFrame)


@pytest.mark.parametrize("levels", [100, 5_000, 300_000])
@pytest.mark.parametrize("field", ["id", "cseq", "request", "notification", "method"])
def test_absurdly_deep_field_of_the_envelope_is_rejected(field: str, levels: int) -> None:
    frame = {"request": "true", "id": "1", "method": '"m"'} | {field: "[" * levels + "]" * levels}
    result = verdict("{" + ",".join(f'"{name}":{value}' for name, value in frame.items()) + "}", 10**6)
    assert isinstance(result, MalformedFrame | RejectedRequest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"request":true,"id":7,"method":"m","data":%s,"cseq":3}' % ("[" * 500 + "]" * 500), (7, 429, 3)),
        ('{"notification":true,"method":"m","cseq":4}', (None, 429, 4)),
        ('{"request":true,"id":"7","method":"m","cseq":5}', (None, 429, 5)),
        ('{"cseq":9007199254740992,"notification":true}', (None, 429, None)),
        ('{"request":true,"id":%s,"cseq":8}' % ("9" * 100_000), (None, 429, 8)),
        ("[]", (None, 429, None)),
        ("no JSON", (None, 429, None)),
    ],
)
def test_only_id_and_number_of_a_frame_above_the_rate_are_read(
    text: str, expected: tuple[int | None, int, int | None]
) -> None:
    result = rate_limited(skim(text))
    id_ = result.id if isinstance(result, RejectedRequest) else None
    assert (id_, result.code, result.cseq) == expected


@pytest.mark.parametrize("text", ["{", '{"request":"true" and what is no JSON', '{"request":1,"cseq":}'])
def test_invalid_json_behind_an_invalid_field_is_no_json(text: str) -> None:
    for result in (verdict(text), skim(text)):
        assert isinstance(result, MalformedFrame)
        assert not result.is_json


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
)


@given(json_values)
def test_any_json_gets_a_validation_result(value: Any) -> None:
    assert isinstance(verdict(value), Frame | Response | MalformedFrame | RejectedRequest | RejectedNotification)


@given(json_values)
def test_any_data_passes_unchanged(value: Any) -> None:
    accepted = verdict({"request": True, "id": 1, "method": "m", "data": value}, 10**6)
    assert isinstance(accepted, Frame)
    assert json.loads(bytes(accepted.data)) == value


@given(json_values)
def test_nesting_depth_is_that_of_the_value(value: Any) -> None:
    def measure(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(measure, inner), default=0)

    assert decoding.nesting_depth(json.dumps(value)) == measure(value)


# --- huge texts, and numbers in other forms -----------------------------------------------------------------------

FRAME = {"request": True, "id": 4, "method": "m", "data": {"method": "join"}, "cseq": 5}


@pytest.mark.parametrize("field", [*FRAME, "response", "notification", "x" * 250_000])
@pytest.mark.parametrize("value", ["y" * 250_000, {"y" * 250_000: 1}, ["y" * 250_000]])
def test_huge_text_in_any_field_of_the_envelope_is_cut(field: str, value: Any) -> None:
    result = verdict({**FRAME, field: value}, 2**20)
    if field in ("data", "x" * 250_000):
        assert isinstance(result, Frame)
        return
    assert isinstance(result, MalformedFrame | RejectedRequest)
    assert len(result.reason) < 200
    assert "y" * (TEXT_CHARS + 1) not in result.reason


@pytest.mark.parametrize("form", ["7000", "7000.0", "7e3", "7.0E3", "70000e-1"])
def test_whole_numbers_of_the_envelope_are_integers_in_every_form(form: str) -> None:
    accepted = verdict(f'{{"request":true,"id":{form},"cseq":{form},"method":"m","data":{{"a":1.0}}}}')

    assert isinstance(accepted, Frame)
    assert (accepted.id, accepted.cseq) == (7000, 7000)
    assert (type(accepted.id), type(accepted.cseq)) == (int, int)
    assert bytes(accepted.data) == b'{"a":1.0}'


@pytest.mark.parametrize("form", ["7000.0", "7e3"])
def test_invalid_request_is_rejected_under_its_id_in_every_form(form: str) -> None:
    refused = verdict(f'{{"request":true,"id":{form},"cseq":{form},"method":5}}')

    assert isinstance(refused, RejectedRequest)
    assert (refused.id, refused.cseq) == (7000, 7000)
    assert type(refused.id) is int


@pytest.mark.parametrize("form", ["7000.5", "1e400", "9007199254740992.0", "1e16", '"7000.0"', "true", "[7000.0]"])
def test_id_that_is_no_whole_number_is_a_malformed_frame(form: str) -> None:
    for cseq in ("1", "1.0"):
        result = verdict(f'{{"request":true,"id":{form},"cseq":{cseq},"method":"m"}}')
        assert isinstance(result, MalformedFrame)
