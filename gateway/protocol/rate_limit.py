"""Limits what one client may send: frames, frames that are refused, and bytes.

A frame above the rate is refused, which costs little but not nothing. So refusals have a limit, too, and bytes have
one: a client that goes beyond either is not read for a moment, and what else it sends waits in its own buffers. A
client that is over its rate for long is to be closed.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

CONTROL_RATE: Final = 50.0
"""Control frames and short fragments a second that a client may send where its messages have no limit."""
CONTROL_BURST: Final = 200
REFUSALS_RATE: Final = 20.0
"""Refused frames a second that are read of one client at least; more if it may send more messages than that."""
REFUSALS_BURST: Final = 50
BYTES_BURST: Final = 4
"""The bytes that a client may send at once, in seconds of its byte rate."""
SHORTEST_PAUSE: Final = 0.1
"""Seconds for which a client that went beyond a limit is not read, at least: each pause costs a timer."""
OVER_RATE_SWEEPS: Final = 20
"""The number of sweeps for which a client may be over its rate."""
CALM_SWEEPS: Final = 4
"""The number of sweeps without a refused frame after which a client is no longer over its rate."""


class TokenBucket:
    """A token bucket of `burst` tokens that fills with `per_second`; `clock` gives seconds.

    Instead of tokens it keeps the time at which it will be full again.
    """

    __slots__ = ("_clock", "_cost", "_full_at", "_seconds", "rejected")

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._cost = 1 / per_second
        self._seconds = burst * self._cost
        self._clock = clock
        self._full_at = 0.0
        self.rejected = 0

    def admit(self) -> bool:
        """Takes a token; returns False if there is none."""
        now = self._clock()
        full_at = max(self._full_at, now)
        if full_at - now > self._seconds - self._cost / 2:  # half a token below, where no rounding decides
            self.rejected += 1
            return False
        self._full_at = full_at + self._cost
        return True

    def spend(self, tokens: float = 1) -> None:
        """Takes tokens, also those that are not there yet."""
        self._full_at = max(self._full_at, self._clock()) + tokens * self._cost

    def go_on_from(self, before: "TokenBucket") -> None:
        """Has as many tokens less than its burst as another bucket has."""
        self._full_at = before._full_at

    @property
    def is_full(self) -> bool:
        """Whether no token is taken."""
        return self._full_at <= self._clock()

    @property
    def overdrawn(self) -> float:
        """The seconds until no more tokens are taken than there are; 0 if that is so now."""
        seconds = self._full_at - self._clock() - self._seconds
        return seconds if seconds > self._cost / 2 else 0.0


class Excess(Enum):
    """The state of a client that was over its rate at the last sweep."""

    PAST = auto()
    PRESENT = auto()
    TOO_LONG = auto()


class ClientRate:
    """The rate of one client. `per_second` or `bytes_per_second` 0: no limit for its messages, or its bytes.

    `extra` is added to the burst of messages.
    """

    __slots__ = (
        "_bytes",
        "_calm_sweeps",
        "_clock",
        "_frames",
        "_messages_limited",
        "_over_sweeps",
        "_refusals",
        "_refused_before",
        "_unread_until",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_second: float,
        burst: int,
        bytes_per_second: int,
        extra: int = 0,
    ) -> None:
        self._clock = clock
        self._messages_limited = per_second > 0
        self._frames = (
            TokenBucket(per_second, burst + extra, clock)
            if self._messages_limited
            else TokenBucket(CONTROL_RATE, CONTROL_BURST, clock)
        )
        self._refusals = TokenBucket(max(per_second, REFUSALS_RATE), max(burst, REFUSALS_BURST), clock)
        self._bytes = (
            TokenBucket(bytes_per_second, BYTES_BURST * bytes_per_second, clock) if bytes_per_second else None
        )
        self._unread_until = 0.0
        """The end of the last pause because of refused frames."""
        self._refused_before = 0
        self._calm_sweeps = 0
        self._over_sweeps = 0

    def go_on_from(self, before: "ClientRate") -> None:
        """Counts on what the client has used of its rate over an earlier connection."""
        self._frames.go_on_from(before._frames)
        self._refusals.go_on_from(before._refusals)
        if self._bytes is not None and before._bytes is not None:
            self._bytes.go_on_from(before._bytes)

    @property
    def is_rested(self) -> bool:
        """Whether the client may send as much as one that comes for the first time."""
        return self._frames.is_full and self._refusals.is_full and (self._bytes is None or self._bytes.is_full)

    @property
    def refused(self) -> int:
        """The number of frames that were refused."""
        return self._frames.rejected

    def admit_message(self) -> bool:
        """Counts a message; returns False if it is above the rate, and is to be refused."""
        if not self._messages_limited or self._frames.admit():
            return True
        self._refusals.spend()
        return False

    def admit_frame(self) -> bool:
        """Counts a frame that is no message, such as a ping; returns False as `admit_message` does."""
        if self._frames.admit():
            return True
        self._refusals.spend()
        return False

    def spend_bytes(self, size: int) -> bool:
        """Counts bytes that were read; returns whether the client is to be paused."""
        if self._bytes is None:
            return False
        self._bytes.spend(size)
        return self._bytes.overdrawn > 0

    def begin_pause(self) -> float:
        """Returns the seconds for which the client is not to be read from now on; 0 if it may be."""
        seconds = self._refusals.overdrawn
        if seconds > 0:
            self._unread_until = self._clock() + max(seconds, SHORTEST_PAUSE)
        if self._bytes is not None:
            seconds = max(seconds, self._bytes.overdrawn)
        return max(seconds, SHORTEST_PAUSE) if seconds > 0 else 0.0

    def sweep(self) -> Excess:
        """Returns for how long frames have been refused. To be called at regular intervals from the first one on."""
        calm = self.refused == self._refused_before and self._clock() >= self._unread_until
        self._refused_before = self.refused
        self._calm_sweeps = self._calm_sweeps + 1 if calm else 0
        if self._calm_sweeps >= CALM_SWEEPS:
            self._over_sweeps = self._calm_sweeps = 0
            return Excess.PAST
        self._over_sweeps += 1
        return Excess.TOO_LONG if self._over_sweeps > OVER_RATE_SWEEPS else Excess.PRESENT
