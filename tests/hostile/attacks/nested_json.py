"""Four clients send JSON of 250 KiB that is nested as deeply as it is long, 25 a second each."""

from collections import Counter
from collections.abc import Awaitable, Callable

from shared.protocol.client import REQUEST
from tests.hostile.target import TEXT, Counts, Returning, Target, frame, paced

CLIENTS = 4
RATE = 25.0
DEPTH = 125_000


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    nested = b"[" * DEPTH + b"]" * DEPTH
    body = b'{"request":true,"id":1,"method":"%b","data":%b}' % (REQUEST.encode(), nested)
    encoded = frame(TEXT, body)
    clients = [Returning(target, f"hostile nesting {n}", "nester", counts) for n in range(CLIENTS)]
    await begin()
    async for n in paced(CLIENTS * RATE, target.seconds):
        if (attacker := await clients[n % CLIENTS].get()) is not None:
            attacker.write(encoded)
    for client in clients:
        client.close()
    return counts
