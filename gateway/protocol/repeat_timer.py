"""Times the repetitions of what a room worker was sent and has not reported as applied."""

from typing import Final

FIRST_INTERVAL: Final = 4
"""Sweeps without progress before the first repetition; the interval doubles with each further one."""
LONGEST_INTERVAL: Final = 16
"""Sweeps without progress between two repetitions at most."""


class RepeatTimer:
    """Counts sweeps without progress and tells when to publish again."""

    __slots__ = ("_idle_sweeps", "_interval")

    def __init__(self) -> None:
        self._idle_sweeps = 0
        self._interval = FIRST_INTERVAL

    def sweep(self) -> bool:
        """Counts a sweep, and returns whether it is time to publish again."""
        self._idle_sweeps += 1
        if self._idle_sweeps < self._interval:
            return False
        self._idle_sweeps = 0
        self._interval = min(2 * self._interval, LONGEST_INTERVAL)
        return True

    def reset(self) -> None:
        """Starts again with the first interval, since there was progress."""
        self._idle_sweeps = 0
        self._interval = FIRST_INTERVAL
