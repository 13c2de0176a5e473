"""Encodes and decodes the messages of the engine's channel; does no I/O.

A frame is a uint32, little-endian, then a buffer of that many bytes: a `FBS.Message.Message` by the engine's schemas.
The node sends requests; the engine sends responses, notifications and lines of its log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct as Packing
from typing import Any, Final, TypeAlias

import msgspec

from medianode.engines.mediasoup.flatbuffers_codec import DecodeError, Schema

MAX_PAYLOAD = 8_388_604
"""Bytes of a buffer above which the engine takes the channel for broken."""

_ROOT = "FBS.Message.Message"
_LENGTH = Packing("<I")
_LOG_LEVELS = {"D": "debug", "W": "warning", "E": "error", "X": "info"}
# The type of a request's body, for the methods whose request has one.
_BODIES: Final = {
    "WORKER_CREATE_WEBRTCSERVER": "Worker_CreateWebRtcServerRequest",
    "WORKER_CREATE_ROUTER": "Worker_CreateRouterRequest",
    "WORKER_CLOSE_ROUTER": "Worker_CloseRouterRequest",
    "ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER": "Router_CreateWebRtcTransportRequest",
    "ROUTER_CREATE_PLAINTRANSPORT": "Router_CreatePlainTransportRequest",
    "ROUTER_CREATE_PIPETRANSPORT": "Router_CreatePipeTransportRequest",
    "ROUTER_CLOSE_TRANSPORT": "Router_CloseTransportRequest",
    "WEBRTCTRANSPORT_CONNECT": "WebRtcTransport_ConnectRequest",
    "PLAINTRANSPORT_CONNECT": "PlainTransport_ConnectRequest",
    "PIPETRANSPORT_CONNECT": "PipeTransport_ConnectRequest",
    "TRANSPORT_SET_MAX_INCOMING_BITRATE": "Transport_SetMaxIncomingBitrateRequest",
    "TRANSPORT_PRODUCE": "Transport_ProduceRequest",
    "TRANSPORT_CONSUME": "Transport_ConsumeRequest",
    "TRANSPORT_CLOSE_PRODUCER": "Transport_CloseProducerRequest",
    "TRANSPORT_CLOSE_CONSUMER": "Transport_CloseConsumerRequest",
    "CONSUMER_SET_PREFERRED_LAYERS": "Consumer_SetPreferredLayersRequest",
}


class ChannelError(Exception):
    """Received bytes are no frame of the channel, or a request is too long for it."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """The answer to request `id`: `data` if `error` is empty, else the kind of error and its reason."""

    id: int
    data: Any = None
    error: str = ""
    reason: str = ""


class Notification(msgspec.Struct, frozen=True, gc=False):
    """An event of the engine. `target` is an engine id; the first, `WORKER_RUNNING`, has the engine's pid instead."""

    target: str
    event: str
    data: Any = None


@dataclass(frozen=True)
class LogLine:
    """A line of the engine's log; `level` is a method of a logger."""

    level: str
    text: str


Incoming: TypeAlias = Response | Notification | LogLine


def encode_request(schema: Schema, number: int, method: str, handler: str = "", data: object = None) -> bytes:
    """Returns a request as a frame.

    `method` is a name of the enum `FBS.Request.Method`, `data` the table that belongs to it, or None. Raises
    `EncodeError` if `data` is not such a table, `ChannelError` if the frame is too long.
    """
    body = None if data is None else (_BODIES[method], data)
    request = {"id": number, "method": method, "handler_id": handler, "body": body}
    frame = schema.encode(_ROOT, {"data": ("Request", request)})
    if len(frame) - _LENGTH.size > MAX_PAYLOAD:
        raise ChannelError(f"a request of {len(frame)} bytes is too long for the engine")
    return frame


class Decoder:
    """Divides the bytes that the engine sends into messages, in whatever pieces they arrive."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Incoming]:
        """Yields the messages that `data` completes.

        Raises `ChannelError` at the first invalid one: the frames after it cannot be trusted.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, at)
                if length > MAX_PAYLOAD:
                    raise ChannelError(f"a frame of {length} bytes is longer than the engine can send")
                end = at + _LENGTH.size + length
                if end > len(self._buffer):
                    break
                payload = bytes(self._buffer[at + _LENGTH.size : end])
                at = end
                yield decode(self._schema, payload)
        finally:
            del self._buffer[:at]


def decode(schema: Schema, payload: bytes) -> Incoming:
    """Decodes the buffer of one frame. Raises `ChannelError`."""
    try:
        kind, message = schema.decode(_ROOT, payload)["data"]
    except DecodeError as error:
        raise ChannelError(f"{error}: {payload[:80]!r}") from error
    _, data = message.get("body", (None, None))
    match kind:
        case "Response" if message["accepted"]:
            return Response(message["id"], data)
        case "Response":
            return Response(message["id"], None, message.get("error", "Error"), message.get("reason", ""))
        case "Notification":
            return Notification(message["handler_id"], message["event"], data)
        case "Log":
            line: str = message["data"]
            return LogLine(_LOG_LEVELS.get(line[:1], "info"), line[1:])
        case _:
            raise ChannelError(f"a message for the engine, not from it: {kind}")
