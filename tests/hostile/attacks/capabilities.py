"""150 peers join with rtpCapabilities of 255 KiB, 87,000 empty `fecMechanisms`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from picows import WSError

from loadtest.client.connection import Ended
from tests.hostile.target import CAPABILITIES, Attacker, Counts, Target, close_all, connect, paced

JOINS = 150
FEC_MECHANISMS = 87_000


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    attackers: list[Attacker] = []
    asking: list[asyncio.Task[None]] = []
    huge = CAPABILITIES | {"fecMechanisms": [{}] * FEC_MECHANISMS}

    async def join(attacker: Attacker) -> None:
        try:
            answer = await attacker.ask({"method": "join", "peerName": attacker.peer, "rtpCapabilities": huge})
        except (Ended, TimeoutError):
            return
        counts["joined" if answer.get("ok") else f"refused {answer.get('errorCode')}"] += 1

    await begin()
    async for n in paced(JOINS / target.seconds, target.seconds):
        try:
            attackers.append(await connect(target, "hostile joins", f"peer{n}", counts))
        except (OSError, WSError, TimeoutError):
            counts["refused"] += 1
            continue
        asking.append(asyncio.create_task(join(attackers[-1])))
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    close_all(attackers)
    return counts
