"""Every field of a client's message has a greatest size, which is checked before anything is kept of the message."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
import pytest
from msgspec import Meta, Raw, UnsetType

from shared.errors import BadPayload, TooLarge
from shared.protocol import actions, client, rtp
from shared.protocol.decoding import SIGNALING_BYTES, check_size
from shared.protocol.rtp import VALUE_BYTES

Json = dict[str, Any]

CODEC: Final[Json] = {"kind": "audio", "name": "opus", "clockRate": 48000, "preferredPayloadType": 100}
SENT: Final[Json] = {"name": "opus", "clockRate": 48000, "payloadType": 100}


# --- by type ------------------------------------------------------------------------------------------------------


def unbounded(kind: Any, path: str, *, bounded: bool = False) -> Iterator[str]:
    """Yields the paths of the lists, dictionaries and texts without a greatest length that a type leads to."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from unbounded(field.type, f"{path}.{field.encode_name}")
        return
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limited = any(isinstance(meta, Meta) and meta.max_length for meta in parts[1:])
        yield from unbounded(parts[0], path, bounded=limited)
    elif origin in (Union, UnionType):
        for part in parts:
            yield from unbounded(part, path, bounded=bounded)
    elif kind is str or origin in (list, dict):
        if not bounded:
            yield path
        for part in parts:
            yield from unbounded(part, f"{path}[]")
    else:
        free = (Any, Raw, UnsetType, type(None), bool, int, float)
        assert kind in free or origin is Literal, f"{path}: {kind}"


@pytest.mark.parametrize(
    "kind", [*client.FromClient.__subclasses__(), client.Message], ids=lambda kind: kind.__name__
)
def test_every_list_dictionary_and_text_of_a_message_has_a_greatest_length(kind: type[msgspec.Struct]) -> None:
    assert list(unbounded(kind, "")) == []


@pytest.mark.parametrize("kind", get_args(actions.AnyAction), ids=lambda kind: kind.__name__)
def test_every_list_dictionary_and_text_of_an_action_has_a_greatest_length(kind: type[msgspec.Struct]) -> None:
    assert list(unbounded(kind, "")) == []


def test_field_without_a_greatest_length_is_found() -> None:
    class Open(msgspec.Struct):
        names: list[str]
        by_name: Annotated[dict[str, int], Meta(max_length=3)]

    assert list(unbounded(Open, "")) == [".names", ".names[]", ".by_name[]"]


# --- by count -----------------------------------------------------------------------------------------------------


def join(**capabilities: Any) -> bytes:
    rtp_capabilities = {"codecs": [], **capabilities}
    return json.dumps({"method": "join", "peerName": "alice", "rtpCapabilities": rtp_capabilities}).encode()


def produce(**parameters: Any) -> bytes:
    rtp_parameters = {"codecs": [SENT], **parameters}
    message = {"method": "createProducer", "id": 1, "kind": "audio", "transportId": 1}
    return json.dumps({**message, "rtpParameters": rtp_parameters}).encode()


def many(count: int) -> Json:
    return {str(n): n for n in range(count)}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (join(codecs=[CODEC] * 65), "rtpCapabilities.codecs"),
        (join(codecs=[{**CODEC, "rtcpFeedback": [{"type": ""}] * 33}]), "rtpCapabilities.codecs[...].rtcpFeedback"),
        (join(codecs=[{**CODEC, "parameters": many(33)}]), "rtpCapabilities.codecs[...].parameters"),
        (join(codecs=[{**CODEC, "parameters": {"k" * 257: 1}}]), "rtpCapabilities.codecs[...].parameters"),
        (join(codecs=[{**CODEC, "name": "n" * 257}]), "rtpCapabilities.codecs[...].name"),
        (join(headerExtensions=[{"uri": "u", "preferredId": 1}] * 65), "rtpCapabilities.headerExtensions"),
        (join(headerExtensions=[{"uri": "u" * 257, "preferredId": 1}]), "rtpCapabilities.headerExtensions[...].uri"),
        (join(fecMechanisms=[{}] * 17), "rtpCapabilities.fecMechanisms"),
        (produce(codecs=[SENT] * 65), "rtpParameters.codecs"),
        (produce(encodings=[{"ssrc": 1}] * 17), "rtpParameters.encodings"),
        (produce(encodings=[{"encodingId": "r" * 257}]), "rtpParameters.encodings[...].encodingId"),
        (produce(headerExtensions=[{"uri": "u", "id": 1}] * 65), "rtpParameters.headerExtensions"),
        (
            produce(headerExtensions=[{"uri": "u", "id": 1, "parameters": many(33)}]),
            "rtpParameters.headerExtensions[...].parameters",
        ),
        (produce(rtcp={"cname": "c" * 257}), "rtpParameters.rtcp.cname"),
        (produce(muxId="m" * 257), "rtpParameters.muxId"),
    ],
)
def test_field_with_too_many_elements_is_refused_by_name(message: bytes, field: str) -> None:
    with pytest.raises(BadPayload, match="length <=") as refused:
        client.decode_request(message)

    # newer versions of msgspec say `[0]` for `[...]`
    assert refused.value.reason.replace("[0]", "[...]").startswith(f"{field}: ")


