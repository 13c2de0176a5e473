"""Encodes text frames for picows, at both ends of a WebSocket."""

from typing import Final

from picows import WSMsgType, WSTransport

_TEXT: Final = WSMsgType.TEXT
_COPIED_BYTES: Final = 8192
_HEADER_BYTES: Final = 14
"""Bodies up to `_COPIED_BYTES` are copied by picows; before a longer one it needs `_HEADER_BYTES` of space."""
_TEXT_FRAME: Final = 0x81
_IN_16_BITS: Final = 126
"""The value of the second byte if the size follows in 16 bits."""


def send_text(transport: WSTransport, body: bytes) -> None:
    """Sends one text frame, over transports made with `use_aiofastnet=False` too."""
    if len(body) <= _COPIED_BYTES:
        transport.send(_TEXT, body)
    else:
        # `send` would leave uvloop a view of a header that picows overwrites with the next one.
        buffer = bytearray(_HEADER_BYTES)
        buffer += body
        transport.send_reuse_external_bytearray(_TEXT, buffer, _HEADER_BYTES)


def text_header(size: int) -> bytes:
    """Returns the header of a server's text frame of `size` bytes (RFC 6455 §5.2), to join frames in a write."""
    if size < _IN_16_BITS:
        return bytes((_TEXT_FRAME, size))
    if size < 1 << 16:
        return b"%c\x7e%b" % (_TEXT_FRAME, size.to_bytes(2))
    return b"%c\x7f%b" % (_TEXT_FRAME, size.to_bytes(8))
