"""Clients that cost little and check every answer: no future and no task for a message, nothing parsed but numbers.

A message ends in the sender's number and its own; each receiver keeps the last of every sender. What is lost, comes
twice, or comes where it must not is found by `Tally.verify`.
"""

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

import orjson
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from shared.aio.websocket import send_text

TEXT: Final = "Could everybody who is not speaking please mute, there is an echo on the line. " + "." * 9
_OF_ONE_SENDER: Final = 10**8
_DIGITS: Final = 12
_END: Final = 3
"""Of a frame, behind the number."""
PATIENCE: Final = 30.0


class Wrong(AssertionError):
    """A benchmark's answers were not what they must be."""


class Tally:
    """What all clients of a fleet have seen."""

    def __init__(self) -> None:
        self.answered = 0
        self.delivered = 0
        self.reordered = 0
        self.latencies: list[float] = []
        """Seconds from a request to its answer."""
        self.flooding = False
        """Each answer is followed by the next request."""
        self.wrong: list[str] = []


class LoadClient(WSListener, ABC):
    """One peer. `others` are the numbers of those in the same room."""

    answers_in_order: ClassVar[bool] = True

    def __init__(self, number: int, others: Sequence[int], tally: Tally) -> None:
        self.number = number
        self.tally = tally
        self.sent = 0
        self.heard = dict.fromkeys(others, 0)
        self.early: set[tuple[int, int]] = set()
        self.waiting: dict[int, float] = {}
        self.transport: WSTransport
        self._ready: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def open(
        cls, url: str, room: str, number: int, others: Sequence[int], tally: Tally, *, joined: bool = True
    ) -> "LoadClient":
        """`url` is http://…; in the room when this returns, if `joined` is asked for."""
        client = cls(number, others, tally)
        await ws_connect(
            lambda: client,
            url.replace("http", "ws", 1) + cls.address(room, f"peer{number}"),
            extra_headers=cls.headers(),
            read_buffer_init_size=2048,
            use_aiofastnet=False,
        )
        async with asyncio.timeout(PATIENCE):
            await client.greet(joined)
        return client

    @staticmethod
    @abstractmethod
    def address(room: str, peer: str) -> str: ...

    @staticmethod
    def headers() -> dict[str, str]:
        return {}

    @abstractmethod
    async def greet(self, joined: bool) -> None: ...

    @abstractmethod
    def frame(self, n: int, text: str) -> bytes: ...

    def ask(self) -> None:
        """Sends the next message, as a request, to all others in the room."""
        self.sent = n = self.sent + 1
        body = self.frame(n, f"{TEXT}{self.number * _OF_ONE_SENDER + n:012d}")
        self.waiting[n] = time.perf_counter()
        send_text(self.transport, body)

    def close(self) -> None:
        self.transport.disconnect()

    # --- what comes ---------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.on_text(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.tally.wrong.append(f"peer{self.number} was closed: {frame.get_close_code()}")

    @abstractmethod
    def on_text(self, body: bytes) -> None: ...

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
            self.tally.wrong.append(f"peer{self.number} got message {n} of peer{sender} again, or not for it")
            return
        self.tally.reordered += 1
        self.early.add((sender, n))

    def on_answer(self, n: int, ok: bool) -> None:
        began = self.waiting.pop(n, None)
        tally = self.tally
        if began is None or not ok:
            tally.wrong.append(f"peer{self.number}: answer to {n} is an error, or comes again")
            return
        tally.latencies.append(time.perf_counter() - began)
        tally.answered += 1
        if tally.flooding:
            self.ask()

    def on_ready(self, id_: int, result: Any) -> None:
        """The answer to something that is asked before the load begins."""
        if (ready := self._ready.pop(id_, None)) is not None and not ready.done():
            ready.set_result(result)

    def expect(self, id_: int) -> "asyncio.Future[Any]":
        """What `on_ready` will be given for this id."""
        self._ready[id_] = asyncio.get_running_loop().create_future()
        return self._ready[id_]


