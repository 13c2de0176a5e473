"""Repeats what a process does when it joins the cluster, until Redis carries it out."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import RedisError

from shared.aio.backoff import Backoff
from shared.telemetry import log

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 4.0
"""Seconds between two attempts."""

T = TypeVar("T")

logger = log.get("process")


async def until_redis_works(attempt: Callable[[], Awaitable[T]]) -> T:
    """Awaits `attempt()` again after growing pauses until it raises neither `redis.RedisError` nor OSError.

    A server that answers may still refuse what is needed to join: it loads its data, or has no memory or disk left.
    Logs each failure. `attempt` must be able to be repeated after a part of it was done.
    """
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, scatter=True)
    while True:
        try:
            return await attempt()
        except (RedisError, OSError) as failure:
            logger.warning("process.start_delayed", error=str(failure) or type(failure).__name__)
            await backoff.wait()
