"""Takes the traffic of an attack and discards it: python -m tests.hostile.discarder. For control runs.

The process answers a WebSocket's handshake, greets a resumable session, answers HTTP with an empty body, and reads
everything else without looking at it. It writes its port and runs until it is told to end.
"""

import asyncio
import base64
import contextlib
import hashlib
import sys
from typing import cast

import orjson
import uvloop

from shared.aio.websocket import text_header

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_END = b"\r\n\r\n"


class Discarder(asyncio.Protocol):
    def __init__(self) -> None:
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, but is none

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            return
        self._head += data
        while not self._upgraded and _END in self._head:
            head, _, self._head = self._head.partition(_END)
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        assert self._transport is not None
        request, *lines = head.split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        key = headers.get(b"sec-websocket-key")
        if key is None:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0" + _END)
            return
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: protoo\r\nSec-WebSocket-Accept: " + accept + _END
        )
        if b"resumable=1" in request:
            resumed = b"resume=" in request
            info = {"resumed": True, "in": 0} if resumed else {"resumed": False, "token": "none.none"}
            frame = {"notification": True, "method": "session", "data": {**info, "graceSeconds": 15}}
            body = orjson.dumps(frame)
            self._transport.write(text_header(len(body)) + body)
        self._upgraded, self._head = True, b""


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Discarder, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
