"""Limits the rate of one client's messages."""

from collections.abc import Callable


class TokenBucket:
    """A token bucket of `burst` messages that fills with `per_second`; `clock` gives seconds.

    Instead of tokens it keeps the time at which it will be full again.
    """

    __slots__ = ("_clock", "_cost", "_depth", "_full_at", "rejected")

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._cost = 1 / per_second
        self._depth = (burst - 0.5) * self._cost  # half a message below, where no rounding decides
        self._clock = clock
        self._full_at = 0.0
        self.rejected = 0

    def admit(self) -> bool:
        """Takes a token for one message; returns False if there is none, so that the message is above the limit."""
        now = self._clock()
        full_at = max(self._full_at, now)
        if full_at - now > self._depth:
            self.rejected += 1
            return False
        self._full_at = full_at + self._cost
        return True