# --- by bytes -----------------------------------------------------------------------------------------------------

LARGE: Final = "x" * (VALUE_BYTES + 1)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (join(codecs=[{**CODEC, "parameters": {"p": LARGE}}]), "rtpCapabilities.codecs[0].parameters.p"),
        (join(codecs=[{**CODEC, "parameters": {"p": [[]] * 600}}]), "rtpCapabilities.codecs[0].parameters.p"),
        (join(fecMechanisms=["ok", {"a": LARGE}]), "rtpCapabilities.fecMechanisms[1]"),
        (produce(codecs=[SENT, {**SENT, "parameters": {"p": LARGE}}]), "rtpParameters.codecs[1].parameters.p"),
        (
            produce(headerExtensions=[{"uri": "u", "id": 1, "parameters": {"p": LARGE}}]),
            "rtpParameters.headerExtensions[0].parameters.p",
        ),
    ],
)
def test_value_of_free_form_that_is_too_large_is_refused_by_name(message: bytes, field: str) -> None:
    with pytest.raises(TooLarge) as refused:
        client.decode_request(message)

    assert refused.value.reason == f"{field}: larger than {VALUE_BYTES} bytes"


def test_update_of_a_producer_with_a_value_that_is_too_large_is_refused() -> None:
    codecs = [{**SENT, "parameters": {"p": LARGE}}]
    message = {"method": "updateProducer", "id": 1, "rtpParameters": {"codecs": codecs}}
    with pytest.raises(TooLarge, match=r"rtpParameters.codecs\[0\].parameters.p"):
        client.decode_notification(json.dumps(message).encode())


def test_message_of_87000_empty_fec_mechanisms_is_refused_before_it_is_decoded() -> None:
    message = join(fecMechanisms=[{}] * 87_000)
    with pytest.raises(TooLarge, match=f"^rtpCapabilities: the message has more than {SIGNALING_BYTES} bytes$"):
        client.decode_request(message)


@pytest.mark.parametrize("decode", [client.decode_request, client.decode_notification, actions.decode])
def test_unknown_field_counts_and_its_name_is_cut(decode: Any) -> None:
    message = json.dumps({"method": "queryRoom", "do": "inspectRoom", "n" * 40_000: "x" * SIGNALING_BYTES})
    with pytest.raises(TooLarge) as refused:
        decode(message.encode())

    assert len(refused.value.reason) < 200


def test_repeated_app_data_counts_once() -> None:
    check_size(b'{"appData":"%s"}' % (b"x" * 200_000), "appData")
    with pytest.raises(TooLarge):
        check_size(b'{"appData":"%s","appData":1}' % (b"x" * 200_000), "appData")


def test_large_message_that_is_no_object_is_malformed() -> None:
    for data in (b"[" + b"1," * 50_000 + b"1]", b"[" * 100_000, b"x" * 100_000):
        with pytest.raises(BadPayload, match=r"^data: "):
            check_size(data)


# --- what browsers send -------------------------------------------------------------------------------------------


def test_capabilities_five_times_a_browsers_are_accepted() -> None:
    """Chrome's own, which a client cuts down to the room's, are 20 KB: 40 codecs and 30 header extensions."""
    feedback = [{"type": kind, "parameter": "pli"} for kind in ("nack", "ccm", "goog-remb", "transport-cc")] * 2
    codec = {**CODEC, "name": "H264", "rtcpFeedback": feedback, "parameters": {str(n): "42e01f" for n in range(10)}}
    extension = {"uri": "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", "preferredId": 4, "kind": "video"}
    message = join(codecs=[codec] * 64, headerExtensions=[extension] * 64, fecMechanisms=["flexfec"] * 3)
    assert 20_000 < len(message) < SIGNALING_BYTES

    decoded = client.decode_request(message)

    assert isinstance(decoded, client.Join)
    assert len(decoded.rtp_capabilities.codecs) == 64


def test_decoded_capabilities_of_the_largest_size_take_less_than_two_mebibytes() -> None:
    def size(value: Any) -> int:
        if isinstance(value, msgspec.Struct):
            return value.__sizeof__() + sum(size(getattr(value, name)) for name in value.__struct_fields__)
        if isinstance(value, dict):
            return value.__sizeof__() + sum(size(key) + size(inner) for key, inner in value.items())
        if isinstance(value, list):
            return value.__sizeof__() + sum(map(size, value))
        return value.__sizeof__()

    codec = {**CODEC, "parameters": {f"{n}": {"": {"": {"": {"": {}}}}} for n in range(32)}}
    message = join(codecs=[codec] * 54)
    decoded = client.decode_request(message)

    assert len(message) > SIGNALING_BYTES * 0.9
    assert isinstance(decoded, client.Join)
    assert 1024 * 1024 < size(decoded.rtp_capabilities) < 2 * 1024 * 1024


def test_limits_of_stored_parameters_are_those_of_messages() -> None:
    assert rtp.RtpCodec.__annotations__["parameters"] == rtp.RtpCodecCapability.__annotations__["parameters"]
