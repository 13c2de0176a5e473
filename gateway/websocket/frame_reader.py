"""Reads a WebSocket in front of picows, so that no client chooses the work of a read or the memory of a frame.

picows handles all that its buffer holds in one turn, and that buffer grows with the largest frame for as long as the
connection lives. A reader takes at most `READ_BYTES` a read and tells its socket of each frame before anything of it
is handled. It passes the frames on one by one, stops between two of them when the socket is not to be read, and
passes a long frame on in pieces, as if the client had fragmented it (RFC 6455 §5.4).
"""

import asyncio
from typing import Any, Final, Protocol, cast

from picows import WSTransport

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
"""The opcodes of frames (RFC 6455 §5.2) that readers and their sockets tell apart; from `CLOSE` on those of control
frames."""
CONTROL_BYTES: Final = 125
"""The largest control frame (RFC 6455 §5.5)."""
READ_BYTES: Final = 8192
COUNTED_BYTES: Final = 4096
"""The bytes of a client that are counted at a time."""
PIECE_BYTES: Final = 4096
"""The largest frame that picows gets; a multiple of 4, so that each piece begins with the first byte of the mask."""
TLS_BYTES: Final = 64 * 1024
"""Encrypted bytes that wait in this process for a socket that is not read."""
BYTES_AFTER_CLOSE: Final = 2 * 1024 * 1024
"""Bytes that are read and skipped of a client that has been sent a close frame, until its own close frame comes."""

_MASK_BYTES: Final = 4
_IN_16_BITS: Final = 126
"""The value of the second byte if the size follows in 16 bits (RFC 6455 §5.2); the next one: in 64 bits."""
_HEADER_BYTES: Final = tuple(
    2
    + (2 if second & 0x7F == _IN_16_BITS else 8 if second & 0x7F > _IN_16_BITS else 0)
    + (_MASK_BYTES if second & 0x80 else 0)
    for second in range(256)
)
"""The size of a header, by its second byte."""
_OPCODE: Final = 0x0F
_FIN: Final = 0x80
_MASKED: Final = 0x80
_SIZE: Final = 0x7F
_COST_OF_SKIPPED_FRAME: Final = 1024
"""The bytes that a frame after a close frame counts for, however short it is."""
_COST_OF_CLOSE_FRAME: Final = BYTES_AFTER_CLOSE // 2
"""The bytes that a client's own close frame counts for: one is enough, and picows logs each that is invalid."""
_CONTROL: Final = frozenset({0x8, 0x9, 0xA})

_read_buffer: Final = memoryview(bytearray(READ_BYTES))
"""The buffer of all readers: what is read is passed on or copied before the event loop reads another socket."""


class _Parser(Protocol):
    """The protocol of picows, as far as a reader uses it."""

    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class FrameReceiver(Protocol):
    """The socket as its reader uses it (implemented in `gateway.websocket.socket`)."""

    closing: bool

    def bytes_received(self, size: int) -> None:
        """Counts what was read from the socket."""

    def frame_begins(self, opcode: int, size: int) -> bool:
        """Counts a frame whose payload has `size` bytes; returns False if it is to be skipped."""

    def protocol_error(self) -> None:
        """Closes the socket, since its client sent a frame that RFC 6455 does not allow."""

    def note_close_by_picows(self) -> None:
        """Notes that picows has sent a close frame by itself, if it has."""


