"""Fills a Redis up to its maxmemory with data that is not Plenary's, and empties it again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import OutOfMemoryError

ROOM_LEFT = 2 * 1024 * 1024
"""Bytes that `filled` adds to what Redis takes already."""
_LARGEST = 64 * 1024 * 1024
_KIB = 1024


async def fill(redis: Any) -> None:
    """Writes until Redis refuses to."""
    with suppress(OutOfMemoryError):
        for number in range(_LARGEST // (16 * _KIB)):
            await redis.set(f"ballast{number}", b"x" * 16 * _KIB)
        raise AssertionError("Redis takes everything")


async def relieve(redis: Any) -> None:
    """Removes what `fill` has written."""
    async for key in redis.scan_iter("ballast*", count=1000):
        await redis.delete(key)


@asynccontextmanager
async def filled(redis: Any) -> AsyncIterator[int]:
    """Gives Redis a maxmemory, which it returns in bytes, and uses it up; takes the limit away at the end."""
    limit = (await redis.info("memory"))["used_memory"] + ROOM_LEFT
    await redis.config_set("maxmemory", limit)
    try:
        await fill(redis)
        yield limit
    finally:
        await redis.config_set("maxmemory", 0)
