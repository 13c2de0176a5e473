"""Assembles the frames of one channel's content (basic.deliver and basic.return) into events."""

import struct
from typing import Any, Final

from pamqp.frame import unmarshal

from shared.broker.amqp.events import Delivered, Returned
from shared.broker.amqp.frames import OVERHEAD

DELIVER: Final = b"\x00\x3c\x00\x3c"
RETURN: Final = b"\x00\x3c\x00\x32"

_tag = struct.Struct(">QB").unpack_from
_body_size = struct.Struct(">Q").unpack_from


class ProtocolViolation(Exception):
    """Raised for bytes that AMQP 0-9-1 does not allow here; `code` is the reply code of AMQP for that."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ContentAssembler:
    """Takes the three kinds of frames of a content in their order: method, header, bodies.

    A content may have `content_max` bytes. All methods raise `ProtocolViolation` for a frame out of its order.
    """

    __slots__ = ("_channel", "_content_max", "_header", "_method", "_missing", "_parts")

    def __init__(self, channel: int, content_max: int) -> None:
        self._channel = channel
        self._content_max = content_max
        self._method = b""
        """The frame of the method that the content belongs to; empty while no content is under way."""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0

    @property
    def idle(self) -> bool:
        """True while no content is under way."""
        return not self._method

    def start(self, frame: bytes) -> None:
        """Takes the frame of a basic.deliver or basic.return."""
        if self._method:
            raise ProtocolViolation(505, "a method came before the end of a content")
        self._method = frame

    def take_header(self, frame: bytes) -> Delivered | Returned | None:
        """Takes a content header; returns the event if the content is empty."""
        if not self._method or self._header:
            raise ProtocolViolation(505, "a content header came without its method")
        (self._missing,) = _body_size(frame, 11)
        if self._missing > self._content_max:
            raise ProtocolViolation(501, f"a message has {self._missing} bytes, more than {self._content_max}")
        self._header = frame
        return None if self._missing else self._complete()

    def take_body(self, frame: bytes) -> Delivered | Returned | None:
        """Takes a part of the body; returns the event if that was the last one."""
        if not self._header:
            raise ProtocolViolation(505, "a body came without its content header")
        self._missing -= len(frame) - OVERHEAD
        if self._missing < 0:
            raise ProtocolViolation(501, "a body is longer than its content header says")
        self._parts.append(frame[7:-1])
        return None if self._missing else self._complete()

    def _complete(self) -> Delivered | Returned:
        method, header, parts = self._method, self._header, self._parts
        self._method, self._header, self._parts = b"", b"", []
        if method[7:11] == DELIVER:
            tag, redelivered = _tag(method, 12 + method[11])  # behind the consumer tag
            return Delivered(self._channel, tag, bool(redelivered), parts[0] if len(parts) == 1 else b"".join(parts))
        returned, properties = _decoded(method), _decoded(header).properties
        reason = f"{returned.exchange} {returned.routing_key}: {returned.reply_text}"
        return Returned(self._channel, properties.message_id or "", reason)


def _decoded(frame: bytes) -> Any:
    return unmarshal(frame)[2]
