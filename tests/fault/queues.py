"""Finds messages that are left in the partitions' queues at the end of a run, and says which they are."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, get_args

import aio_pika
import msgspec
from aio_pika.abc import AbstractIncomingMessage

from shared.protocol import bus

COUNTS_LAG: Final = 6.0
"""Seconds by which RabbitMQ's counts may be late: a quorum queue updates its own every 5 s."""
LOOK_FOR: Final = 60.0
"""Seconds within which every queue without a message that is left has been seen empty."""
LOOK_EVERY: Final = 0.7
READ_FOR: Final = 3.0
"""Seconds for which the messages of a queue are read, once its workers have been killed."""
FRESH: Final = 10.0
"""Seconds from its publishing within which a tick or report is on its way, and not left."""


async def never_empty(
    count: Callable[[], Awaitable[Mapping[str, int]]], *, within: float, every: float = LOOK_EVERY
) -> dict[str, str]:
    """Counts the messages of all queues again and again; returns those queues that were never empty.

    Each value says how many messages there were. A queue that was empty once passes: every queue gets a tick each
    second, so that all of them are hardly ever empty at the same moment, and nothing else is published any more.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    counts: dict[str, list[int]] = {}
    while True:
        for queue, messages in (await count()).items():
            counts.setdefault(queue, []).append(messages)
        left = {queue: seen for queue, seen in counts.items() if 0 not in seen}
        if counts and not left:
            return {}
        if loop.time() > deadline:
            assert counts, "there is no queue"
            return {
                queue: f"{min(seen)} to {max(seen)} messages in {len(seen)} looks" for queue, seen in left.items()
            }
        await asyncio.sleep(every)


async def contents(amqp_url: str, queues: Sequence[str], *, seconds: float = READ_FOR) -> dict[str, list[str]]:
    """Reads messages for so many seconds without acknowledging them; returns a text for each item that is left.

    Ticks and reports that living processes have just published are not left. Nobody else may consume from the queues:
    they have one consumer at a time.
    """
    found: dict[str, list[str]] = {queue: [] for queue in queues}

    async def take(queue: str, message: AbstractIncomingMessage) -> None:
        if not on_its_way(message.body):
            found[queue] += described(message.body, redelivered=bool(message.redelivered), headers=message.headers)

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        for name in queues:
            queue = await channel.declare_queue(name, passive=True)
            await queue.consume(partial(take, name))
        await asyncio.sleep(seconds)
    return found


def on_its_way(body: bytes) -> bool:
    """Whether a message is of the kind that running processes publish all the time, and fresh."""
    try:
        _, items = bus.split_batch(body)
        transient = all(isinstance(bus.decode_item(item), get_args(bus.TransientItem)) for item in items)
        return transient and time.time() - bus.published_at(body) < FRESH
    except (ValueError, msgspec.MsgspecError):
        return False


def described(body: bytes, *, redelivered: bool, headers: Mapping[str, object]) -> list[str]:
    """Returns a text for each item of a message: type, fields, origin, age."""
    about = f"{time.time() - bus.published_at(body):.1f} s old"
    if redelivered:
        about += ", redelivered"
    if headers:
        about += f", headers {dict(headers)}"
    try:
        origin, items = bus.split_batch(body)
        return [f"{bus.decode_item(item)!r:.300} of {origin}, {about}" for item in items]
    except (ValueError, msgspec.MsgspecError) as broken:
        return [f"unreadable ({broken}): {body[:100]!r}, {about}"]
