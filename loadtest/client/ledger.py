"""The client's half of a resumable session: the numbers of both directions, and frames to repeat. Pure.

The ledger also checks the server: with a correct one `duplicates` and `gaps` stay 0 (but see `accept`).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

KEPT_FRAMES: Final = 1024
KEPT_BYTES: Final = 4 * 1024 * 1024


class Overflow(Exception):
    """The client has sent more than it may keep until the server acknowledges it."""


@dataclass
class Ledger:
    token: str = ""
    grace_seconds: float = 0
    attempt: int = 0
    """Number of the client's last attempt to resume the session."""
    seq: int = 0
    """The last of the server's numbers that was received."""
    duplicates: int = 0
    gaps: int = 0
    _next: int = 1
    _kept: deque[tuple[int, bytes]] = field(default_factory=deque)
    _bytes: int = 0

    def number(self, frame: bytes) -> bytes:
        """Returns the JSON object `frame` with its number added; keeps it until the server has it.

        Raises `Overflow` if more would be kept than is allowed; the frame gets no number then.
        """
        encoded = b'{"cseq":%d,%b' % (self._next, frame[1:])
        if len(self._kept) >= KEPT_FRAMES or self._bytes + len(encoded) > KEPT_BYTES:
            raise Overflow(f"{len(self._kept)} frames, {self._bytes} bytes are not acknowledged")
        self._kept.append((self._next, encoded))
        self._bytes += len(encoded)
        self._next += 1
        return encoded

    def accept(self, seq: int | None, ack: int | None) -> bool:
        """Records the numbers of a frame of the server, if it has any, and returns whether the frame is new.

        After a gap no frame counts as new or duplicate until the session is resumed.
        """
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
        """Records that the server has the frames up to `n`, and drops them."""
        kept = self._kept
        while kept and kept[0][0] <= n:
            self._bytes -= len(kept.popleft()[1])

    def resume(self) -> dict[str, str]:
        """Returns the query parameters of the next attempt to resume."""
        self.attempt += 1
        return {"resume": self.token, "ack": str(self.seq), "attempt": str(self.attempt)}

    def resumed(self, n: int) -> list[bytes]:
        """Returns the frames to send again, in order: those after `n`, the last that the server has."""
        self.acknowledged(n)
        return [encoded for _, encoded in self._kept]

    @property
    def unacknowledged(self) -> int:
        return len(self._kept)
