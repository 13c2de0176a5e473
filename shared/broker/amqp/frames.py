"""Encodes the three AMQP methods of the hot path: basic.publish with its content, basic.ack, and heartbeats.

All other methods are rare and are encoded by pamqp (`protocol`). The layout of frames and methods is that of AMQP
0-9-1, section 4.2: type, channel, size, payload, end octet.
"""

import math
import struct
from typing import Final

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
END: Final = 0xCE
OVERHEAD: Final = 8
"""Bytes of a frame besides its payload: type, channel and size before it, the end octet after it."""

HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_END = b"\xce"
_BASIC_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_TRANSIENT = b"\x01"
_HAS_DELIVERY_MODE, _HAS_EXPIRATION, _HAS_MESSAGE_ID = 0x1000, 0x0100, 0x0080

_frame = struct.Struct(">BHI").pack
_header = struct.Struct(">HHQH").pack
_ack = struct.Struct(">BHIHHQBB").pack


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Returns the frame of a basic.ack."""
    return _ack(METHOD, channel, 13, 60, 80, tag, multiple, END)


def publish(
    channel: int,
    exchange: str,
    key: str,
    body: bytes,
    *,
    mandatory_id: str = "",
    ttl: float | None = None,
    frame_max: int,
) -> bytes:
    """Returns the frames of one transient message.

    A message with a `mandatory_id` is mandatory and has that message id, which a basic.return repeats. `ttl` is in
    seconds. No frame is longer than `frame_max` bytes. Raises `ValueError` if `key` has more than 255 bytes.
    """
    method = b"%b%b%b%c" % (_BASIC_PUBLISH, _short(exchange), _short(key), bool(mandatory_id))
    flags, properties = _HAS_DELIVERY_MODE, _TRANSIENT
    if ttl is not None:
        flags |= _HAS_EXPIRATION
        properties += _short(str(math.ceil(ttl * 1000)))
    if mandatory_id:
        flags |= _HAS_MESSAGE_ID
        properties += _short(mandatory_id)
    header = _header(60, 0, len(body), flags) + properties
    frames = [
        _frame(METHOD, channel, len(method)),
        method,
        _END,
        _frame(HEADER, channel, len(header)),
        header,
        _END,
    ]
    limit = frame_max - OVERHEAD
    if 0 < len(body) <= limit:
        frames += (_frame(BODY, channel, len(body)), body, _END)
    else:
        for start in range(0, len(body), limit):
            part = body[start : start + limit]
            frames += (_frame(BODY, channel, len(part)), part, _END)
    return b"".join(frames)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError("a routing key has at most 255 bytes")
    return bytes((len(data),)) + data
