"""One peer sends messages of 60 KB to 99 others, 12 a second: 38 MB in, 3.8 GB out."""

from collections import Counter
from collections.abc import Awaitable, Callable

from shared.protocol.client import MESSAGE
from tests.hostile.target import Counts, Target, close_all, connect, connect_many, paced

PEERS = 99
RATE = 12.0
TEXT = "x" * 60_000


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    names = [("hostile crowd", f"peer{n}") for n in range(PEERS)]
    peers = await connect_many(target, names, counts, join=True)
    talker = await (await connect(target, "hostile crowd", "talker", counts)).join()
    await begin()
    async for _ in paced(RATE, target.seconds):
        talker.request({"data": TEXT}, MESSAGE)
    close_all([*peers, talker])
    return counts
