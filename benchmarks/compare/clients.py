"""Clients that cost little and check every answer: they have no future or task per message and parse numbers only.

A message ends in the sender's number and its own; each receiver keeps the last number of every sender.
`Fleet.settled` finds messages that are lost, duplicated, or delivered to the wrong peer.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlencode

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from shared.aio.websocket import send_text

TEXT: Final = "Could everybody who is not speaking please mute, there is an echo on the line. " + "." * 9
_OF_ONE_SENDER: Final = 10**8
_DIGITS: Final = 12
_END: Final = 3
"""Bytes of a frame after the number."""
ANSWER_SECONDS: Final = 30.0


class CheckFailed(AssertionError):
    """The answers or deliveries of a system were wrong."""


class Tally:
    """The counts of all clients of a fleet."""

    def __init__(self) -> None:
        self.answered = 0
        self.delivered = 0
        self.reordered = 0
        self.latencies: list[float] = []
        """Seconds from a request to its answer."""
        self.flooding = False
        """True while each answer is followed by the next request."""
        self.failures: list[str] = []


class LoadClient(ABC):
    """A peer of a fleet. `url` is http://…, `others` are the numbers of the other peers in its room."""

    def __init__(self, url: str, room: str, number: int, others: Sequence[int], tally: Tally) -> None:
        self.number = number
        self.peer = f"peer{number}"
        self.tally = tally
        self.sent = 0
        self.heard = dict.fromkeys(others, 0)
        self.early: set[tuple[int, int]] = set()
        self.waiting: dict[int, float] = {}
        self._address = url.replace("http", "ws", 1)
        self._room = room

    @classmethod
    async def open(
        cls, url: str, room: str, number: int, others: Sequence[int], tally: Tally, *, joined: bool = True
    ) -> Self:
        """Returns a client that is connected and, if `joined` is asked for, in the room."""
        client = cls(url, room, number, others, tally)
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.connect()
            if joined:
                await client.join()
        return client

    @abstractmethod
    async def connect(self) -> None: ...

    async def join(self) -> None:  # noqa: B027 - some are in the room as soon as they are connected
        """Enters the room."""

    @abstractmethod
    def write(self, body: bytes) -> None:
        """Sends one text frame."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def frame(self, n: int, text: str) -> bytes: ...

    def ask(self) -> None:
        """Sends the next message, as a request, to all others in the room."""
        self.sent = n = self.sent + 1
        body = self.frame(n, f"{TEXT}{self.number * _OF_ONE_SENDER + n:012d}")
        self.waiting[n] = time.perf_counter()
        self.write(body)

    # --- what comes ---------------------------------------------------------------------------------------------

    def on_closed(self, code: object) -> None:
        self.tally.failures.append(f"peer{self.number} was closed: {code}")

    def on_message(self, body: bytes) -> None:
        tally = self.tally
        tally.delivered += 1
        sender, n = divmod(int(body[-_END - _DIGITS : -_END]), _OF_ONE_SENDER)
        if self.heard.get(sender) == n - 1:
            self.heard[sender] = n
        else:
            self._unexpected(sender, n)

    def _unexpected(self, sender: int, n: int) -> None:
        last = self.heard.get(sender)
        if last is None or n <= last or (sender, n) in self.early:
            self.tally.failures.append(f"peer{self.number} got message {n} of peer{sender} again, or not for it")
            return
        self.tally.reordered += 1
        self.early.add((sender, n))

    def on_answer(self, n: int, ok: bool) -> None:
        began = self.waiting.pop(n, None)
        tally = self.tally
        if began is None or not ok:
            tally.failures.append(f"peer{self.number}: answer to {n} is an error, or comes again")
            return
        tally.latencies.append(time.perf_counter() - began)
        tally.answered += 1
        if tally.flooding:
            self.ask()


class PlainClient(LoadClient):
    """A client of Plenary and the Node process: the shared protoo client, with a faster path for messages."""

    resumable: ClassVar[bool] = False
    _RESPONSE: Final = b'{"response":true,"id":'
    _MESSAGE: Final = b'{"notification":true,"method":"message"'
    _FIRST_ID: Final = 10**9
    """The first id of the shared client's requests; lower ids are those of messages."""

    def __init__(self, url: str, room: str, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(url, room, number, others, tally)
        self.protoo = ProtooClient(
            *(self._address, room, self.peer),
            resumable=self.resumable,
            path="/",
            hooks=Hooks(frame=self.on_frame),
            first_id=self._FIRST_ID,
        )
        self._closing = False

    async def connect(self) -> None:
        await self.protoo.open()
        self.protoo.ended.add_done_callback(lambda ended: self._ended(ended.result()))

    def _ended(self, why: Ended) -> None:
        if not self._closing:
            self.on_closed(why)

    async def join(self) -> None:
        capabilities = (await self.request({"method": "queryRoom"}))["rtpCapabilities"]
        await self.request({"method": "join", "peerName": self.peer, "rtpCapabilities": capabilities})

    async def request(self, data: dict[str, Any]) -> Any:
        try:
            return await self.protoo.request(data)
        except Refusal as refusal:
            raise CheckFailed(str(refusal)) from None

    def write(self, body: bytes) -> None:
        self.protoo.send_encoded(body)

    def close(self) -> None:
        self._closing = True
        self.protoo.send_close()

    def frame(self, n: int, text: str) -> bytes:
        return b'{"request":true,"id":%d,"method":"message","data":{"data":"%s"}}' % (n, text.encode())

    def on_frame(self, body: bytes) -> bool:
        """Handles messages and their answers; parses numbers only."""
        if body.startswith(self._MESSAGE):
            self.on_message(body)
            return True
        if not body.startswith(self._RESPONSE):
            return True  # other notifications
        start = len(self._RESPONSE)
        comma = body.index(b",", start)
        if (id_ := int(body[start:comma])) >= self._FIRST_ID:
            return False
        self.on_answer(id_, body.startswith(b'"ok":true', comma + 1))
        return True


class ResumableClient(PlainClient):
    """A client with Plenary's resumable sessions: both directions are numbered and checked."""

    resumable = True

    def _ended(self, why: Ended) -> None:
        super()._ended(why)
        if self.protoo.ledger.duplicates or self.protoo.ledger.gaps:
            self.tally.failures.append(f"peer{self.number}: the session's numbers had repetitions or gaps")


class SocketIoClient(LoadClient, WSListener):
    """A client of Engine.IO 4 and Socket.IO 5 with text frames, over WebSocket from the start."""

    _MESSAGE: Final = b'42["message"'
    transport: WSTransport

    def __init__(self, url: str, room: str, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(url, room, number, others, tally)
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        query = {"EIO": "4", "transport": "websocket", "roomId": self._room, "peerName": self.peer}
        address = f"{self._address}/socket.io/?{urlencode(query)}"
        await ws_connect(lambda: self, address, read_buffer_init_size=2048, use_aiofastnet=False)
        await self._connected

    def write(self, body: bytes) -> None:
        send_text(self.transport, body)

    def close(self) -> None:
        self.transport.disconnect()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.on_text(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.on_closed(frame.get_close_code())

    def frame(self, n: int, text: str) -> bytes:
        return b'42%d["message",{"data":"%s"}]' % (n, text.encode())

    def on_text(self, body: bytes) -> None:
        if body.startswith(self._MESSAGE):
            self.on_message(body)
        elif body.startswith(b"43"):
            bracket = body.index(b"[")
            self.on_answer(int(body[2:bracket]), ok=True)
        elif body == b"2":
            self.write(b"3")
        elif body.startswith(b"0"):
            self.write(b"40")
        elif body.startswith(b"40"):
            self._connected.set_result(None)
        else:
            self.tally.failures.append(f"peer{self.number} got {body[:80]!r}")
