"""Whole numbers in either of their forms, as JavaScript has them, and nothing else in place of an integer."""

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Raw, UnsetType

from shared.errors import BadPayload
from shared.protocol import actions, client
from shared.protocol.whole_numbers import WholeNumberDecoder, whole_number

Id = Annotated[int, Meta(ge=0, le=2**53 - 1)]
FORMS = ("7", "7.0", "7.000", "7e0", "7E0", "70e-1", "0.7e1", "700.0e-2")
"""One number as clients may write it."""
REFUSED = ("7.5", "7e-1", "true", '"7"', '"7.0"', "[7]", "{}", "NaN", "1e400", "-1e400", "9007199254740992.0", "1e16")


class Inner(msgspec.Struct, rename="camel", frozen=True):
    some_number: Id
    share: float = 0.5


class Outer(msgspec.Struct, tag_field="kind", tag="outer"):
    id: Id
    list_: Annotated[list[Id], Meta(max_length=3)] = msgspec.field(default_factory=list, name="list")
    inner: Inner | UnsetType | None = UNSET
    by_name: dict[str, int | str] = {}
    flag: bool = False
    text: str | None = None
    data: Raw | UnsetType = UNSET


class Other(msgspec.Struct, tag_field="kind", tag="other"):
    pass


decoder = WholeNumberDecoder[Outer | Other](Outer | Other)


def decode(text: str) -> Outer:
    decoded = decoder.decode(text)
    assert isinstance(decoded, Outer)
    return decoded


@pytest.mark.parametrize("form", FORMS)
def test_whole_number_is_an_integer_in_every_form_and_place(form: str) -> None:
    number = f'{{"someNumber":{form},"share":1.5}}'
    decoded = decode(f'{{"kind":"outer","id":{form},"list":[{form},1],"inner":{number},"by_name":{{"a":{form}}}}}')

    numbers = [decoded.id, *decoded.list_, decoded.by_name["a"]]
    assert isinstance(decoded.inner, Inner)
    assert [*numbers, decoded.inner.some_number] == [7, 7, 1, 7, 7]
    assert {type(number) for number in [*numbers, decoded.inner.some_number]} == {int}
    assert decoded.inner.share == 1.5


@pytest.mark.parametrize("other", ["7", "7.0"])
@pytest.mark.parametrize("value", REFUSED)
def test_what_is_no_whole_number_is_refused_beside_either_form(value: str, other: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(f'{{"kind":"outer","id":{value},"list":[{other}]}}')
    with pytest.raises(msgspec.DecodeError):
        decode(f'{{"kind":"outer","id":{other},"list":[{value}]}}')


@pytest.mark.parametrize(
    "wrong", ['"flag":1', '"flag":"true"', '"flag":1.0', '"text":7', '"inner":"null"', '"list":"[]"']
)
def test_number_with_a_fraction_part_makes_no_other_field_lenient(wrong: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(f'{{"kind":"outer","id":7.0,{wrong}}}')


def test_texts_and_unparsed_values_stay_as_they_are() -> None:
    decoded = decode('{"kind":"outer","id":7.0,"text":"null","data":{"a":[1.0, 1e0]},"by_name":{"a":"1.0"}}')

    assert (decoded.text, decoded.by_name) == ("null", {"a": "1.0"})
    assert isinstance(decoded.data, Raw)
    assert bytes(decoded.data) == b'{"a":[1.0, 1e0]}'


@given(st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False))
def test_number_is_whole_if_javascript_says_so(value: float) -> None:
    whole = whole_number(value)
    assert (whole is not None) == (value == int(value) and (type(value) is int or abs(value) < 2**53))
    assert whole is None or (type(whole) is int and whole == value)


def test_booleans_and_texts_are_no_whole_numbers() -> None:
    values: list[Any] = [True, "1", None, [1], float("inf"), float("nan")]
    assert [whole_number(value) for value in values] == [None] * 6


# --- every message ------------------------------------------------------------------------------------------------

PARAMETERS = {
    "codecs": [{"name": "opus", "payloadType": 100, "clockRate": 48000, "channels": 2}],
    "headerExtensions": [{"uri": "u", "id": 3}],
    "encodings": [{"ssrc": 11, "rtx": {"ssrc": 12}}],
}
CAPABILITIES = {
    "codecs": [
        {"kind": "audio", "name": "opus", "clockRate": 48000, "preferredPayloadType": 100, "channels": 2},
        {"kind": "video", "name": "rtx", "clockRate": 90000, "preferredPayloadType": 101, "parameters": {"apt": 100}},
    ],
    "headerExtensions": [{"uri": "u", "preferredId": 3}],
}
REQUESTS: dict[str, dict[str, Any]] = {
    "join": {"peerName": "alice", "rtpCapabilities": CAPABILITIES},
    "createTransport": {"id": 5, "direction": "send"},
    "restartTransport": {"id": 5},
    "createProducer": {"id": 5, "kind": "audio", "transportId": 1, "rtpParameters": PARAMETERS},
    "enableConsumer": {"id": 2, "transportId": 1},
}
NOTIFICATIONS: dict[str, dict[str, Any]] = {
    "updateProducer": {"id": 10, "rtpParameters": PARAMETERS},
    "setConsumerPreferredProfile": {"id": 2, "profile": "low"},
    **{
        method: {"id": 1}
        for method in (
            "updateTransport", "closeTransport", "pauseProducer", "resumeProducer", "closeProducer", "pauseConsumer",
            "resumeConsumer", "enableTransportStats", "disableTransportStats", "enableProducerStats",
            "disableProducerStats", "enableConsumerStats", "disableConsumerStats",
        )
    },
}  # fmt: skip


def as_floats(value: Any) -> Any:
    """The value with every integer as a float: `json` writes it as `7.0`."""
    if type(value) is int:
        return float(value)
    if isinstance(value, dict):
        return {key: as_floats(inner) for key, inner in value.items()}
    return [as_floats(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("method", "fields"), [*REQUESTS.items(), *NOTIFICATIONS.items()])
def test_message_with_floats_is_the_message_with_integers(method: str, fields: dict[str, Any]) -> None:
    read = client.decode_request if method in REQUESTS else client.decode_notification
    message = {"method": method, **fields}

    with_integers = read(json.dumps(message).encode())
    with_floats = read(json.dumps(as_floats(message)).encode())

    assert with_floats == with_integers
    written = msgspec.json.encode(with_floats)
    free = b'"apt":100.0'  # a value of free form stays as it is
    assert written.replace(free, b'"apt":100') == msgspec.json.encode(with_integers)


def test_action_with_floats_is_the_action_with_integers() -> None:
    action = {"do": "createRoom", "idleSeconds": 60, "limits": {"peers": 3, "maxIncomingBitrate": 5}}
    assert actions.decode(json.dumps(as_floats(action)).encode()) == actions.decode(json.dumps(action).encode())


@pytest.mark.parametrize("value", REFUSED)
def test_message_whose_id_is_no_whole_number_is_refused(value: str) -> None:
    with pytest.raises(BadPayload):
        client.decode_notification(f'{{"method":"closeTransport","id":{value}}}'.encode())
