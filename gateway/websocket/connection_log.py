"""Logs connections and requests. No line holds anything secret: no query, token or data."""

import logging
from time import perf_counter
from typing import Any, Final, cast

import msgspec
from picows import WSTransport

from gateway.protocol.frame_validation import RejectedRequest
from gateway.protocol.session import Session
from shared.errors import cut
from shared.protocol.protoo import Frame
from shared.telemetry import log

OPEN_REQUESTS: Final = 1024
"""The number of unanswered requests of one connection that are remembered."""
LOST: Final = 1006
"""The close code of RFC 6455 for a connection that ended without a close frame."""
CLIENT_HEADER: Final = "Plenary-Client"
"""The header in the request that picows is given, which holds the client's address (`gateway.websocket.acceptor`)."""
_OK: Final = 200
_ANSWER: Final = b'"response":true'
_HEAD_BYTES: Final = 80
"""The number of first bytes that show whether a frame is an answer, whatever numbers of a session precede."""


class _Answer(msgspec.Struct):
    id: int
    ok: bool = False
    error_code: int = msgspec.field(default=_OK, name="errorCode")


class _Method(msgspec.Struct):
    method: str


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_method = msgspec.json.Decoder(_Method).decode


def socket_address(transport: WSTransport) -> str:
    """Returns the address and port that the socket is connected to."""
    peer = transport.underlying_transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return str(peer or "")
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def client_address(transport: WSTransport) -> str:
    """Returns the address of the client, which is not that of the socket if a trusted proxy is in between."""
    return str(transport.request.headers.get(CLIENT_HEADER, "")) or socket_address(transport)


def user_agent(transport: WSTransport) -> str:
    """Returns the client's User-Agent, cut."""
    return cut(str(transport.request.headers.get("User-Agent", "")))


def close_reason(transport: WSTransport) -> tuple[int, str]:
    """Returns code and reason of the side that closed first, or `LOST`."""
    handshake = cast("Any", transport.close_handshake)  # it may be None, which picows' stubs do not say
    if handshake is None:
        return LOST, ""
    first: Any = handshake.recv if handshake.recv_then_sent or handshake.sent is None else handshake.sent
    return (int(first.code), first.reason or "") if first is not None else (LOST, "")


class ConnectionLog:
    """Logs the connections of a gateway. It costs next to nothing while level info is off."""

    def __init__(self) -> None:
        self._log = log.get("connection")

    def opened(self, session: Session, peer: str, transport: WSTransport) -> None:
        """Logs a connection that got a session. To be called while picows still has the request's headers."""
        if self._log.is_enabled_for(logging.INFO):
            self._log.info(
                "connection.opened",
                room=session.room,
                peer=peer,
                session=session.id,
                connection=session.connection,
                address=client_address(transport),
                resumable=session.kind == "resumable",
                user_agent=user_agent(transport),
            )

    def rejected(self, code: int, reason: str, agent: str, address: str, error: str = "") -> None:
        """Logs a WebSocket that gets no session.

        `code` is the close code, or the HTTP status of a refused upgrade; `error` says more than the reason, if
        anything does.
        """
        about = {"error": cut(error)} if error else {}
        self._log.info(
            "connection.rejected", code=code, reason=reason, address=address, user_agent=cut(agent), **about
        )

    def closed(
        self, session: Session, peer: str, transport: WSTransport, seconds: float, bytes_in: int, bytes_out: int
    ) -> None:
        """Logs a closed connection; `bytes_in` and `bytes_out` are those of the frames' contents."""
        if not self._log.is_enabled_for(logging.INFO):
            return
        code, reason = close_reason(transport)
        self._log.info(
            "connection.closed",
            room=session.room,
            peer=peer,
            session=session.id,
            connection=session.connection,
            code=code,
            reason=cut(reason),
            seconds=round(seconds, 3),
            bytes_in=bytes_in,
            bytes_out=bytes_out,
        )

    def requests(self, session: Session, peer: str) -> "RequestLog | None":
        """Returns the log of one connection's requests; None unless the level is debug."""
        return RequestLog(self._log, session, peer) if self._log.is_enabled_for(logging.DEBUG) else None


class RequestLog:
    """Logs each request of one connection when its answer is written. For level debug only: it reads every frame."""

    def __init__(self, logger: Any, session: Session, peer: str) -> None:
        self._log = logger
        self._session = session
        self._peer = peer
        self._open: dict[int, tuple[str, float]] = {}

    def received(self, frame: Frame | RejectedRequest) -> None:
        """Notes a request that will be answered."""
        if frame.id is not None and len(self._open) < OPEN_REQUESTS:
            self._open[frame.id] = (_method(frame) if isinstance(frame, Frame) else "", perf_counter())

    def written(self, body: bytes) -> None:
        """Logs a request if the written frame is its answer."""
        if _ANSWER not in body[:_HEAD_BYTES]:
            return
        answer = _decode_answer(body)
        self.answered(answer.id, answer.error_code)

    def answered(self, id_: int, code: int) -> None:
        """Logs a request that was answered with 200 or an error code, unless it came over an earlier connection."""
        if id_ not in self._open:
            return
        method, began = self._open.pop(id_)
        self._log.debug(
            "request.answered",
            room=self._session.room,
            peer=self._peer,
            session=self._session.id,
            connection=self._session.connection,
            method=method,
            code=code,
            seconds=round(perf_counter() - began, 6),
        )


def _method(frame: Frame) -> str:
    """Returns the method of a request. That of mediasoup is in the data, as all those frames have the same method."""
    try:
        return _decode_method(frame.data).method
    except msgspec.DecodeError:
        return frame.method