class ProtooClient(LoadClient):
    """protoo 4, for Plenary and the Node process alike."""

    _RESPONSE: Final = b'{"response":true,"id":'
    _MESSAGE: Final = b'{"notification":true,"method":"message"'
    _SETUP: Final = 10**9
    """Ids from here on are not messages'."""

    def __init__(self, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(number, others, tally)
        self._setup = itertools.count(self._SETUP)

    @staticmethod
    def address(room: str, peer: str) -> str:
        return "/?" + urlencode({"roomId": room, "peerName": peer})

    @staticmethod
    def headers() -> dict[str, str]:
        return {"Sec-WebSocket-Protocol": "protoo"}

    async def greet(self, joined: bool) -> None:
        if joined:
            capabilities = (await self.request({"method": "queryRoom"}))["rtpCapabilities"]
            join = {"method": "join", "peerName": f"peer{self.number}", "rtpCapabilities": capabilities}
            await self.request(join)

    async def request(self, data: dict[str, Any]) -> Any:
        id_ = next(self._setup)
        frame = {"request": True, "id": id_, "method": "mediasoup-request", "data": data}
        expected = self.expect(id_)
        send_text(self.transport, self.numbered(orjson.dumps(frame)))
        answer = await expected
        if not answer.get("ok"):
            raise Wrong(str(answer))
        return answer["data"]

    def notify(self, data: dict[str, Any]) -> None:
        frame = {"notification": True, "method": "mediasoup-notification", "data": data}
        send_text(self.transport, self.numbered(orjson.dumps(frame)))

    def numbered(self, body: bytes) -> bytes:
        return body

    def frame(self, n: int, text: str) -> bytes:
        return b'{"request":true,"id":%d,"method":"message","data":{"data":"%s"}}' % (n, text.encode())

    def on_text(self, body: bytes) -> None:
        if body.startswith(self._MESSAGE):
            self.on_message(body)
        elif body.startswith(self._RESPONSE):
            start = len(self._RESPONSE)
            comma = body.index(b",", start)
            id_ = int(body[start:comma])
            if id_ < self._SETUP:
                self.on_answer(id_, body.startswith(b'"ok":true', comma + 1))
            else:
                self.on_ready(id_, orjson.loads(body))


class ResumableClient(ProtooClient):
    """The same with Plenary's resumable sessions: both directions numbered and checked."""

    def __init__(self, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(number, others, tally)
        self._cseq = 0
        self._seq = 0

    @staticmethod
    def address(room: str, peer: str) -> str:
        return "/?" + urlencode({"roomId": room, "peerName": peer, "resumable": "1"})

    def notify(self, data: dict[str, Any]) -> None:
        frame = {"notification": True, "method": "mediasoup-notification", "data": data}
        send_text(self.transport, self.numbered(orjson.dumps(frame)))

    def numbered(self, body: bytes) -> bytes:
        self._cseq += 1
        return b'{"cseq":%d,%s' % (self._cseq, body[1:])

    def frame(self, n: int, text: str) -> bytes:
        return self.numbered(super().frame(n, text))

    def on_text(self, body: bytes) -> None:
        if not body.startswith(b'{"seq":'):
            return  # of the connection: `session`
        comma = body.index(b",")
        self._seq += 1
        if int(body[7:comma]) != self._seq:
            self.tally.wrong.append(f"peer{self.number}: frame {body[7:comma]!r} instead of {self._seq}")
        super().on_text(b"{" + body[body.index(b",", comma + 1) + 1 :])


class SocketIoClient(LoadClient):
    """Engine.IO 4 and Socket.IO 5 in their text frames, over WebSocket from the first byte."""

    answers_in_order = False
    _MESSAGE: Final = b'42["message"'
    _CONNECTED: Final = -1

    def __init__(self, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(number, others, tally)
        self._connected = self.expect(self._CONNECTED)

    @staticmethod
    def address(room: str, peer: str) -> str:
        query = {"EIO": "4", "transport": "websocket", "roomId": room, "peerName": peer}
        return "/socket.io/?" + urlencode(query)

    async def greet(self, joined: bool) -> None:
        await self._connected

    def frame(self, n: int, text: str) -> bytes:
        return b'42%d["message",{"data":"%s"}]' % (n, text.encode())

    def on_text(self, body: bytes) -> None:
        if body.startswith(self._MESSAGE):
            self.on_message(body)
        elif body.startswith(b"43"):
            bracket = body.index(b"[")
            self.on_answer(int(body[2:bracket]), ok=True)
        elif body == b"2":
            send_text(self.transport, b"3")
        elif body.startswith(b"0"):
            send_text(self.transport, b"40")
        elif body.startswith(b"40"):
            self.on_ready(self._CONNECTED, None)
        else:
            self.tally.wrong.append(f"peer{self.number} got {body[:80]!r}")
