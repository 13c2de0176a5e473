"""The channel's frames, cut and joined in every way."""

from struct import pack, unpack_from

import pytest

from medianode.engines.mediasoup.channel import (
    MAX_PAYLOAD,
    ChannelError,
    Decoder,
    LogLine,
    Notification,
    Response,
    encode_injection,
    encode_request,
)


def frame(payload: bytes) -> bytes:
    return pack("=I", len(payload)) + payload


def text(request: bytes) -> bytes:
    (length,) = unpack_from("=I", request)
    assert length == len(request) - 4
    return request[4:]


def test_request_is_four_fields_of_text() -> None:
    assert text(encode_request(7, "producer.pause", "abc", {"a": 1})) == b'7:producer.pause:abc:{"a":1}'


def test_missing_parts_of_a_request_are_undefined() -> None:
    assert text(encode_request(1, "worker.dump")) == b"1:worker.dump:undefined:undefined"


@pytest.mark.parametrize("data", [{"a": "x" * MAX_PAYLOAD}, {"a": "\ud800"}, {"a": object()}])
def test_request_that_cannot_be_encoded_is_refused(data: object) -> None:
    with pytest.raises(ChannelError):
        encode_request(1, "m", "", data)


def test_injected_packet_follows_its_address() -> None:
    assert encode_injection("p", b"rtp") == frame(b"n:producer.send:p:undefined") + frame(b"rtp")


def test_messages_are_told_apart() -> None:
    stream = b"".join(
        map(
            frame,
            [
                b'{"targetId":123,"event":"running"}',
                b'{"id":1,"accepted":true,"data":{"x":[1]}}',
                b'{"id":2,"error":"TypeError","reason":"wrong"}',
                b'{"targetId":"c","event":"layerschange","data":{"spatialLayer":1}}',
                b"Wcareful",
            ],
        )
    )
    assert list(Decoder().feed(stream)) == [
        Notification("123", "running"),
        Response(1, {"x": [1]}),
        Response(2, None, "TypeError", "wrong"),
        Notification("c", "layerschange", {"spatialLayer": 1}),
        LogLine("warning", "careful"),
    ]


def test_bytes_may_arrive_one_by_one() -> None:
    stream = frame(b'{"id":1,"accepted":true}') + frame(b"Edear me") + frame(b'{"id":2,"accepted":true}')
    decoder = Decoder()
    messages = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert messages == [Response(1), LogLine("error", "dear me"), Response(2)]


@pytest.mark.parametrize(
    "stream", [frame(b""), frame(b"?"), frame(b"{"), frame(b'{"id":"one"}'), pack("=I", MAX_PAYLOAD + 1)]
)
def test_frame_that_is_no_message_raises(stream: bytes) -> None:
    with pytest.raises(ChannelError):
        list(Decoder().feed(stream))


def test_messages_before_an_invalid_frame_are_delivered() -> None:
    messages = Decoder().feed(frame(b'{"id":1,"accepted":true}') + frame(b"?"))
    assert next(messages) == Response(1)
    with pytest.raises(ChannelError):
        next(messages)
