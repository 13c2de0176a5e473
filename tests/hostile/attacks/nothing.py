"""No attack: for faults of a server, which the driver makes itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.hostile.target import Counts, Target


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    await begin()
    await asyncio.sleep(target.seconds)
    return Counter()
