"""A role's connections to RabbitMQ and Redis, which are waited for while a server does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from plenary.processes.event_loop import CannotStart
from plenary.processes.process_metrics import RedisConnectionCounter
from plenary.processes.redis_client import open_redis
from shared.broker import Broker
from shared.broker.amqp import AmqpBroker, TopologyMismatch
from shared.settings import Common
from shared.telemetry import log

RETRY_SECONDS: Final = 2.0
"""Seconds between two attempts to reach Redis."""

logger = log.get("process")


async def wait_for_redis(redis: Redis, stop: asyncio.Event) -> None:
    """Returns when Redis answers or `stop` is set; logs each attempt that fails."""
    while not stop.is_set():
        try:
            await redis.ping()
        except (RedisError, OSError) as failure:
            logger.warning("redis.unavailable", error=str(failure), setting="PLENARY_REDIS_URL")
            try:
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
            except TimeoutError:
                continue
        return


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


@asynccontextmanager
async def server_connections(
    settings: Common, name: str, stop: asyncio.Event, watch: Callable[[Broker, RedisConnectionCounter], None]
) -> AsyncIterator[tuple[Broker, Redis]]:
    """Yields a role's broker and Redis client when both servers answer or `stop` is set. Closes both at the end.

    `watch` is called with the broker and the counter of Redis connections before the first attempt. Raises
    `CannotStart` if RabbitMQ's queues were declared for other settings.
    """
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
