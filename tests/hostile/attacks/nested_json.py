"""Four clients send JSON of 250 KiB in which everything is nested 60 levels deep, 25 a second each."""

from collections import Counter
from collections.abc import Awaitable, Callable

from shared.protocol.client import REQUEST
from tests.hostile.target import TEXT, Counts, Returning, Target, frame, paced

CLIENTS = 4
RATE = 25.0
DEPTH = 60
"""Levels of each array, just within what is allowed: then all of it has to be looked at."""
SIZE = 250 * 1024


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    array = b"[" * DEPTH + b"]" * DEPTH
    nested = b"[" + b",".join([array] * (SIZE // (len(array) + 1))) + b"]"
    encoded = frame(TEXT, b'{"request":true,"id":1,"method":"%b","data":%b}' % (REQUEST.encode(), nested))
    clients = [Returning(target, f"hostile nesting {n}", "nester", counts) for n in range(CLIENTS)]
    await begin()
    async for n in paced(CLIENTS * RATE, target.seconds):
        if (attacker := await clients[n % CLIENTS].get()) is not None:
            attacker.write(encoded)
    for client in clients:
        client.close()
    return counts
