"""What both ends of a WebSocket need to know of picows."""

from typing import Final

from picows import WSMsgType, WSTransport

_TEXT: Final = WSMsgType.TEXT
_COPIED_BYTES: Final = 8192
_HEADER_BYTES: Final = 14
"""What picows copies as a whole, and the room it wants before a body that is sent in place."""


def send_text(transport: WSTransport, body: bytes) -> None:
    """Sends one text frame, over transports made with `use_aiofastnet=False` too."""
    if len(body) <= _COPIED_BYTES:
        transport.send(_TEXT, body)
    else:
        # `send` would leave uvloop a view of a header that picows overwrites with the next one.
        buffer = bytearray(_HEADER_BYTES)
        buffer += body
        transport.send_reuse_external_bytearray(_TEXT, buffer, _HEADER_BYTES)
