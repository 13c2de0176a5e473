"""A protoo client over WebSocket. A resumable session continues over any number of connections.

The load test, the benchmarks, the fault driver and the tests share this client.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlencode

import orjson
from picows import WSCloseCode, WSError

from loadtest.client.connection import GREETING_SECONDS, Connection
from loadtest.client.connection import Ended as Ended
from loadtest.client.ledger import Ledger
from shared.aio.backoff import Backoff
from shared.protocol.client import NOTIFICATION, REQUEST, SESSION

PAUSE_FIRST, PAUSE_MOST = 0.1, 1.0
_FINAL_CODES: Final = (4000, 4001)
"""Close codes after which the session cannot be resumed."""
_RETRY_CODE: Final = 4002
_MAX_RETRIES: Final = 6
"""Consecutive closes with `_RETRY_CODE`, without a new frame in between, after which the client gives up."""
_NUMBERS: Final = re.compile(rb'\{"seq":(\d+),"ack":(\d+),')


class Refusal(Exception):
    """A request was answered with an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


Notified: TypeAlias = Callable[[str, Any], None]
Answered: TypeAlias = Callable[[Any, Refusal | Ended | None], None]
"""Called with the answer's data and None, or with None and the error answer or the end of the session."""


@dataclass(frozen=True)
class Hooks:
    """The callbacks of a client's owner. Every hook may be left out.

    `notified` gets method and data of each notification (else they are put into `ProtooClient.notifications`);
    `frame` sees the bytes of each frame first, without session numbers, and returns whether it has handled them;
    `resumed` gets the seconds for which a broken connection was away; `violation` gets the kind (`duplicated` or
    `reordered`) and a description of an answer that must not be; `failed` gets what a callback raised. Without
    `failed` such an exception ends the connection.
    """

    notified: Notified | None = None
    frame: Callable[[bytes], bool] | None = None
    resumed: Callable[[float], None] | None = None
    violation: Callable[[str, str], None] | None = None
    failed: Callable[[Exception], None] | None = None


@dataclass
class Counts:
    connections: int = 0
    resumed: int = 0


class _Open(NamedTuple):
    """A request that is not answered yet."""

    what: str
    then: Answered


