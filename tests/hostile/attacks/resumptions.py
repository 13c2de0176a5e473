"""One resumable session that was sent 110 MB resumes 15 times from the beginning (`ack=0`)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from picows import WSError

from loadtest.client.connection import Ended
from shared.protocol.client import MESSAGE
from tests.hostile.target import Attacker, Counts, Target, close_all, connect, connect_many, paced

TALKERS = 3
"""They are sent what the others say, too: more of them would do more to this process than to the cluster."""
TEXT = "x" * 60_000
SENT_BYTES = 110_000_000
RESUMPTIONS = 15
SECONDS_OF_TALK = 15.0
"""The stream keeps what was sent for half a minute: the first message must still be there at the first resumption."""
ROOM = "hostile resumptions"


async def run(target: Target, begin: Callable[[], Awaitable[None]]) -> Counts:
    counts: Counts = Counter()
    session = await connect(target, ROOM, "session", counts, resumable="1")
    token = str((await session.greeting).get("token", "none"))
    talkers = await connect_many(target, [(ROOM, f"talker{n}") for n in range(TALKERS)], counts, join=True)
    await session_joins(session)
    async for n in paced(SENT_BYTES / len(TEXT) / SECONDS_OF_TALK, SECONDS_OF_TALK):
        talkers[n % len(talkers)].request({"data": TEXT}, MESSAGE)
    await begin()
    resumed: list[Attacker] = [session]
    async for n in paced(max(1.0, RESUMPTIONS / target.seconds), target.seconds):
        if n >= RESUMPTIONS:
            continue
        query = {"resumable": "1", "resume": token, "ack": "0", "attempt": str(n + 1)}
        with suppress(OSError, WSError, TimeoutError, Ended):
            resumed.append(await connect(target, ROOM, "session", counts, **query))
    close_all([*resumed, *talkers])
    return counts


async def session_joins(session: Attacker) -> None:
    """Joins: only joined peers get messages. A resumable client numbers its frames."""
    join = (
        b'{"cseq":1,"request":true,"id":1,"method":"mediasoup-request","data":{"method":"join","peerName":"session",'
    )
    session.send(join + b'"rtpCapabilities":{"codecs":[],"headerExtensions":[],"fecMechanisms":[]}}}')
    await asyncio.sleep(0.5)
