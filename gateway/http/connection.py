"""Reads one HTTP request from a new connection, answers it and closes, or hands the connection on to a WebSocket.

A client gets `REQUEST_SECONDS` for its request and `RESPONSE_SECONDS` to take the response, however slowly it sends
or reads. A connection holds a buffer of `FIRST_BYTES`, which grows to a head's largest size and no further.
"""

import asyncio
from collections.abc import Callable, Iterator, MutableSet
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeAlias, cast

from gateway.counters import Counters
from gateway.http.request import HEAD_BYTES, BadRequest, Request, parse_head
from gateway.http.response import Response, refuse, respond
from gateway.protocol.admission import Origin
from shared.telemetry import log

REQUEST_SECONDS: Final = 10.0
"""Seconds from the accepted connection, or the end of its TLS handshake, to the end of the request's head."""
RESPONSE_SECONDS: Final = 30.0
LINGER_SECONDS: Final = 2.0
"""Seconds for which the rest of a request is read and discarded after the response was sent: a closed socket with
unread bytes in it would be reset, and the client might lose the response."""
FIRST_BYTES: Final = 2048
EMPTY_BYTES: Final = 64
"""Bytes of empty lines that may come before a request."""
DISCARDED_BYTES: Final = 1024 * 1024
"""Bytes that are read and discarded after the response was sent."""
_END: Final = b"\r\n\r\n"
_NO_REQUEST: Final = BadRequest(HTTPStatus.BAD_REQUEST, f"request line: more than {EMPTY_BYTES} bytes of empty lines")


class Successor(Protocol):
    """A protocol that takes a connection over (`asyncio.BufferedProtocol`)."""

    def connection_made(self, transport: Any) -> None: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Switch:
    """The answer to a request that another protocol goes on with; it is given `head` in place of the request's."""

    protocol: Successor
    head: bytes


Handler: TypeAlias = Callable[[Request, Origin], Response | Switch]


