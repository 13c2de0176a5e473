"""protoo over WebSocket, on picows; with `resumable` the session goes on over as many connections as it takes."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import orjson
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from loadtest.client.ledger import Ledger
from shared.aio.websocket import send_text
from shared.protocol.client import NOTIFICATION, REQUEST, SESSION

GREETING_SECONDS: Final = 15.0
"""For one attempt, from the first byte to the server's greeting."""
PAUSE_FIRST, PAUSE_MOST = 0.1, 1.0
_NEVER_AGAIN: Final = 4000
_GONE: Final = 4001
_SENT: Final = 6
"""Times that a session may be told to come back (4002) without anything new in between."""

Notified: TypeAlias = Callable[[str, Any], None]


class Refusal(Exception):
    """The answer was an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Ended(Exception):
    """The session is over: `code` and `reason` of the last close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass
class Counts:
    connections: int = 0
    resumed: int = 0


class _Socket(WSListener):
    """One connection. `greeted` is true when the session is on, false if it ended before."""

    def __init__(self, client: "ProtooClient") -> None:
        loop = asyncio.get_running_loop()
        self._client = client
        self.greeted: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[tuple[int, str]] = loop.create_future()
        self.transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            if not (self.ended.done() or self.greeted.cancelled()):
                self._client._received(self, orjson.loads(frame.get_payload_as_memoryview()))
        elif frame.msg_type == WSMsgType.CLOSE:
            self.end(int(frame.get_close_code()), frame.get_close_reason() or "")  # type: ignore[call-overload]
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.end(1006, "")

    def end(self, code: int, reason: str) -> None:
        """From here on the connection is no concern of the client's."""
        if self.ended.done():
            return
        self.ended.set_result((code, reason))
        if not self.greeted.done():
            self.greeted.set_result(False)
        self._client._lost(self)


