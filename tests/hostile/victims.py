"""Two peers of a room that has nothing to do with an attack: how long they wait for answers while it lasts."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from loadtest.model.histogram import percentile
from shared.protocol.client import REQUEST
from tests.hostile.target import CAPABILITIES

ROOM: Final = "victims"
PROBED: Final = "probed"
"""The room of clients that only look whether the cluster serves."""
RATE: Final = 30.0
"""Requests a second that each of the two sends, below what a connection may."""
QUIET_RATE: Final = 0.5
"""Requests a second of each while a server is away: the room whose messages take most of a full Redis is ended."""
PATIENCE: Final = 10.0
"""Seconds to wait at the end for answers that are still to come."""
UNSERVED: Final = 60.0
"""Seconds that a request counts which was not answered at all."""
PROMPT: Final = 0.1
"""Seconds within which an answer comes from a cluster that serves again."""


@dataclass
class Waiting:
    """The seconds that each request took, from when it was due until its answer came."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    """Requests that were answered with an error, which counts as an answer."""
    unserved: int = 0

    @property
    def p50(self) -> float:
        return percentile(self.seconds, 0.50)

    @property
    def p99(self) -> float:
        return percentile(self.seconds, 0.99)


class Victims:
    """The pair. A session continues over another connection when its gateway ends."""

    def __init__(self, ws: str, seed: int) -> None:
        self._chance = random.Random(seed)
        self.clients = [
            ProtooClient(ws, ROOM, name, hooks=Hooks(notified=_ignore)) for name in ("victim1", "victim2")
        ]
        self._waiting = Waiting()

    async def join(self) -> None:
        for client in self.clients:
            await client.open()
            await client.request({"method": "join", "peerName": client.peer, "rtpCapabilities": CAPABILITIES})

    async def media_address(self) -> tuple[str, int]:
        """Returns the TCP candidate of a transport of the first victim."""
        created = await self.clients[0].request(
            {"method": "createTransport", "id": 1, "direction": "recv", "options": {}}
        )
        candidates: list[dict[str, Any]] = created["iceCandidates"]
        found = next(it for it in candidates if it["protocol"] == "tcp")
        return str(found["ip"]), int(found["port"])

    async def measure(self, seconds: float, rate: float = RATE) -> Waiting:
        """Sends requests at a steady rate, whether or not the earlier ones are answered."""
        self._waiting = waiting = Waiting()
        sent = await asyncio.gather(*(self._send(client, waiting, seconds, rate) for client in self.clients))
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while len(waiting.seconds) < sum(sent) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        self._waiting = Waiting()  # answers that come later are too late
        missing = sum(sent) - len(waiting.seconds)
        waiting.unserved += missing
        waiting.seconds += [UNSERVED] * missing
        return waiting

    async def _send(self, client: ProtooClient, waiting: Waiting, seconds: float, rate: float) -> int:
        loop = asyncio.get_running_loop()
        due, ends, sent = loop.time(), loop.time() + seconds, 0
        while due < ends:
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._ask(client, waiting, due)
            sent += 1
            due += self._chance.uniform(0.5, 1.5) / rate
        return sent

    def _ask(self, client: ProtooClient, waiting: Waiting, due: float) -> None:
        loop = asyncio.get_running_loop()

        def answered(_: Any, failure: Refusal | Ended | None) -> None:
            if self._waiting is not waiting:
                return
            lost = isinstance(failure, Ended)
            waiting.refused += isinstance(failure, Refusal)
            waiting.unserved += lost
            waiting.seconds.append(UNSERVED if lost else loop.time() - due)

        try:
            client.post({"method": "queryRoom"}, answered, REQUEST)
        except Exception as ended:  # noqa: BLE001 - `Ended` or `Overflow`: the request is not served
            waiting.unserved += 1
            waiting.seconds.append(UNSERVED)
            del ended

    async def answered(self) -> bool:
        """Waits until nothing is left that was asked; returns whether that came, in sessions that go on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while any(client.in_flight for client in self.clients) and loop.time() < deadline:
            await asyncio.sleep(0.05)
        return not any(client.in_flight or client.ended.done() for client in self.clients)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


async def probe(ws: str, prompt: float = PROMPT) -> bool:
    """Whether a new client can join a room and is answered within `prompt` seconds."""
    client = ProtooClient(ws, PROBED, "probe", resumable=False, hooks=Hooks(notified=_ignore))
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(2):
            await client.open()
            await client.request({"method": "join", "peerName": "probe", "rtpCapabilities": CAPABILITIES})
            began = loop.time()
            await client.request({"method": "queryRoom"})
            return loop.time() - began < prompt
    except Exception:  # noqa: BLE001 - whatever goes wrong: it is not served
        return False
    finally:
        await client.abort()


def _ignore(_method: str, _data: Any) -> None:
    """Notifications are not measured."""
