"""Opens a Redis client that reports every lost connection by the same kind of error."""

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from plenary.processes.process_metrics import RedisConnectionCounter

REDIS_TIMEOUT: Final = 5.0
"""Seconds within which Redis has to accept a connection and to answer each command."""


class _CheckedConnection(Connection):
    """A connection that raises redis-py's `ConnectionError` also if its transport has just closed.

    uvloop raises a RuntimeError when such a transport is written to, and redis-py expects an OSError only. Callers
    that wait for Redis to come back would treat the RuntimeError as a defect.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as failure:
            raise RedisConnectionError(f"writing: {failure}") from failure


class _CheckedTlsConnection(_CheckedConnection, SSLConnection):
    pass


def open_redis(url: str, counter: RedisConnectionCounter | None = None) -> Redis:
    """Returns a client whose commands end or fail within `REDIS_TIMEOUT`, with a `RedisError` or OSError.

    The client never repeats a command: its user decides whether to try again. `counter` counts the client's
    connections. Raises ValueError if `url` is not a Redis URL.
    """
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT,
        socket_connect_timeout=REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
        redis_connect_func=counter.opened if counter else None,
    )
    if pool.connection_class is Connection:
        pool.connection_class = _CheckedConnection
    elif pool.connection_class is SSLConnection:
        pool.connection_class = _CheckedTlsConnection
    return Redis.from_pool(pool)
