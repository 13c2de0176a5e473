"""How fast one client may send."""

from collections.abc import Callable


class Bucket:
    """A token bucket without tokens: it keeps the time at which it will be full again."""

    __slots__ = ("_clock", "_cost", "_depth", "_full_at", "refused")

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._cost = 1 / per_second
        self._depth = (burst - 0.5) * self._cost  # half a message below, where no rounding decides
        self._clock = clock
        self._full_at = 0.0
        self.refused = 0

    def admit(self) -> bool:
        now = self._clock()
        full_at = max(self._full_at, now)
        if full_at - now > self._depth:
            self.refused += 1
            return False
        self._full_at = full_at + self._cost
        return True