class ProtooClient:
    """A session of a peer. `urls` are gateways (ws://host:port), tried in turn, `url` first.

    A session that is not resumable ends with its connection. `first_id` is the id of the first request: an owner
    that writes requests itself (`send_encoded`) keeps the ids below to itself.
    """

    def __init__(
        self,
        url: str,
        room: str,
        peer: str,
        *,
        resumable: bool = True,
        urls: Sequence[str] = (),
        path: str = "/ws",
        query: dict[str, str] | None = None,
        hooks: Hooks | None = None,
        first_id: int = 1,
    ) -> None:
        self.room = room
        self.peer = peer
        self.url = url
        """The gateway of the last connection."""
        self.resumable = resumable
        self.ledger = Ledger()
        self.counts = Counts()
        self.notifications: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._urls = itertools.cycle([url, *(other for other in urls if other != url)])
        self._path = path
        self._query = {"roomId": room, "peerName": peer, **(query or {})}
        if resumable:
            self._query["resumable"] = "1"
        self._hooks = hooks or Hooks()
        self._notified = self._hooks.notified or self._queue_notification
        self._frame = self._hooks.frame
        self._ids = itertools.count(first_id)
        self._open: dict[int, _Open] = {}
        self._last_answered = 0
        self._connection: Connection | None = None
        """The connection while it is greeted, otherwise None."""
        self._lost_at = 0.0
        self._fruitless = 0
        self._work: asyncio.Task[None] | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    async def open(self) -> "ProtooClient":
        """Returns when the session is open. Raises `Ended`, OSError, WSError or TimeoutError if that fails."""
        try:
            connection = await self._connect(next(self._urls), {})
        except BaseException:
            self._release_hooks()
            raise
        self._work = asyncio.create_task(self._stay(connection), name=f"{self.room}/{self.peer}")
        return self

    async def close(self) -> None:
        """Ends the session; returns when the server has closed the connection."""
        if (connection := self._connection) is not None:
            self._stop()
            connection.transport.send_close(WSCloseCode.OK)
            await connection.transport.wait_disconnected()
        await self.abort()

    async def abort(self) -> None:
        """Ends the client without a close frame; the session is not resumed."""
        self._stop()
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work = None
        self._finish(Ended(1000, "closed here"))

    def _stop(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def send_close(self) -> None:
        """Sends a close frame, which ends the session; does not wait for the server's answer."""
        if (connection := self._connection) is not None:
            self._stop()
            connection.transport.send_close(WSCloseCode.OK)
            connection.transport.disconnect()
        self._finish(Ended(1000, "closed here"))

    def drop_connection(self) -> None:
        """Drops the connection as a lost network does; a resumable session then continues over another."""
        if self._connection is not None:
            self._connection.drop()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def _connect(self, url: str, query: dict[str, str]) -> Connection:
        connection = Connection(self._received, self._lost)
        async with asyncio.timeout(GREETING_SECONDS):
            await connection.open(f"{url}{self._path}?{urlencode({**self._query, **query})}")
            self.counts.connections += 1
            self.url = url
            if not self.resumable:
                self._greet(connection)
            await connection.until_greeted()
        return connection

    async def _stay(self, connection: Connection) -> None:
        while True:
            await asyncio.wait([connection.ended])  # cancelling this task does not end the connection
            code, reason = connection.ended.result()
            again = await self._resume() if self._may_resume(code) else None
            if again is None:
                self._finish(Ended(code, reason))
                return
            connection = again

    def _lost(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._lost_at = time.monotonic()

    def _may_resume(self, code: int) -> bool:
        self._fruitless = self._fruitless + 1 if code == _RETRY_CODE else 0
        return self.resumable and code not in _FINAL_CODES and self._fruitless < _MAX_RETRIES

    async def _resume(self) -> Connection | None:
        """Returns a connection over which the session continues, or None if it cannot."""
        backoff = Backoff(PAUSE_FIRST, PAUSE_MOST, scatter=True)
        try:
            async with asyncio.timeout(self.ledger.grace_seconds):
                while True:
                    try:
                        return await self._connect(next(self._urls), self.ledger.resume())
                    except Ended as ended:
                        if ended.code in _FINAL_CODES:
                            return None
                    except (OSError, WSError, TimeoutError):
                        pass
                    await backoff.wait()
        except TimeoutError:
            return None

    def _finish(self, ended: Ended) -> None:
        if self.ended.done():
            return
        self.ended.set_result(ended)
        if (last := self._connection) is not None:
            last.end(ended.code, ended.reason)
            last.drop()
        unanswered, self._open = self._open, {}
        for asked in unanswered.values():
            asked.then(None, ended)
        self._release_hooks()

    def _release_hooks(self) -> None:
        """Drops the hooks, which may refer to this client's owner, so that no reference cycle is left."""
        self._hooks = Hooks()
        self._notified, self._frame = _ignore, None

    def _queue_notification(self, method: str, data: Any) -> None:
        self.notifications.put_nowait((method, data))

    # --- out ----------------------------------------------------------------------------------------------------

    async def request(self, data: Any, method: str = REQUEST) -> Any:
        """Returns the answer's data. Raises `Refusal`, or `Ended` if the session ends first."""
        return await self.ask(data, method)

    def ask(self, data: Any, method: str = REQUEST) -> "asyncio.Future[Any]":
        """Sends a request at once. The future has the result of `request`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(result: Any, failure: Refusal | Ended | None) -> None:
            if answer.done():
                return
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)

        self.post(data, answered, method)
        return answer

    def post(self, data: Any, then: Answered, method: str = REQUEST, what: str = "") -> None:
        """Sends a request at once. `then` is called when the answer arrives, in the order of all frames.

        `what` names the request in `unanswered` and in violations. Raises `Ended` or `Overflow`.
        """
        id_ = next(self._ids)
        self._open[id_] = _Open(what or method, then)
        try:
            self.send({"request": True, "id": id_, "method": method, "data": data})
        except BaseException:
            del self._open[id_]
            raise

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def unanswered(self) -> list[str]:
        """Names the requests that are not answered yet, oldest first."""
        return [asked.what for asked in self._open.values()]

    def notify(self, data: Any, method: str = NOTIFICATION) -> None:
        self.send({"notification": True, "method": method, "data": data})

    def send(self, frame: dict[str, Any]) -> None:
        """Sends a frame, or keeps it for the next connection. Raises `Ended`, or `Overflow`."""
        self.send_encoded(orjson.dumps(frame))

    def send_encoded(self, body: bytes) -> None:
        """Sends a frame that is encoded as a JSON object already, as `send` does."""
        if self.ended.done():
            raise self.ended.result()
        connection = self._connection
        if self.resumable:
            body = self.ledger.number(body)
        elif connection is None:
            raise Ended(1006, "not connected")
        if connection is not None:
            connection.write(body)

    # --- in -----------------------------------------------------------------------------------------------------

    def _received(self, connection: Connection, body: bytes) -> None:
        if self.resumable:
            ledger = self.ledger
            numbers = _NUMBERS.match(body)
            if numbers and connection is self._connection and int(numbers[1]) == ledger.seq + 1:
                ledger.seq += 1  # the usual case, at little cost
                ledger.acknowledged(int(numbers[2]))
                body = b"{" + body[numbers.end() :]
            elif (new := self._without_numbers(connection, body)) is not None:
                body = new
            else:
                return
            self._fruitless = 0
        try:
            if self._frame is None or not self._frame(body):
                self._dispatch(orjson.loads(body))
        except Exception as failure:
            if self._hooks.failed is None:
                raise
            self._hooks.failed(failure)

    def _without_numbers(self, connection: Connection, body: bytes) -> bytes | None:
        """Removes and records the session's numbers. Returns None for duplicates and the connection's own frames."""
        frame = orjson.loads(body)
        seq, ack = frame.pop("seq", None), frame.pop("ack", None)
        if seq is None and frame.get("method") == SESSION:
            self._session(connection, frame["data"])
            return None
        if self._connection is not connection:
            return None  # no frame of this session comes before the greeting
        before = self.ledger.gaps
        if not self.ledger.accept(seq, ack):
            if self.ledger.gaps > before:
                connection.end(1006, "gap")
                connection.drop()
            return None
        return orjson.dumps(frame)

    def _dispatch(self, frame: dict[str, Any]) -> None:
        if frame.get("response"):
            self._answered(frame)
        elif frame.get("notification"):
            self._notified(frame["method"], frame["data"])

    def _answered(self, frame: dict[str, Any]) -> None:
        id_ = frame["id"]
        asked = self._open.pop(id_, None)
        if asked is None:
            self._violated("duplicated", f"answer to request {id_}, which is not open")
            return
        if id_ < self._last_answered:
            self._violated("reordered", f"{asked.what} {id_} answered after {self._last_answered}")
        self._last_answered = max(self._last_answered, id_)
        if frame.get("ok"):
            asked.then(frame["data"], None)
        else:
            asked.then(None, Refusal(frame["errorCode"], frame["errorReason"]))

    def _violated(self, kind: str, text: str) -> None:
        if self._hooks.violation is not None:
            self._hooks.violation(kind, f"{self.room}/{self.peer}: {text}")
        elif kind == "duplicated":
            self.ledger.duplicates += 1

    def _session(self, connection: Connection, info: dict[str, Any]) -> None:
        """Handles the connection's own frames: greetings and acknowledgements."""
        if "ack" in info:
            self.ledger.acknowledged(info["ack"])
        elif info["resumed"]:
            self.counts.resumed += 1
            again = self.ledger.resumed(info["in"])
            self._greet(connection)
            for encoded in again:
                connection.write(encoded)
        elif "token" in info:
            self.ledger.token = info["token"]
            self.ledger.grace_seconds = info["graceSeconds"]
            self._greet(connection)
        # otherwise the server refuses, and closes the connection next

    def _greet(self, connection: Connection) -> None:
        self._connection = connection
        connection.greeted.set_result(True)
        if self._lost_at:
            if self._hooks.resumed is not None:
                self._hooks.resumed(time.monotonic() - self._lost_at)
            self._lost_at = 0.0


def _ignore(_method: str, _data: Any) -> None:
    """Receives notifications after the session is over."""
