"""The link to Redis, with one kind of error for a connection that is gone."""

from collections.abc import Iterable

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from plenary.process_metrics import RedisLink

REDIS_TIMEOUT = 5.0


class _Closed(Connection):
    """uvloop refuses to write to a transport that has just closed with a RuntimeError, where redis-py knows OSErrors
    only: whoever waits for Redis to come back would take it for a defect."""

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as failure:
            raise RedisConnectionError(f"writing: {failure}") from failure


class _ClosedTls(_Closed, SSLConnection):
    pass


def open_redis(url: str, link: RedisLink | None = None) -> Redis:
    """A client that answers or fails within `REDIS_TIMEOUT` with a `RedisError` or OSError.

    Who needs Redis decides whether to try again. Raises ValueError for a URL that is none. `link` counts its
    connections.
    """
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT,
        socket_connect_timeout=REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        protocol=2,
        redis_connect_func=link.opened if link else None,
    )
    if pool.connection_class is Connection:
        pool.connection_class = _Closed
    elif pool.connection_class is SSLConnection:
        pool.connection_class = _ClosedTls
    return Redis.from_pool(pool)
