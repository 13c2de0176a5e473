"""Closes accepted WebSockets, with or without a session.

A closing socket stays open until the client has answered the close frame, so that it sees code and reason;
`ClosingSockets` cuts off those that never answer.
"""

from typing import Final, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from gateway.counters import Counters
from gateway.websocket.connection_log import ConnectionLog, client_address, user_agent
from gateway.websocket.frame_reader import FrameReader
from shared import errors
from shared.errors import CloseKind

CLOSING_SWEEPS: Final = 6
"""The number of sweeps that a closing socket may take."""
REASON_BYTES: Final = 123
"""RFC 6455 §5.5: a control frame has 125 bytes at most, two of which are the code."""
CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
"""The codes below 3000 that IANA lists and that a close frame may have; 1005, 1006 and 1015 are never sent."""
OWN_CLOSE_CODES: Final = range(3000, 5000)
"""The codes of libraries and applications."""
_NO_CODE: Final = 1000


class ClosingSockets:
    """Holds the sockets that are closing, with the sweeps that each has left."""

    def __init__(self) -> None:
        self._left: dict[Socket, int] = {}

    def add(self, socket: "Socket") -> None:
        self._left.setdefault(socket, CLOSING_SWEEPS)

    def discard(self, socket: "Socket") -> None:
        self._left.pop(socket, None)

    def sweep(self) -> None:
        """Cuts off sockets that have been closing for too long. To be called at regular intervals."""
        late = []
        for socket, left in self._left.items():
            self._left[socket] = left - 1
            if left <= 0:
                late.append(socket)
        for socket in late:
            socket.abort()

    def abort(self) -> None:
        """Cuts all of them off."""
        for socket in list(self._left):
            socket.abort()


def has_reserved_bit(frame: WSFrame) -> bool:
    """Returns whether a frame has a bit that no extension has given a meaning (RFC 6455 §5.2)."""
    return frame.rsv1 or frame.rsv2 or frame.rsv3


def is_valid_close(frame: WSFrame) -> bool:
    """Returns whether a close frame may be sent by a client (RFC 6455 §7.4); picows looks at its length and text."""
    if has_reserved_bit(frame):
        return False
    code = int(frame.get_close_code())  # type: ignore[call-overload]
    return not frame.payload_size or code in CLOSE_CODES or code in OWN_CLOSE_CODES


class Socket(WSListener):
    """A listener of picows, which calls `on_ws_…` and `…_writing`. The other methods are for its `FrameReader`."""

    __slots__ = ("_closing_sockets", "_counters", "closing", "reader", "transport")

    reader: FrameReader
    transport: WSTransport

    def __init__(self, closing_sockets: ClosingSockets, counters: Counters) -> None:
        self._closing_sockets = closing_sockets
        self._counters = counters
        self.closing = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.reader = FrameReader(self, transport)
        # picows keeps the headers for the connection's life, but nothing needs them any more: 2 KiB a connection.
        transport.request.headers.clear()
        transport.response.headers.clear()

    def close(self, code: int, reason: str) -> None:
        """Sends a close frame after what is already written; later frames of the client are ignored."""
        if self.closing:
            return
        self.closing = True
        text = reason.encode()[:REASON_BYTES].decode(errors="ignore")
        self.transport.send_close(cast("WSCloseCode", code), text)
        self._closing_sockets.add(self)

    def close_as(self, kind: CloseKind) -> None:
        """Closes the socket and counts the code."""
        if not self.closing:
            self._counters.count_close(kind.code)
        self.close(kind.code, kind.reason)

    def abort(self) -> None:
        """Cuts the socket off without a close frame."""
        self.closing = True
        self.transport.disconnect(False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handles a close frame; overridden where other frames matter."""
        if frame.msg_type == WSMsgType.CLOSE:
            if is_valid_close(frame):
                self.close(int(frame.get_close_code()) or _NO_CODE, "")  # type: ignore[call-overload]
            else:
                self.protocol_error()
            self._closing_sockets.add(self)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.note_close_by_picows()
        self.closing = True
        self._closing_sockets.discard(self)

    # --- what the reader calls ------------------------------------------------------------------------------

    def bytes_received(self, size: int) -> None:
        """Counts what was read from the socket; overridden where that has a limit."""

    def frame_begins(self, opcode: int, size: int) -> bool:
        """Counts a frame before it is handled; returns False if it is to be skipped."""
        return True

    def protocol_error(self) -> None:
        self.close_as(errors.PROTOCOL)

    def note_close_by_picows(self) -> None:
        if self.closing or not self.transport.is_close_frame_sent:
            return
        sent = self.transport.close_handshake.sent
        assert sent is not None
        self.closed_by_picows(int(sent.code))  # type: ignore[call-overload]

    def closed_by_picows(self, code: int) -> None:
        """Counts a close by picows itself, over bytes that are no frame."""
        self.closing = True
        self._counters.count_close(code)
        self._closing_sockets.add(self)  # picows closes when all is sent, for which the client might never ask

    # --- writing --------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


class RejectedSocket(Socket):
    """A WebSocket that gets no session: accepted, since a browser learns a reason only from a close frame."""

    __slots__ = ("_error", "_kind", "_log")

    def __init__(
        self, closing_sockets: ClosingSockets, counters: Counters, log: ConnectionLog, kind: CloseKind, error: str
    ) -> None:
        super().__init__(closing_sockets, counters)
        self._log = log
        self._kind = kind
        self._error = error

    def on_ws_connected(self, transport: WSTransport) -> None:
        kind = self._kind
        self._log.rejected(kind.code, kind.reason, user_agent(transport), client_address(transport), self._error)
        super().on_ws_connected(transport)
        self.close_as(self._kind)