class HttpConnection(asyncio.BufferedProtocol):
    """A connection until its request is answered or handed on. `origin` says whose it is."""

    __slots__ = (
        "_answering",
        "_buffer",
        "_counters",
        "_deadline",
        "_discarded",
        "_filled",
        "_handler",
        "_loop",
        "_open",
        "_origin",
        "_timer",
        "_transport",
        "opened_at",
    )

    def __init__(
        self, handler: Handler, origin: Origin, counters: Counters, open_connections: MutableSet["HttpConnection"]
    ) -> None:
        self._handler = handler
        self._origin = origin
        self._counters = counters
        self._open = open_connections
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(FIRST_BYTES)
        self._filled = 0
        self._discarded = 0
        """Bytes that were no part of a head: empty lines, and all that comes after the response."""
        self._answering = False
        self._deadline = 0.0
        self.opened_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.opened_at = self._loop.time()
        self._open.add(self)
        self._timer = self._loop.call_later(REQUEST_SECONDS, self._request_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._origin.release()

    def eof_received(self) -> bool:
        return False  # the transport sends what is written and closes

    def abort(self) -> None:
        """Cuts the connection off, which is not counted any more at once."""
        self._leave()
        self._origin.release()
        self._transport.abort()

    def _leave(self) -> None:
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- in -------------------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._answering:
            self._discard(nbytes)
            return
        before, self._filled = self._filled, self._filled + nbytes
        searched = max(0, before + 1 - len(_END) - self._skip_empty_lines())
        if self._discarded > EMPTY_BYTES:
            self._counters.count_refused("malformed")
            self._send(refuse(_NO_REQUEST), with_body=True)
            return
        end = self._buffer.find(_END, searched, self._filled)
        if 0 <= end < HEAD_BYTES:
            head = bytes(memoryview(self._buffer)[:end])
            self._answer(head, bytes(memoryview(self._buffer)[end + len(_END) : self._filled]))
        elif end >= 0 or self._filled >= HEAD_BYTES:
            self._counters.count_refused("too_large")
            self._send(refuse(self._too_large()), with_body=True)
        elif self._filled == len(self._buffer):
            # A new buffer, since the event loop still holds a view of the old one.
            self._buffer = self._buffer + bytes(len(self._buffer))

    def _skip_empty_lines(self) -> int:
        """Forgets empty lines before a request (RFC 9112 §2.2); returns their size in bytes."""
        skipped, limit = 0, EMPTY_BYTES - self._discarded
        while skipped <= limit and self._buffer.startswith(b"\r\n", skipped, self._filled):
            skipped += len(b"\r\n")
        if skipped:
            self._buffer = self._buffer[skipped:] + bytes(skipped)
            self._filled -= skipped
            self._discarded += skipped
        return skipped

    def _discard(self, size: int) -> None:
        """Forgets bytes that came after the response: `_filled` stays, so that the next ones overwrite these."""
        self._discarded += size
        if self._discarded > DISCARDED_BYTES and not self._transport.is_closing():
            self._transport.pause_reading()

    def _too_large(self) -> BadRequest:
        if b"\r\n" not in self._buffer:
            return BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, f"target: more than {HEAD_BYTES} bytes")
        return BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers: more than {HEAD_BYTES} bytes")

    def _request_is_late(self) -> None:
        self._counters.count_refused("timeout")
        if not self._filled:  # as a browser leaves connections that it opened in advance
            self._transport.close()
            return
        late = f"no complete request within {REQUEST_SECONDS:g} s\n".encode()
        self._send(respond(HTTPStatus.REQUEST_TIMEOUT, late), with_body=True)

    # --- out ------------------------------------------------------------------------------------------------

    def _answer(self, head: bytes, rest: bytes) -> None:
        method = head.partition(b" ")[0]
        try:
            answer = self._handler(parse_head(head), self._origin)
        except BadRequest as refused:
            self._counters.count_refused("malformed")
            answer = refuse(refused)
        except Exception:  # noqa: BLE001 - a defect must not leave the client without an answer
            log.get("http").exception("request.failed")
            answer = respond(HTTPStatus.INTERNAL_SERVER_ERROR, b"a defect of the server\n")
        match answer:
            case Response():
                self._send(answer, with_body=method != b"HEAD")
            case Switch():
                self._leave()
                self._transport.set_protocol(cast("asyncio.BaseProtocol", answer.protocol))
                answer.protocol.connection_made(self._transport)
                self._feed(answer.head)
                self._feed(rest)

    def _feed(self, data: bytes) -> None:
        """Gives bytes to the protocol of the transport as if they had come from it."""
        view = memoryview(data)
        while view and not self._transport.is_closing():
            protocol = cast("Successor", self._transport.get_protocol())
            buffer = protocol.get_buffer(len(view))
            size = min(len(buffer), len(view))
            if not size:  # a client that sends so much before it has the response breaks RFC 6455 §4.1
                self._transport.abort()
                return
            buffer[:size] = view[:size]
            protocol.buffer_updated(size)
            view = view[size:]

    def _send(self, response: Response, *, with_body: bool) -> None:
        """Sends a response without copying its body, and closes when it is sent."""
        if self._timer is not None:
            self._timer.cancel()
        self._answering = True
        self._filled = 0
        body = response.body if with_body else b""
        self._transport.writelines([response.head(), body] if body else [response.head()])
        self._deadline = self._loop.time() + RESPONSE_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._linger)
        else:
            self._transport.close()
            self._timer = self._loop.call_later(RESPONSE_SECONDS, self._transport.abort)

    def _linger(self) -> None:
        """Closes a connection whose client has got its response and does not close itself."""
        if not self._transport.get_write_buffer_size():
            self._transport.close()
        elif self._loop.time() >= self._deadline:
            self._counters.count_refused("timeout")
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(LINGER_SECONDS, self._linger)


class OpenConnections(MutableSet[HttpConnection]):
    """Connections that have no WebSocket, at least not yet, the oldest first."""

    def __init__(self) -> None:
        self._connections: dict[HttpConnection, None] = {}

    def __contains__(self, connection: object) -> bool:
        return connection in self._connections

    def __iter__(self) -> Iterator[HttpConnection]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, value: HttpConnection) -> None:
        self._connections[value] = None

    def discard(self, value: HttpConnection) -> None:
        self._connections.pop(value, None)
