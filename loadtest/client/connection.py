"""The WebSocket connection of a protoo client, on picows."""

import asyncio
from collections.abc import Callable
from typing import Final

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from shared.aio.websocket import send_text

GREETING_SECONDS: Final = 15.0
"""Seconds of one attempt, from the first byte to the server's greeting."""
_MAX_FRAME: Final = 2**24
_TEXT: Final = WSMsgType.TEXT


class Ended(Exception):
    """The session is over: `code` and `reason` of the last close."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Connection(WSListener):
    """A connection of a protoo client. `greeted` becomes true when the session is open, false if it ends before.

    `on_text(connection, body)` gets each text frame, `on_end(connection)` is called once.
    """

    def __init__(
        self, on_text: "Callable[[Connection, bytes], None]", on_end: "Callable[[Connection], None]"
    ) -> None:
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[tuple[int, str]] = loop.create_future()
        self.transport: WSTransport
        self._over = False
        """True when the connection has ended: frames that still arrive are ignored."""
        self._on_text = on_text
        self._on_end = on_end

    async def open(self, address: str) -> None:
        """Returns when the WebSocket is open. Raises OSError, WSError or TimeoutError."""
        await ws_connect(
            lambda: self,
            address,
            extra_headers={"Sec-WebSocket-Protocol": "protoo"},
            max_frame_size=_MAX_FRAME,
            read_buffer_init_size=2048,
            use_aiofastnet=False,
        )
        if not hasattr(self, "transport"):  # picows treats an exception in its handshake as a success
            raise ConnectionResetError(f"{address.partition('?')[0]}: the connection broke in the handshake")

    async def until_greeted(self) -> None:
        """Returns when the session is open. Raises `Ended` if the server closes the connection instead."""
        try:
            on = await self.greeted
        finally:
            if not self.greeted.done() or self.greeted.cancelled():
                self.drop()
        if not on:
            raise Ended(*await self.ended)

    def write(self, body: bytes) -> None:
        if not self.transport.underlying_transport.is_closing():  # otherwise `ended` is about to be set
            send_text(self.transport, body)

    def drop(self) -> None:
        """Closes the connection without a close frame."""
        self._over = True
        self.transport.disconnect(False)

    def end(self, code: int, reason: str) -> None:
        """Marks the connection as ended; frames that still arrive are ignored."""
        if self.ended.done():
            return
        self._over = True
        self.ended.set_result((code, reason))
        if not self.greeted.done():
            self.greeted.set_result(False)
        self._on_end(self)

    # --- picows ---------------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == _TEXT:
            if not self._over:
                self._on_text(self, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.end(int(frame.get_close_code()), frame.get_close_reason() or "")  # type: ignore[call-overload]
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.end(1006, "")
