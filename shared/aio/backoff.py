"""Makes growing pauses between the attempts of something that fails."""

import asyncio
import random
from typing import Final

MOST_DOUBLINGS: Final = 30
"""The largest exponent that is computed, since more would overflow."""


class Backoff:
    """Pauses that begin with `first` seconds and double up to `longest`.

    With `scatter` each of them is shortened at random to between a half and the whole of it, so that processes which
    failed together do not come back together.
    """

    def __init__(self, first: float, longest: float, *, scatter: bool = False) -> None:
        self._first = first
        self._longest = longest
        self._scatter = scatter
        self.attempts = 0
        """The number of pauses since the last `reset`."""

    def next(self) -> float:
        """Returns the seconds to wait now, for callers that wait by themselves; each call counts as an attempt."""
        pause = min(self._longest, self._first * float(2 ** min(self.attempts, MOST_DOUBLINGS)))
        self.attempts += 1
        return pause * random.uniform(0.5, 1.0) if self._scatter else pause

    async def wait(self) -> None:
        """Waits before the next attempt."""
        await asyncio.sleep(self.next())

    def reset(self) -> None:
        """Begins again with the first pause, because an attempt succeeded."""
        self.attempts = 0