class ProtooClient:
    """One session of one peer. `urls` are gateways (ws://host:port), tried in turn, `url` first.

    What comes is given to `on_notification(method, data)`, or put into `notifications`. A session that is not
    resumable ends with its connection.
    """

    def __init__(
        self,
        url: str,
        room: str,
        peer: str,
        *,
        resumable: bool = True,
        urls: Sequence[str] = (),
        on_notification: Notified | None = None,
        query: dict[str, str] | None = None,
    ) -> None:
        self.room = room
        self.peer = peer
        self.resumable = resumable
        self.ledger = Ledger()
        self.counts = Counts()
        self.notifications: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._urls = itertools.cycle([url, *(other for other in urls if other != url)])
        self._query = {"roomId": room, "peerName": peer, **(query or {})}
        self._on_notification = on_notification or (
            lambda method, data: self.notifications.put_nowait((method, data))
        )
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._socket: _Socket | None = None
        """Only while it is greeted."""
        self._fruitless = 0
        self._work: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> "ProtooClient":
        """Returns when the session is on. Raises `Ended`, OSError or TimeoutError if the first attempt fails."""
        try:
            socket = await self._connect(next(self._urls), {})
        except BaseException:
            self._on_notification = _nobody
            raise
        self._work = asyncio.create_task(self._stay(socket), name=f"{self.room}/{self.peer}")
        return self

    async def close(self) -> None:
        """Ends the session; returns when the server knows."""
        if (socket := self._socket) is not None:
            self._stop()
            socket.transport.send_close(WSCloseCode.OK)
            await socket.transport.wait_disconnected()
        await self.abandon()

    async def abandon(self) -> None:
        """Ends without a word: nobody resumes the session."""
        self._stop()
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work = None
        self._finish(Ended(1000, "closed here"))

    def _stop(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def cut(self) -> None:
        """Drops the connection as a lost network does; a resumable session then goes on over another."""
        if self._socket is not None:
            self._socket.transport.disconnect(False)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def _connect(self, url: str, query: dict[str, str]) -> _Socket:
        resumable = {"resumable": "1"} if self.resumable else {}
        address = f"{url}/ws?{urlencode({**self._query, **resumable, **query})}"
        socket = _Socket(self)
        async with asyncio.timeout(GREETING_SECONDS):
            await ws_connect(
                lambda: socket,
                address,
                extra_headers={"Sec-WebSocket-Protocol": "protoo"},
                max_frame_size=2**24,
                read_buffer_init_size=2048,
                use_aiofastnet=False,
            )
            if not hasattr(socket, "transport"):  # picows takes what breaks in its handshake for a success
                raise ConnectionResetError(f"{url}: broke off in the handshake")
            self.counts.connections += 1
            if not self.resumable:
                self._greet(socket)
            try:
                on = await socket.greeted
            finally:
                if not socket.greeted.done() or socket.greeted.cancelled():
                    socket.transport.disconnect(False)
        if not on:
            raise Ended(*await socket.ended)
        return socket

    async def _stay(self, socket: _Socket) -> None:
        while True:
            await asyncio.wait([socket.ended])  # to be told to stop does not end the connection
            code, reason = socket.ended.result()
            again = await self._resume() if self._may_resume(code) else None
            if again is None:
                self._finish(Ended(code, reason))
                return
            socket = again

    def _lost(self, socket: _Socket) -> None:
        if self._socket is socket:
            self._socket = None

    def _may_resume(self, code: int) -> bool:
        self._fruitless = self._fruitless + 1 if code == 4002 else 0
        return self.resumable and code not in (_NEVER_AGAIN, _GONE) and self._fruitless < _SENT

    async def _resume(self) -> _Socket | None:
        """A connection over which the session goes on; None if it cannot."""
        pause = PAUSE_FIRST
        try:
            async with asyncio.timeout(self.ledger.grace_seconds):
                while True:
                    try:
                        return await self._connect(next(self._urls), self.ledger.resume())
                    except Ended as ended:
                        if ended.code in (_NEVER_AGAIN, _GONE):
                            return None
                    except (OSError, WSError, TimeoutError):
                        pass
                    await asyncio.sleep(pause * random.uniform(0.5, 1))
                    pause = min(2 * pause, PAUSE_MOST)
        except TimeoutError:
            return None

    def _finish(self, ended: Ended) -> None:
        if self.ended.done():
            return
        self.ended.set_result(ended)
        self._on_notification = _nobody  # it may know this client: no cycle is left for the garbage collector
        if (last := self._socket) is not None:
            last.end(ended.code, ended.reason)
            last.transport.disconnect(False)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ended)
        self._waiting.clear()

    # --- out ----------------------------------------------------------------------------------------------------

    async def request(self, data: Any, method: str = REQUEST) -> Any:
        """The answer's data. Raises `Refusal`, or `Ended` if the session ends first."""
        return await self.ask(data, method)

    def ask(self, data: Any, method: str = REQUEST) -> "asyncio.Future[Any]":
        """As `request`, sent at once."""
        id_ = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answer
        try:
            self.send({"request": True, "id": id_, "method": method, "data": data})
        except BaseException:
            del self._waiting[id_]
            raise
        return answer

    def notify(self, data: Any, method: str = NOTIFICATION) -> None:
        self.send({"notification": True, "method": method, "data": data})

    def send(self, frame: dict[str, Any]) -> None:
        """Sends a frame, or keeps it for the next connection. Raises `Ended`, or `Overflow`."""
        if self.ended.done():
            raise self.ended.result()
        if self.resumable:
            encoded = self.ledger.number(frame)
        elif self._socket is not None:
            encoded = orjson.dumps(frame)
        else:
            raise Ended(1006, "not connected")
        if self._socket is not None:
            self._write(self._socket, encoded)

    def _write(self, socket: _Socket, encoded: bytes) -> None:
        if not socket.transport.underlying_transport.is_closing():  # else `ended` is about to say so
            send_text(socket.transport, encoded)

    # --- in -----------------------------------------------------------------------------------------------------

    def _received(self, socket: _Socket, frame: dict[str, Any]) -> None:
        if frame.get("method") == SESSION and "seq" not in frame:
            self._session(socket, frame["data"])
            return
        if self._socket is not socket:
            return  # a frame before the greeting is none of this session's
        before = self.ledger.gaps
        if not self.ledger.received(frame):
            if self.ledger.gaps > before:
                socket.end(1006, "gap")
                socket.transport.disconnect(False)
            return
        self._fruitless = 0
        if frame.get("response"):
            self._answered(frame)
        elif frame.get("notification"):
            self._on_notification(frame["method"], frame["data"])

    def _answered(self, frame: dict[str, Any]) -> None:
        waiting = self._waiting.pop(frame["id"], None)
        if waiting is None:
            self.ledger.duplicates += 1
        elif not waiting.done():
            if frame.get("ok"):
                waiting.set_result(frame["data"])
            else:
                waiting.set_exception(Refusal(frame["errorCode"], frame["errorReason"]))

    def _session(self, socket: _Socket, info: dict[str, Any]) -> None:
        if "ack" in info:
            self.ledger.acknowledged(info["ack"])
        elif info["resumed"]:
            self.counts.resumed += 1
            again = self.ledger.resumed(info["in"])
            self._greet(socket)
            for encoded in again:
                self._write(socket, encoded)
        elif "token" in info:
            self.ledger.token = info["token"]
            self.ledger.grace_seconds = info["graceSeconds"]
            self._greet(socket)
        # else it is refused, and the close that follows says so

    def _greet(self, socket: _Socket) -> None:
        self._socket = socket
        socket.greeted.set_result(True)


def _nobody(_method: str, _data: Any) -> None:
    """Listens when the session is over."""
