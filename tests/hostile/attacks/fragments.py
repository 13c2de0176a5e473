"""490 sockets send fragments of a message that never ends."""

from collections import Counter
from collections.abc import Awaitable, Callable

from tests.hostile.target import CONTINUATION, TEXT, Counts, Target, close_all, connect_many, frame, paced

SOCKETS = 490
FRAGMENT = bytes(b"x" * 255 * 1024)
FRAGMENTS_PER_SOCKET = 8
FIRST = frame(TEXT, FRAGMENT, fin=False)
NEXT = frame(CONTINUATION, FRAGMENT, fin=False)


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    names = [(f"hostile fragments {n % 16}", f"peer{n}") for n in range(SOCKETS)]
    attackers = await connect_many(target, names, counts)
    await begin()
    # all of it in the first half; then the fragments lie there
    total = FRAGMENTS_PER_SOCKET * len(attackers)
    async for n in paced(2 * total / target.seconds, target.seconds):
        if n < total:
            attacker = attackers[n % len(attackers)]
            attacker.write(FIRST if n < len(attackers) else NEXT)
    close_all(attackers)
    return counts
