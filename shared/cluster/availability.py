"""Logs once for a whole process when Redis stops to answer, and when it answers again."""

import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import MaxConnectionsError

from shared.telemetry import log

FAILURES: Final = (OSError, TimeoutError)
"""The exceptions that a client raises besides `redis.RedisError`."""

logger = log.get("redis")


class Availability:
    """Records whether one Redis answers, for all its clients in a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._exhausted = False

    @property
    def answers(self) -> bool:
        """Whether the last command was answered."""
        return self._failing_since is None

    def failed(self, failure: BaseException) -> None:
        """Records that a command was not answered, or that Redis cannot work (loading, read-only, out of memory)."""
        if isinstance(failure, MaxConnectionsError):
            # the limit of this process, which says nothing about Redis
            if not self._exhausted:
                self._exhausted = True
                logger.error("redis.connections_exhausted", error="all connections of this process are in use")
            return
        if self._failing_since is None:
            self._failing_since = self._clock()
            logger.warning("redis.unavailable", error=str(failure) or type(failure).__name__)

    def answered(self) -> None:
        """Records that a command was answered."""
        self._exhausted = False
        if self._failing_since is not None:
            seconds, self._failing_since = self._clock() - self._failing_since, None
            logger.info("redis.available", seconds=round(seconds, 3))