class FrameReader(asyncio.BufferedProtocol):
    """The protocol of an open WebSocket's transport, in front of picows' own, which it takes the place of."""

    __slots__ = (
        "_closing_bytes",
        "_fin",
        "_held",
        "_left",
        "_mask",
        "_next",
        "_paused",
        "_picows",
        "_piece",
        "_receiver",
        "_skipped",
        "_transport",
        "_uncounted",
        "_ws",
    )

    def __init__(self, receiver: FrameReceiver, ws: WSTransport) -> None:
        self._receiver = receiver
        self._ws = ws
        self._transport = ws.underlying_transport
        self._picows = cast("_Parser", self._transport.get_protocol())
        self._paused = False
        self._held = b""
        """What was read and not passed on: the begin of a header, or all that came after the reader was paused."""
        self._left = 0
        """The bytes of the present frame's payload that have not come yet."""
        self._piece = 0
        """Those of them that belong to the piece which picows is getting."""
        self._skipped = False
        """True if the present frame is not passed on."""
        self._next = self._fin = 0
        """The first byte of the next piece of a long frame, and the bit that its last piece has besides."""
        self._mask = b""
        self._uncounted = 0
        """Bytes that were read since the last time that they were counted."""
        self._closing_bytes = BYTES_AFTER_CLOSE
        self._transport.set_protocol(self)
        if ws.is_secure:
            cast("Any", self._transport).set_read_buffer_limits(high=TLS_BYTES)

    # --- what the transport calls ---------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        held = len(self._held)
        if not held:
            return _read_buffer
        _read_buffer[:held] = self._held
        return _read_buffer[held:]

    def buffer_updated(self, nbytes: int) -> None:
        if self._held:
            size, self._held = len(self._held) + nbytes, b""
        else:
            size = nbytes
        self._uncounted += nbytes
        if self._uncounted >= COUNTED_BYTES:
            self._count()
        self._pass_on(_read_buffer, size)

    def _count(self) -> None:
        counted, self._uncounted = self._uncounted, 0
        if self._receiver.closing:
            self._count_after_close(counted)
        else:
            self._receiver.bytes_received(counted)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        self._picows.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._picows.eof_received()

    def pause_writing(self) -> None:
        self._picows.pause_writing()

    def resume_writing(self) -> None:
        self._picows.resume_writing()

    # --- pauses ---------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stops reading, after the present frame."""
        if not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def resume(self) -> None:
        """Goes on reading, with what was read before the pause first, but in another turn of the event loop."""
        if self._paused:
            self._paused = False
            if self._held:
                asyncio.get_running_loop().call_soon(self._pass_held_on)
            elif not self._transport.is_closing():
                self._transport.resume_reading()

    def _pass_held_on(self) -> None:
        if self._paused or self._transport.is_closing():
            return
        held, self._held = self._held, b""
        self._pass_on(memoryview(held), len(held))
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- frames ---------------------------------------------------------------------------------------------

    def _pass_on(self, data: memoryview, end: int) -> None:
        """Passes the frames in `data` up to `end` on until the reader is paused, and keeps the rest."""
        at = 0
        while at < end and not self._paused:
            if self._left:
                at = self._go_on(data, at, end)
                continue
            if at + 1 >= end or (payload := at + _HEADER_BYTES[data[at + 1]]) > end:
                break
            at = self._begin(data, at, payload, end)
        if at < end:
            self._held = bytes(data[at:end])

    def _begin(self, data: memoryview, at: int, payload: int, end: int) -> int:
        """Handles a header, and passes a short frame on as far as it is there; returns where the rest begins."""
        first, receiver = data[at], self._receiver
        opcode = first & _OPCODE
        size, least = data[at + 1] & _SIZE, 0
        if size >= _IN_16_BITS:
            least = _IN_16_BITS if size == _IN_16_BITS else 1 << 16
            size = int.from_bytes(data[at + 2 : payload - _MASK_BYTES])
        is_invalid = not data[at + 1] & _MASKED or not least <= size < 1 << 63  # RFC 6455 §5.1 and §5.2
        if opcode > BINARY:
            is_invalid |= size > CONTROL_BYTES or not first & _FIN or opcode not in _CONTROL  # §5.5
        if receiver.closing:
            self._skipped = is_invalid or opcode != CLOSE
            self._count_after_close(_COST_OF_SKIPPED_FRAME if self._skipped else _COST_OF_CLOSE_FRAME)
        elif is_invalid:
            receiver.protocol_error()
            self._skipped = True
        else:
            self._skipped = not receiver.frame_begins(opcode, size) or receiver.closing
        if self._skipped or size > PIECE_BYTES:
            self._left, self._piece = size, 0
            self._next, self._fin = first & ~_FIN, first & _FIN
            self._mask = bytes(data[payload - _MASK_BYTES : payload])
            return payload
        until = min(payload + size, end)
        self._left = self._piece = payload + size - until
        self._give(data[at:until])
        return until

    def _go_on(self, data: memoryview, at: int, end: int) -> int:
        """Passes more of the present frame's payload on; returns where the rest begins."""
        if self._skipped:
            until = min(at + self._left, end)
            self._left -= until - at
            return until
        if not self._piece:
            self._piece = min(self._left, PIECE_BYTES)
            is_last = self._piece == self._left
            self._give(_header(self._next | (self._fin if is_last else 0), self._piece) + self._mask)
            self._next = CONTINUATION
        until = min(at + self._piece, end)
        self._left -= until - at
        self._piece -= until - at
        self._give(data[at:until])
        return until

    def _give(self, data: memoryview | bytes) -> None:
        """Lets picows read some bytes."""
        picows = self._picows
        buffer, size = picows.get_buffer(-1), len(data)
        while size > len(buffer):
            part = len(buffer)
            buffer[:] = data[:part]
            picows.buffer_updated(part)
            data, size = data[part:], size - part
            buffer = picows.get_buffer(-1)
        buffer[:size] = data
        picows.buffer_updated(size)
        if self._ws.is_close_frame_sent:
            self._receiver.note_close_by_picows()

    def _count_after_close(self, size: int) -> None:
        """Stops reading a client that goes on sending after the close frame; `ClosingSockets` cuts it off."""
        self._closing_bytes -= size
        if self._closing_bytes < 0:
            self.pause()


def _header(first: int, size: int) -> bytes:
    """Returns the header of a masked frame of at most 64 KiB, without the mask."""
    if size < _IN_16_BITS:
        return bytes((first, _MASKED | size))
    return b"%c%c%b" % (first, _MASKED | _IN_16_BITS, size.to_bytes(2))
