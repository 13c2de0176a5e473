"""Long work on the event loop, for which nobody else has to wait long."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

AT_ONCE: Final = 256
"""Items between two turns of everybody else: well below a millisecond, if an item takes about a microsecond."""


async def iterate_yielding(items: Iterable[T]) -> AsyncIterator[T]:
    """The items in order; after each `AT_ONCE` of them the event loop does what is due.

    `items` must not change meanwhile: give it a list of its own.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
