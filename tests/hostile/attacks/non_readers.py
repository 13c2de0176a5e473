"""300 peers of a room stop reading, and one of the room sends messages of 60 KB to all."""

from collections import Counter
from collections.abc import Awaitable, Callable

from shared.protocol.client import MESSAGE
from tests.hostile.target import Counts, Target, close_all, connect, connect_many, paced

PEERS = 300
RATE = 12.0
TEXT = "x" * 60_000


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    names = [("hostile silence", f"peer{n}") for n in range(PEERS)]
    peers = await connect_many(target, names, counts, join=True)
    talker = await (await connect(target, "hostile silence", "talker", counts)).join()
    for peer in peers:
        if peer.alive:
            peer.stop_reading()
    await begin()
    async for _ in paced(RATE, target.seconds):
        talker.request({"data": TEXT}, MESSAGE)
    close_all([*peers, talker])
    return counts
