"""Writes frames to a transport: everything of one turn of the event loop in one piece."""

import asyncio
from collections.abc import Callable
from typing import Final

ACK_DELAY: Final = 0.02
"""The seconds that a source may wait for other frames.

Nothing waits for an acknowledgement, and each alone would wake RabbitMQ; the next consumer gets again what was not
acknowledged."""


class FrameWriter:
    """Writes the pieces of one connection in the order of the calls.

    While the transport is paused (its buffer is full) the pieces stay here. `delay` is how many seconds a source may
    wait for other frames to go along with.
    """

    def __init__(self, transport: asyncio.WriteTransport, delay: float = ACK_DELAY) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._delay = delay
        self._pieces: list[bytes] = []
        self._sources: list[Callable[[], bytes]] = []
        self._scheduled = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self.wrote = False
        """True if something was written since the owner set it to False."""
        self.waiting = 0
        """The bytes that the transport has not got yet."""

    @property
    def unsent(self) -> int:
        """The bytes that the socket has not taken yet."""
        return self.waiting + self._transport.get_write_buffer_size()

    def write(self, piece: bytes) -> None:
        """Writes `piece` in this turn of the event loop or, if the transport is paused, later."""
        self._pieces.append(piece)
        self.waiting += len(piece)
        self._schedule()

    def write_from(self, source: Callable[[], bytes]) -> None:
        """Asks `source` for its bytes once, at the next write and at most `delay` from now."""
        self._sources.append(source)
        if self._timer is None:
            self._timer = self._loop.call_later(self._delay, self.stop_delaying)

    def stop_delaying(self) -> None:
        """Lets the sources wait no longer than until the end of this turn of the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sources:
            self._schedule()

    def collect(self) -> None:
        """Asks the sources now, so that what they say is written before whatever follows."""
        self._ask_sources()
        if self._pieces:
            self._schedule()

    def flush(self) -> None:
        """Writes everything now, even to a paused transport. For the end of a connection."""
        self._paused = False
        self._write_out()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._pieces or (self._sources and self._timer is None):
            self._schedule()

    def close(self) -> None:
        """Discards what is not written."""
        if self._timer is not None:
            self._timer.cancel()
        self._pieces, self._sources, self.waiting = [], [], 0

    def _schedule(self) -> None:
        if not self._scheduled and not self._paused:
            self._scheduled = True
            self._loop.call_soon(self._write_out)

    def _write_out(self) -> None:
        self._scheduled = False
        if self._paused:
            return
        if self._sources:
            # Sources are asked as late as possible: earlier answers might no longer be true.
            self._ask_sources()
        if not self._pieces:
            return
        pieces, self._pieces, self.waiting = self._pieces, [], 0
        self.wrote = True
        if not self._transport.is_closing():
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _ask_sources(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sources, self._sources = self._sources, []
        for source in sources:
            if piece := source():
                self._pieces.append(piece)
                self.waiting += len(piece)
