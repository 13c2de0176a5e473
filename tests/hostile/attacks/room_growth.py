"""Clients let their rooms grow, by peers with as much appData as they may have: for a Redis that is full."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from picows import WSError

from loadtest.client.connection import Ended
from tests.hostile.target import CAPABILITIES, Attacker, Counts, Target, close_all, connect, paced

RATE = 40.0
ROOMS = 4
APP_DATA = "x" * 16_000


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    attackers: list[Attacker] = []
    asking: set[asyncio.Task[None]] = set()

    async def join(n: int) -> None:
        try:
            attacker = await connect(target, f"hostile growth {n % ROOMS}", f"peer{n}", counts)
            attackers.append(attacker)
            data = {"method": "join", "peerName": attacker.peer, "appData": APP_DATA, "rtpCapabilities": CAPABILITIES}
            answer = await attacker.ask(data)
            counts["joined" if answer.get("ok") else f"refused {answer.get('errorCode')}"] += 1
        except (OSError, WSError, TimeoutError, Ended):
            counts["refused"] += 1

    await begin()
    async for n in paced(RATE, target.seconds):
        task = asyncio.create_task(join(n))
        asking.add(task)
        task.add_done_callback(asking.discard)
    for task in asking:
        task.cancel()
    close_all(attackers)
    return counts
