"""What a client sends that is no part of a request: empty lines before it, and bytes after the response."""

from http import HTTPStatus
from typing import Any

from gateway.counters import Counters
from gateway.http.connection import DISCARDED_BYTES, EMPTY_BYTES, HttpConnection
from gateway.http.request import Request
from gateway.http.response import Response, respond
from gateway.protocol.admission import Admission, AdmissionLimits, Origin


class Transport:
    """Keeps what is written, and whether the socket is read."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True

    def writelines(self, parts: list[bytes]) -> None:
        self.written += b"".join(parts)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False


def answered(_: Request, __: Origin) -> Response:
    return respond(HTTPStatus.OK, b"ok\n")


def made() -> tuple[HttpConnection, Transport]:
    origin = Admission(AdmissionLimits(), (), lambda: 0.0).accept("192.0.2.1", 1)
    connection = HttpConnection(answered, origin, Counters(), set())
    transport: Any = Transport()
    connection.connection_made(transport)
    return connection, transport


def feed(connection: HttpConnection, transport: Transport, data: bytes) -> int:
    """Sends bytes while the connection is read; returns how many were taken."""
    taken = 0
    while taken < len(data) and transport.reading:
        buffer = connection.get_buffer(-1)
        size = min(len(buffer), len(data) - taken)
        buffer[:size] = data[taken : taken + size]
        connection.buffer_updated(size)
        taken += size
    return taken


async def test_empty_lines_beyond_the_limit_are_400() -> None:
    connection, transport = made()
    feed(connection, transport, b"\r\n" * (EMPTY_BYTES // 2))
    assert not transport.written

    feed(connection, transport, b"\r\n")

    assert transport.written.startswith(b"HTTP/1.1 400 ")
    connection.connection_lost(None)


async def test_empty_lines_in_one_read_are_400_beyond_the_limit() -> None:
    connection, transport = made()
    feed(connection, transport, b"\r\n" * 10_000)
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    connection.connection_lost(None)


async def test_client_that_sends_on_after_the_response_is_not_read_for_long() -> None:
    connection, transport = made()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"
    feed(connection, transport, head)
    assert transport.written.startswith(b"HTTP/1.1 200 ")

    taken = feed(connection, transport, bytes(4 * DISCARDED_BYTES))

    assert DISCARDED_BYTES <= taken < 1.1 * DISCARDED_BYTES
    connection.connection_lost(None)
