"""The hot way out, beside aiormq's channels: frames written without a task, a lock or a queue a message.

aiormq keeps the connection, the handshake, the heartbeats and every remote call. A message and an ack pass here:
encoded at once, and written together with all else of the same turn of the event loop. The way in is `intake`.
"""

import asyncio
import math
import struct
from collections.abc import Callable

from aiormq.abc import AbstractConnection, ChannelFrame

_METHOD, _HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_BASIC_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_TRANSIENT = b"\x01"
_HAS_DELIVERY_MODE, _HAS_EXPIRATION, _HAS_MESSAGE_ID = 0x1000, 0x0100, 0x0080
_FRAME_OVERHEAD = 8
_LOOK_AGAIN = 0.01
FLUSH_WITHIN = 1.0
PATIENCE = 0.02
"""Of acks: nobody waits for them, and each alone would wake RabbitMQ. A successor sees again what was not sent."""

_frame = struct.Struct(">BHI").pack
_header = struct.Struct(">HHQH").pack
_ack = struct.Struct(">BHIHHQBB").pack


def ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    return _ack(_METHOD, channel, 13, 60, 80, tag, multiple, 0xCE)


def publish(
    channel: int, exchange: str, key: str, body: bytes, *, returnable_as: str, ttl: float | None, frame_max: int
) -> bytes:
    """The frames of one transient message. With `returnable_as` it is mandatory and, if returned, bears that id."""
    method = b"%b%b%b%c" % (_BASIC_PUBLISH, _short(exchange), _short(key), bool(returnable_as))
    flags, properties = _HAS_DELIVERY_MODE, _TRANSIENT
    if ttl is not None:
        flags |= _HAS_EXPIRATION
        properties += _short(str(math.ceil(ttl * 1000)))
    if returnable_as:
        flags |= _HAS_MESSAGE_ID
        properties += _short(returnable_as)
    header = _header(60, 0, len(body), flags) + properties
    frames = [
        _frame(_METHOD, channel, len(method)),
        method,
        _END,
        _frame(_HEADER, channel, len(header)),
        header,
        _END,
    ]
    room = frame_max - _FRAME_OVERHEAD
    for start in range(0, len(body), room):
        part = body[start : start + room]
        frames += (_frame(_BODY, channel, len(part)), part, _END)
    return b"".join(frames)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError("a routing key has at most 255 bytes")
    return bytes((len(data),)) + data


class Outlet:
    """Writes to one connection: all of one loop turn in one piece, the next when the socket has taken the last.

    `patience`: seconds that a source may wait for others to go along.
    """

    def __init__(self, connection: AbstractConnection, patience: float = PATIENCE) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = connection.write_queue
        self._pieces: list[bytes] = []
        self._sources: list[Callable[[], bytes]] = []
        self._taken: asyncio.Future[None] | None = None
        self._scheduled = False
        self._patience = patience
        self._later: asyncio.TimerHandle | None = None
        self.unsent = 0
        """Bytes not yet given to the connection."""

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.unsent += len(piece)
        self._schedule()

    def write_from(self, source: Callable[[], bytes]) -> None:
        """Asks `source` for its bytes at the next write, soon: what it gathers until then goes out as one."""
        self._sources.append(source)
        if self._later is None:
            self._later = self._loop.call_later(self._patience, self.hurry)

    def hurry(self) -> None:
        """What waits for others to go along goes now."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._sources:
            self._schedule()

    async def flush(self) -> None:
        """Returns when all that was written before has its place ahead of aiormq's next call, if it can have one."""
        give_up = self._loop.time() + FLUSH_WITHIN
        while (self._pieces or self._sources) and self._loop.time() < give_up:
            if not self._put():
                await asyncio.sleep(_LOOK_AGAIN)  # aiormq's writer has its turn, if there still is one

    def _schedule(self) -> None:
        if not self._scheduled and self._taken is None:
            self._scheduled = True
            self._loop.call_soon(self._write_out)

    def _write_out(self) -> None:
        self._scheduled = False
        if self._taken is None and not self._put() and not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_LOOK_AGAIN, self._write_out)

    def _put(self) -> bool:
        """Hands everything to aiormq; false if it takes nothing: it is full of heartbeats and calls, or has ended."""
        if self._queue.full():
            return False  # sources are asked later: what they would say now may not be true by then
        sources, self._sources = self._sources, []
        pieces, self._pieces = self._pieces, []
        payload = b"".join((*pieces, *(source() for source in sources)))
        self.unsent = 0
        if payload:
            self._taken = self._loop.create_future()
            self._taken.add_done_callback(self._on_taken)
            self._queue.put_nowait(ChannelFrame(payload=payload, should_close=False, drain_future=self._taken))
        return True

    def _on_taken(self, taken: asyncio.Future[None]) -> None:
        if taken is not self._taken:
            return
        self._taken = None
        if self._pieces or (self._sources and self._later is None):
            self._schedule()
