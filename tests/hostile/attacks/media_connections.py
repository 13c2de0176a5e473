"""4,000 TCP connections to a media port send nothing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.hostile.target import Counts, Target, paced

CONNECTIONS = 4000
OPENING_SECONDS = 4.0


class Silent(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._counts["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts["closed by the server"] += 1


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    sockets: list[Silent] = []
    loop = asyncio.get_running_loop()
    await begin()
    ends = loop.time() + target.seconds
    opening = min(OPENING_SECONDS, target.seconds / 2)
    async for _ in paced(CONNECTIONS / opening, opening):
        try:
            async with asyncio.timeout(5):
                _, silent = await loop.create_connection(lambda: Silent(counts), *target.media)
        except (OSError, TimeoutError):
            counts["refused"] += 1
            continue
        sockets.append(silent)
    await asyncio.sleep(max(0.0, ends - loop.time()))
    found = Counter(counts)
    for silent in sockets:
        if silent.transport is not None:
            silent.transport.close()
    return found
