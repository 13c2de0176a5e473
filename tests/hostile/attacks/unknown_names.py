"""A client within its rate names methods, directions and profiles of 250 KiB, 50 a second, some as notifications."""

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from typing import Any

import orjson

from shared.protocol.client import NOTIFICATION, REQUEST
from tests.hostile.target import Counts, Returning, Target, paced

RATE = 50.0
LONG = "x" * 250 * 1024
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (REQUEST, {"method": LONG}),
    (REQUEST, {"method": "createTransport", "id": 1, "direction": LONG}),
    (NOTIFICATION, {"method": "setConsumerPreferredProfile", "notification": True, "id": 1, "profile": LONG}),
    (LONG, {}),
)


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    client = Returning(target, "hostile names", "namer", counts, join=True)
    await client.get()
    ids, requests = count(1000), cycle(REQUESTS)
    await begin()
    async for n in paced(RATE, target.seconds):
        if (attacker := await client.get()) is None:
            continue
        method, data = next(requests)
        if n % 50 == 49:
            attacker.send(orjson.dumps({"notification": True, "method": NOTIFICATION, "data": {"method": LONG}}))
        else:
            attacker.send(orjson.dumps({"request": True, "id": next(ids), "method": method, "data": data}))
    client.close()
    return counts
