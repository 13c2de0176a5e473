"""Ten clients send 2,000 requests a second each, forty times what they may; those that are closed come back."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from shared.protocol.client import REQUEST
from tests.hostile.target import TEXT, Counts, Returning, Target, frame, paced

CLIENTS = 10
RATE = 2000.0
AT_ONCE = 20
BODY = b'{"request":true,"id":%d,"method":"%b","data":{"method":"queryRoom"}}'


async def flood(target: Target, peer: str, counts: Counts) -> None:
    """Sends at the rate for as long as the attack lasts."""
    encoded = b"".join(frame(TEXT, BODY % (n, REQUEST.encode())) for n in range(1000, 1000 + AT_ONCE))
    client = Returning(target, f"hostile rate {peer}", peer, counts)
    async for _ in paced(RATE / AT_ONCE, target.seconds):
        if (attacker := await client.get()) is not None:
            attacker.write(encoded, AT_ONCE)
    client.close()


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    await begin()
    await asyncio.gather(*(flood(target, f"peer{n}", counts) for n in range(CLIENTS)))
    return counts
