"""A role's connections to RabbitMQ and Redis, which are waited for while a server does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from plenary.processes.event_loop import CannotStart
from plenary.processes.process_metrics import RedisConnectionCounter
from plenary.processes.redis_client import open_redis
from shared.broker import Broker, addresses
from shared.broker.amqp import AmqpBroker, LoginRefused, TopologyMismatch
from shared.settings import Common
from shared.telemetry import log
from shared.tls import BadCertificate, check_readable

RETRY_SECONDS: Final = 2.0
"""Seconds between two attempts to reach Redis."""
LEAST_REDIS: Final = 7
_NO_DATABASE: Final = "DB index is out of range"

logger = log.get("process")


async def wait_for_redis(redis: Redis, stop: asyncio.Event) -> None:
    """Returns when Redis answers or `stop` is set; logs each attempt that fails.

    Raises `CannotStart` if Redis refuses the login or the database, or is too old.
    """
    while not stop.is_set():
        try:
            await redis.ping()
            await _check_version(redis)
        except (AuthenticationError, NoPermissionError) as refused:
            raise CannotStart(
                f"Redis refuses the login: {refused}. User and password are a part of PLENARY_REDIS_URL "
                "(redis://USER:PASSWORD@HOST:6379/0)"
            ) from None
        except (RedisError, OSError) as failure:
            if _NO_DATABASE in str(failure):
                raise CannotStart(f"Redis has no database of the number in PLENARY_REDIS_URL: {failure}") from None
            logger.warning("redis.unavailable", error=str(failure), setting="PLENARY_REDIS_URL")
            try:
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
            except TimeoutError:
                continue
        return


async def _check_version(redis: Redis) -> None:
    """Raises `CannotStart` for a Redis that does not know what Plenary's scripts use."""
    try:
        info: dict[str, Any] = await redis.info("server")
    except ResponseError:
        return  # it does not tell
    version = str(info.get("redis_version", LEAST_REDIS))
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < LEAST_REDIS:
        raise CannotStart(f"this Redis is version {version}; Plenary needs {LEAST_REDIS}.0 or newer")


def _check_files(settings: Common) -> None:
    """Raises `CannotStart` if a file that an address of the servers names cannot be used."""
    try:
        for address in addresses.parse(settings.amqp_url):
            address.tls()
    except BadCertificate as bad:
        raise CannotStart(f"{bad} (PLENARY_AMQP_URL)") from None
    query = dict(parse_qsl(urlsplit(settings.redis_url).query))
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if path := query.get(name):
            check_readable(path, lambda why: CannotStart(f"{why} (PLENARY_REDIS_URL)"))


async def _connect_broker(broker: AmqpBroker, stop: asyncio.Event) -> None:
    connecting = asyncio.ensure_future(broker.connect())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not connecting.done():
        connecting.cancel()
        return
    try:
        await connecting
    except TopologyMismatch as reason:
        raise CannotStart(str(reason)) from None
    except LoginRefused as refused:
        raise CannotStart(f"RabbitMQ refuses the login: {refused}. Its address is set by PLENARY_AMQP_URL") from None


@asynccontextmanager
async def server_connections(
    settings: Common, name: str, stop: asyncio.Event, watch: Callable[[Broker, RedisConnectionCounter], None]
) -> AsyncIterator[tuple[Broker, Redis]]:
    """Yields a role's broker and Redis client when both servers answer or `stop` is set. Closes both at the end.

    `watch` is called with the broker and the counter of Redis connections before the first attempt. Raises
    `CannotStart` for what waiting does not mend: a refused login, files that cannot be used, queues of RabbitMQ that
    were declared for other settings.
    """
    await asyncio.to_thread(_check_files, settings)
    counter = RedisConnectionCounter()
    redis = open_redis(settings.redis_url, counter)
    broker = AmqpBroker(settings.amqp_url, partitions=settings.partitions, queue_type=settings.queue_type, name=name)
    watch(broker, counter)
    try:
        await wait_for_redis(redis, stop)
        await _connect_broker(broker, stop)
        yield broker, redis
    finally:
        await broker.close()
        await redis.aclose()
