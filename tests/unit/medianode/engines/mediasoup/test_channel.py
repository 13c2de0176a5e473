"""The channel's frames, cut and joined in every way."""

from struct import pack
from typing import Any

import pytest

from medianode.engines.mediasoup import channel
from medianode.engines.mediasoup.channel import (
    MAX_PAYLOAD,
    ChannelError,
    Decoder,
    LogLine,
    Notification,
    Response,
    encode_request,
)
from medianode.engines.mediasoup.flatbuffers_codec import EncodeError, Schema

ROOT = "FBS.Message.Message"


@pytest.fixture
def schema(engine_schema: Schema) -> Schema:
    return engine_schema


def sent(schema: Schema, frame: bytes) -> Any:
    """Returns what the engine reads in a frame."""
    assert int.from_bytes(frame[:4], "little") == len(frame) - 4
    return schema.decode(ROOT, frame[4:])["data"]


def frame(schema: Schema, kind: str, **fields: Any) -> bytes:
    return schema.encode(ROOT, {"data": (kind, fields)})


def test_request_names_method_object_and_table(schema: Schema) -> None:
    kind, request = sent(schema, encode_request(schema, 7, "TRANSPORT_CLOSE_PRODUCER", "t", {"producer_id": "p"}))
    assert kind == "Request"
    assert request == {
        "id": 7,
        "method": "TRANSPORT_CLOSE_PRODUCER",
        "handler_id": "t",
        "body": ("Transport_CloseProducerRequest", {"producer_id": "p"}),
    }


def test_request_may_have_no_object_and_no_table(schema: Schema) -> None:
    _, request = sent(schema, encode_request(schema, 1, "WORKER_DUMP"))
    assert request == {"id": 1, "method": "WORKER_DUMP", "handler_id": ""}


def test_methods_and_their_tables_are_those_of_the_engine(schema: Schema) -> None:
    bodies = channel._BODIES
    assert bodies.keys() <= set(schema.enums["FBS.Request.Method"].numbers)
    assert set(bodies.values()) <= set(schema.unions["FBS.Request.Body"].members)


@pytest.mark.parametrize("data", [{}, {"producer_id": "\ud800"}, {"producer_id": 1}, {"producer": "p"}])
def test_request_that_does_not_fit_the_schema_is_refused(schema: Schema, data: object) -> None:
    with pytest.raises(EncodeError, match="producer"):
        encode_request(schema, 1, "TRANSPORT_CLOSE_PRODUCER", "t", data)


def test_request_that_is_too_long_is_refused(schema: Schema) -> None:
    with pytest.raises(ChannelError, match="too long"):
        encode_request(schema, 1, "TRANSPORT_CLOSE_PRODUCER", "t", {"producer_id": "x" * MAX_PAYLOAD})


def test_messages_are_told_apart(schema: Schema) -> None:
    layers = ("Consumer_LayersChangeNotification", {"layers": {"spatial_layer": 1, "temporal_layer": 2}})
    stream = b"".join(
        [
            frame(schema, "Notification", handler_id="123", event="WORKER_RUNNING"),
            frame(schema, "Response", id=1, accepted=True, body=("Transport_ProduceResponse", {"type": "SIMPLE"})),
            frame(schema, "Response", id=2, accepted=False, error="TypeError", reason="wrong"),
            frame(schema, "Response", id=3, accepted=False),
            frame(schema, "Notification", handler_id="c", event="CONSUMER_LAYERS_CHANGE", body=layers),
            frame(schema, "Log", data="Wtake care"),
            frame(schema, "Log", data=""),
        ]
    )
    assert list(Decoder(schema).feed(stream)) == [
        Notification("123", "WORKER_RUNNING"),
        Response(1, {"type": "SIMPLE"}),
        Response(2, None, "TypeError", "wrong"),
        Response(3, None, "Error", ""),
        Notification("c", "CONSUMER_LAYERS_CHANGE", {"layers": {"spatial_layer": 1, "temporal_layer": 2}}),
        LogLine("warning", "take care"),
        LogLine("info", ""),
    ]


def test_bytes_may_arrive_one_by_one(schema: Schema) -> None:
    stream = frame(schema, "Response", id=1, accepted=True) + frame(schema, "Log", data="Edear me")
    decoder = Decoder(schema)
    messages = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert messages == [Response(1), LogLine("error", "dear me")]


@pytest.mark.parametrize("stream", [pack("<I", 0), pack("<I", 1) + b"?", pack("<I", 12) + bytes(12)])
def test_frame_that_is_no_message_raises(schema: Schema, stream: bytes) -> None:
    with pytest.raises(ChannelError):
        list(Decoder(schema).feed(stream))


def test_frame_that_is_too_long_raises_before_it_has_arrived(schema: Schema) -> None:
    with pytest.raises(ChannelError, match="longer"):
        list(Decoder(schema).feed(pack("<I", MAX_PAYLOAD + 1)))


def test_message_for_the_engine_from_the_engine_raises(schema: Schema) -> None:
    with pytest.raises(ChannelError, match="Request"):
        list(Decoder(schema).feed(encode_request(schema, 1, "WORKER_DUMP")))


def test_messages_before_an_invalid_frame_are_delivered(schema: Schema) -> None:
    messages = Decoder(schema).feed(frame(schema, "Response", id=1, accepted=True) + pack("<I", 1) + b"?")
    assert next(messages) == Response(1)
    with pytest.raises(ChannelError):
        next(messages)
