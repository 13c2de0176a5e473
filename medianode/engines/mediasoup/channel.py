"""Encodes and decodes the frames of the engine's channel; does no I/O.

A frame is a uint32 in the machine's byte order, then that many bytes. Requests to the engine are text,
`id:method:handlerId:json`. The engine sends JSON objects (responses and notifications) and log lines, which differ in
their first byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct as Packing
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

MAX_PAYLOAD = 4_194_304

_LENGTH = Packing("=I")
_LOG_LEVELS = {ord("D"): "debug", ord("W"): "warning", ord("E"): "error", ord("X"): "info"}
_OPENING_BRACE = ord("{")
_encode_json = msgspec.json.Encoder().encode


class ChannelError(Exception):
    """Received bytes are no frame of the channel, or a request cannot be made one."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """The answer to request `id`: `data` if `error` is empty, else the kind of error and its reason."""

    id: int
    data: Any = None
    error: str = ""
    reason: str = ""


class Notification(msgspec.Struct, frozen=True, gc=False):
    """An event of the engine. `target` is an engine id; the first, `running`, has the engine's pid instead."""

    target: str
    event: str
    data: Any = None


@dataclass(frozen=True)
class LogLine:
    """A line of the engine's log; `level` is a method of a logger."""

    level: str
    text: str


Incoming: TypeAlias = Response | Notification | LogLine


class _Object(msgspec.Struct, rename="camel", gc=False):
    id: int | UnsetType = UNSET
    data: Any = None
    error: str = ""
    reason: str = ""
    target_id: str | int = ""
    event: str = ""


_decode_object = msgspec.json.Decoder(_Object).decode


def encode_request(number: int, method: str, handler: str = "", data: object = None) -> bytes:
    """Returns a request as a frame. Raises `ChannelError` if it is too long or `data` is not JSON."""
    try:
        body = b"undefined" if data is None else _encode_json(data)
    except (UnicodeEncodeError, RecursionError, TypeError) as error:
        raise ChannelError(f"not sendable as JSON: {error}") from error
    head = f"{number}:{method}:{handler or 'undefined'}:".encode()
    length = len(head) + len(body)
    if length > MAX_PAYLOAD:
        raise ChannelError(f"a request of {length} bytes is too long for the engine")
    return _LENGTH.pack(length) + head + body


def encode_injection(producer: str, packet: bytes) -> bytes:
    """Returns an RTP packet for a producer as two frames of the payload channel."""
    head = f"n:producer.send:{producer}:undefined".encode()
    return _LENGTH.pack(len(head)) + head + _LENGTH.pack(len(packet)) + packet


class Decoder:
    """Divides the bytes that the engine sends into messages, in whatever pieces they arrive."""

    def __init__(self) -> None:
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
                yield decode(payload)
        finally:
            del self._buffer[:at]


def decode(payload: bytes) -> Incoming:
    """Decodes the payload of one frame. Raises `ChannelError`."""
    first = payload[0] if payload else 0
    if first in _LOG_LEVELS:
        return LogLine(_LOG_LEVELS[first], payload[1:].decode(errors="replace"))
    if first != _OPENING_BRACE:
        raise ChannelError(f"neither a message nor a log line: {payload[:80]!r}")
    try:
        message = _decode_object(payload)
    except msgspec.MsgspecError as error:
        raise ChannelError(f"{error}: {payload[:80]!r}") from error
    if message.id is not UNSET:
        return Response(message.id, message.data, message.error, message.reason)
    return Notification(str(message.target_id), message.event, message.data)
