"""Keeps the time of one partition, which its ticks advance (DELIVERY T1).

A tick carries the monotonic seconds of its sender, and a difference within one sender's life is exact. Between ticks
of two senders the cluster's time in them counts, unless it differs from what has passed here by more than `SLACK`:
then one of them is a worker of the version before, whose wall clock was set.
"""

from collections.abc import Callable
from typing import Final

from shared.protocol import bus

SLACK: Final = 2000
"""Milliseconds by which the time between two ticks may exceed the time between their deliveries."""


class PartitionClock:
    """The time of a partition since this worker serves it, ms; it never falls. `clock` is monotonic, seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._time = 0
        """The time at the last tick; 0: there was none."""
        self._tick = bus.Tick(0, 0)
        self._received = 0.0

    def advance(self, tick: bus.Tick) -> int:
        """Takes a tick and returns the time with it."""
        received = self._clock()
        if not self._time:
            self._time = max(1, tick.now)
        elif tick.boot and tick.boot == self._tick.boot:
            self._time += max(0, _ms(tick.seconds) - _ms(self._tick.seconds))
        else:
            self._time += self._between(tick, max(0, _ms(received) - _ms(self._received)))
        self._tick, self._received = tick, received
        return self._time

    def _between(self, tick: bus.Tick, waited: int) -> int:
        """Returns the milliseconds from the last tick, of another sender, to this one, which came `waited` later."""
        between = tick.now - self._tick.now
        return between if 0 <= between <= waited + SLACK else waited


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
