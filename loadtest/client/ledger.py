"""What the client of a resumable session keeps: the numbers of both directions. Pure: no socket, no clock.

It checks the server while it is at it: `duplicates` and `gaps` of a correct one are 0 (but see `received`).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

KEPT_FRAMES: Final = 1024
KEPT_BYTES: Final = 4 * 1024 * 1024


class Overflow(Exception):
    """More is sent than may be kept until the server has it."""


@dataclass
class Ledger:
    token: str = ""
    grace_seconds: float = 0
    attempt: int = 0
    """How often the session's client has tried to resume it."""
    seq: int = 0
    """The last of the server's numbers that came."""
    duplicates: int = 0
    gaps: int = 0
    _next: int = 1
    _kept: deque[tuple[int, bytes]] = field(default_factory=deque)
    _bytes: int = 0

    def number(self, frame: dict[str, Any]) -> bytes:
        """The frame as it is to be sent; kept until the server has it. Raises `Overflow`."""
        encoded = orjson.dumps({**frame, "cseq": self._next})
        if len(self._kept) >= KEPT_FRAMES or self._bytes + len(encoded) > KEPT_BYTES:
            raise Overflow(f"{len(self._kept)} frames, {self._bytes} bytes are not acknowledged")
        self._kept.append((self._next, encoded))
        self._bytes += len(encoded)
        self._next += 1
        return encoded

    def received(self, frame: dict[str, Any]) -> bool:
        """Takes the frame's numbers off; whether it is new.

        After a gap nothing counts until the session is resumed: what follows is neither.
        """
        seq, ack = frame.pop("seq", None), frame.pop("ack", None)
        if ack is not None:
            self.acknowledged(ack)
        if seq is None:
            return True
        if seq == self.seq + 1:
            self.seq = seq
            return True
        if seq <= self.seq:
            self.duplicates += 1
        else:
            self.gaps += 1
        return False

    def acknowledged(self, n: int) -> None:
        while self._kept and self._kept[0][0] <= n:
            self._bytes -= len(self._kept.popleft()[1])

    def resume(self) -> dict[str, str]:
        """The query of the next attempt."""
        self.attempt += 1
        return {"resume": self.token, "ack": str(self.seq), "attempt": str(self.attempt)}

    def resumed(self, n: int) -> list[bytes]:
        """The server has the inputs up to `n`: what is to be sent again, in order."""
        self.acknowledged(n)
        return [encoded for _, encoded in self._kept]

    @property
    def unacknowledged(self) -> int:
        return len(self._kept)
