"""One client fetches the largest files of the page 80 times a second."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, ClientSession, ClientTimeout

from tests.hostile.target import Counts, Target, paced

RATE = 80.0
PATHS = ("/app.js", "/app.css")


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()

    async def fetch(http: ClientSession, path: str) -> None:
        try:
            async with http.get(target.http + path, headers={"Accept-Encoding": "gzip"}) as answer:
                counts[f"answered {answer.status}"] += 1
                counts["bytes received"] += len(await answer.read())
        except (ClientError, OSError, TimeoutError):
            counts["refused"] += 1

    async with ClientSession(timeout=ClientTimeout(10), auto_decompress=False) as http:
        await begin()
        tasks: set[asyncio.Task[None]] = set()
        async for n in paced(RATE, target.seconds):
            if len(tasks) > 200:
                counts["held back"] += 1
                continue
            task = asyncio.create_task(fetch(http, PATHS[n % 8 == 0]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return counts
