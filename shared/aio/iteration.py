"""Iterates over many items without keeping the event loop from other work."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

ITEMS_PER_TURN: Final = 256
"""The number of items in one turn of the event loop: below a millisecond, if an item takes a few microseconds."""


async def iterate_yielding(items: Iterable[T]) -> AsyncIterator[T]:
    """Yields the items in order; after each `ITEMS_PER_TURN` of them the event loop does what is due.

    `items` must not change meanwhile: give it a list of its own.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
