"""What every process does around its role: event loop, signals, links to Redis and RabbitMQ."""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from plenary.process_metrics import RedisLink
from plenary.redislink import open_redis
from shared.broker import Broker
from shared.broker.amqp import AmqpBroker, TopologyMismatch
from shared.settings import Common
from shared.telemetry import log

RETRY_EVERY = 2.0
GC_THRESHOLDS = (5_000, 20, 100)
"""Python's are (700, 10, 10). Collections of the youngest stay below 2 ms, those of all become rare."""

logger = log.get("process")


class CannotStart(Exception):
    """Something a person has to put right; its text says what."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Runs a role until it ends; SIGTERM and SIGINT set the event it is given. Exits 1 for `CannotStart`."""

    # A process with thousands of rooms would spend half of its time in looking through them for cycles, a third of a
    # second at once. What was imported never goes, and rooms go without being looked for.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    async def with_signals() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    try:
        uvloop.run(with_signals())
    except CannotStart as reason:
        print(f"plenary: {reason}", file=sys.stderr)  # noqa: T201 - for whoever typed the command
        sys.exit(1)


async def reach(redis: Redis, stop: asyncio.Event) -> None:
    """Returns when Redis answers; says every time it does not."""
    while not stop.is_set():
        try:
            await redis.ping()
        except (RedisError, OSError) as failure:
            logger.warning("redis.unavailable", error=str(failure), setting="PLENARY_REDIS_URL")
            try:
                await asyncio.wait_for(stop.wait(), RETRY_EVERY)
            except TimeoutError:
                continue
        return


async def _connect(broker: AmqpBroker, stop: asyncio.Event) -> None:
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
async def links(
    settings: Common, name: str, stop: asyncio.Event, watch: Callable[[Broker, RedisLink], None]
) -> AsyncIterator[tuple[Broker, Redis]]:
    """The role's broker and Redis, both up. Waits for them as long as it takes, or until `stop`.

    `watch` gets them before.
    """
    link = RedisLink()
    redis = open_redis(settings.redis_url, link)
    broker = AmqpBroker(settings.amqp_url, partitions=settings.partitions, queue_type=settings.queue_type, name=name)
    watch(broker, link)
    try:
        await reach(redis, stop)
        await _connect(broker, stop)
        yield broker, redis
    finally:
        await broker.close()
        await redis.aclose()
