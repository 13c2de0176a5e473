"""One client sends 3 MB of empty pings a second; if it is closed, it comes back."""

from collections import Counter
from collections.abc import Awaitable, Callable

from tests.hostile.target import PING, Counts, Returning, Target, frame, paced

BYTES_PER_SECOND = 3_000_000
WRITES_PER_SECOND = 100
EMPTY_PING = frame(PING, b"")


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    pinger = Returning(target, "hostile pings", "pinger", counts)
    pings = BYTES_PER_SECOND // WRITES_PER_SECOND // len(EMPTY_PING)
    await begin()
    async for _ in paced(WRITES_PER_SECOND, target.seconds):
        if (attacker := await pinger.get()) is not None:
            attacker.write(EMPTY_PING * pings, pings)
    pinger.close()
    return counts
