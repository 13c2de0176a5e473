"""Whether Redis answers, told in the log once when that changes, whatever part of a process notices it."""

import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import MaxConnectionsError

from shared.telemetry import log

FAILURES: Final = (OSError, TimeoutError)
"""What a client raises besides `redis.RedisError`."""

logger = log.get("redis")


class Availability:
    """One of these belongs to all clients of one Redis in a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._exhausted = False

    @property
    def answers(self) -> bool:
        """Whether the last command was answered."""
        return self._failing_since is None

    def failed(self, failure: BaseException) -> None:
        """A command was not answered, or Redis cannot work (it loads, is read-only, has no memory left)."""
        if isinstance(failure, MaxConnectionsError):
            # our own limit, which says nothing of Redis
            if not self._exhausted:
                self._exhausted = True
                logger.error("redis.connections_exhausted", error="all connections of this process are in use")
            return
        if self._failing_since is None:
            self._failing_since = self._clock()
            logger.warning("redis.unavailable", error=str(failure) or type(failure).__name__)

    def answered(self) -> None:
        """A command was answered."""
        self._exhausted = False
        if self._failing_since is not None:
            seconds, self._failing_since = self._clock() - self._failing_since, None
            logger.info("redis.available", seconds=round(seconds, 3))
