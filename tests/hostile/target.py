"""What an attack is aimed at, and the means that attacks share: connections, raw frames, a steady pace."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import msgspec
import orjson
from picows import WSError

from loadtest.client.connection import Connection, Ended
from shared.protocol.client import REQUEST

UNSENT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes that an attacker keeps for a server that does not read; it sends nothing more then."""
CAPABILITIES: Final = {
    "codecs": [
        {"kind": "audio", "name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2,
         "preferredPayloadType": 100, "rtcpFeedback": [], "parameters": {}},
    ],
    "headerExtensions": [],
    "fecMechanisms": [],
}  # fmt: skip
TEXT, CONTINUATION, PING = 1, 0, 9
"""Opcodes of frames."""
_MASKED: Final = 0x80
_FIN: Final = 0x80


class Target(msgspec.Struct, frozen=True):
    """The addresses of a cluster, or of a process that only discards what it gets (`control`).

    `ws` is ws://host:port, `http` http://host:port, `media` the host and port of a media engine's TCP candidate.
    """

    ws: str
    http: str
    media: tuple[str, int] = ("", 0)
    seconds: float = 20.0
    seed: int = 1
    control: bool = False


Counts: TypeAlias = Counter[str]
Attack: TypeAlias = Callable[[Target, Callable[[], Awaitable[None]]], Awaitable[Counts]]
"""Prepares itself, awaits the start, attacks for `target.seconds`, closes what it opened and returns what it did."""


class Attacker:
    """One connection of an attack. What it receives is counted and thrown away, but for answers that are awaited."""

    def __init__(self, target: Target, room: str, peer: str, counts: Counts, query: dict[str, str]) -> None:
        self.target = target
        self.peer = peer
        self._query = {"roomId": room, "peerName": peer, **query}
        self._counts = counts
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ended = False
        self.greeting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        """The data of the first `session` notification of a resumable session."""
        self.connection = Connection(self._received, self._lost)

    async def open(self) -> "Attacker":
        """Connects. Raises OSError, WSError, TimeoutError or `Ended`."""
        await self.connection.open(f"{self.target.ws}/ws?{urlencode(self._query)}")
        self._counts["connections"] += 1
        return self

    @property
    def alive(self) -> bool:
        return not self._ended

    def _received(self, _: Connection, body: bytes) -> None:
        self._counts["bytes received"] += len(body)
        if not self.greeting.done() and b'"method":"session"' in body:
            self.greeting.set_result(orjson.loads(body)["data"])
        elif self._answers and b'"response"' in body[:64]:
            frame = orjson.loads(body)
            if (waiting := self._answers.pop(frame["id"], None)) is not None and not waiting.done():
                waiting.set_result(frame)

    def _lost(self, connection: Connection) -> None:
        self._ended = True
        code, _ = connection.ended.result()
        self._counts[f"closed {code}"] += 1
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(Ended(code, "closed"))
        if not self.greeting.done():
            self.greeting.cancel()

    def write(self, frames: bytes, count: int = 1) -> bool:
        """Writes encoded WebSocket frames, unless the server does not read; returns whether it did."""
        if self._ended:
            return False
        transport = self.connection.transport.underlying_transport
        if transport.is_closing() or transport.get_write_buffer_size() > UNSENT_LIMIT:
            self._counts["held back"] += count
            return False
        transport.write(frames)
        self._counts["frames"] += count
        self._counts["bytes"] += len(frames)
        return True

    def send(self, body: bytes) -> bool:
        """Sends one text frame."""
        return self.write(frame(TEXT, body))

    def request(self, data: Any, method: str = REQUEST) -> int:
        """Sends a request and returns its id."""
        id_ = next(self._ids)
        self.send(orjson.dumps({"request": True, "id": id_, "method": method, "data": data}))
        return id_

    async def ask(self, data: Any) -> dict[str, Any]:
        """Sends a request and returns the frame that answers it; {} at once from the process that discards."""
        if self.target.control:
            self.request(data)
            return {}
        waiting: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self.request(data)] = waiting
        async with asyncio.timeout(60):
            return await waiting

    async def join(self) -> "Attacker":
        await self.ask({"method": "join", "peerName": self.peer, "rtpCapabilities": CAPABILITIES})
        return self

    def stop_reading(self) -> None:
        self.connection.transport.underlying_transport.pause_reading()

    def close(self) -> None:
        if not self._ended:
            self.connection.drop()


class Returning:
    """An attacker that connects again when it was closed, at most once a second."""

    def __init__(self, target: Target, room: str, peer: str, counts: Counts, *, join: bool = False) -> None:
        self._target, self._room, self._peer, self._counts, self._join = target, room, peer, counts, join
        self._attacker: Attacker | None = None
        self._not_before = 0.0

    async def get(self) -> Attacker | None:
        """Returns the attacker with an open connection; None while it has none."""
        if self._attacker is not None and self._attacker.alive:
            return self._attacker
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return None
        self._not_before = now + 1.0
        try:
            self._attacker = await connect(self._target, self._room, self._peer, self._counts)
            if self._join:
                await self._attacker.join()
        except (OSError, WSError, TimeoutError, Ended):
            self._counts["refused"] += 1
            return None
        return self._attacker

    def close(self) -> None:
        if self._attacker is not None:
            self._attacker.close()


async def connect(target: Target, room: str, peer: str, counts: Counts, **query: str) -> Attacker:
    return await Attacker(target, room, peer, counts, query).open()


async def connect_many(
    target: Target, names: list[tuple[str, str]], counts: Counts, *, join: bool = False, at_once: int = 16
) -> list[Attacker]:
    """Connects to (room, peer) each; those that the server refuses are counted and left out."""
    gate = asyncio.Semaphore(at_once)

    async def one(room: str, peer: str) -> Attacker | None:
        async with gate:
            try:
                attacker = await connect(target, room, peer, counts)
                return await attacker.join() if join else attacker
            except (OSError, WSError, TimeoutError, Ended):
                counts["refused"] += 1
                return None

    return [it for it in await asyncio.gather(*(one(*name) for name in names)) if it is not None]


def close_all(attackers: list[Attacker]) -> None:
    for attacker in attackers:
        attacker.close()


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Returns a client's frame, masked with zeros (RFC 6455 §5.2)."""
    first = (_FIN if fin else 0) | opcode
    size = len(payload)
    if size < 126:
        head = bytes((first, _MASKED | size))
    elif size < 1 << 16:
        head = bytes((first, _MASKED | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, _MASKED | 127)) + size.to_bytes(8)
    return head + bytes(4) + payload


async def paced(rate: float, seconds: float) -> AsyncIterator[int]:
    """Yields so many times a second, by the clock: what was missed while this process had to wait is made up for."""
    loop = asyncio.get_running_loop()
    began, done = loop.time(), 0
    while (passed := loop.time() - began) < seconds:
        due = int(passed * rate) + 1
        while done < due:
            yield done
            done += 1
        await asyncio.sleep(max(0.0, began + done / rate - loop.time()))
