"""Connects one client's socket with its session: passes frames and messages on, pauses reading, checks liveness."""

from time import monotonic, perf_counter
from typing import Final, assert_never

from picows import WSFrame, WSMsgType, WSTransport

from gateway.bus.partition_publisher import PartitionPublisher
from gateway.protocol.events import NOTHING, Events
from gateway.protocol.frame_validation import (
    MalformedFrame,
    RejectedNotification,
    RejectedRequest,
    Response,
    ValidationResult,
    rate_limited,
    validate,
)
from gateway.protocol.session import Session
from gateway.websocket.connection_log import RequestLog
from gateway.websocket.hub import Hub
from gateway.websocket.socket import Socket
from shared import errors
from shared.aio.websocket import text_header
from shared.protocol.bus import Message
from shared.protocol.protoo import Frame, error_frame, protocol_error_frame

FRAME_BYTES: Final = 1024 * 1024
"""A larger frame ends the connection; one between the setting `frame_limit` and this is answered 413."""

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_CLOSE: Final = WSMsgType.CLOSE


class Connection(Socket):
    """A WebSocket with a session. The hub knows it from its opening until its session is forgotten."""

    __slots__ = (
        "_bucket",
        "_bytes_in",
        "_bytes_out",
        "_fragments",
        "_opened_at",
        "_request_log",
        "_timed_from",
        "_unwritten",
        "hub",
        "paused",
        "peer",
        "ping_unanswered",
        "publisher",
        "received_since_check",
        "session",
        "timed_input",
    )

    def __init__(self, hub: Hub, session: Session, publisher: PartitionPublisher, peer: str) -> None:
        super().__init__(hub.closing_sockets, hub.counters)
        self.hub = hub
        self.session = session
        self.publisher = publisher
        self.peer = peer
        self.paused = False
        self.timed_input = -1
        """The number of the input whose handling is being timed; -1 if none is."""
        self.received_since_check = True
        """True if something has come since the last check of the client's liveness."""
        self.ping_unanswered = False
        self._fragments: bytearray | None = None
        self._unwritten: list[bytes] = []
        self._bucket = hub.rate_limiter()
        self._opened_at = 0.0
        self._bytes_in = 0
        self._bytes_out = 0
        self._request_log: RequestLog | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._opened_at = monotonic()
        self.hub.log.opened(self.session, self.peer, transport)
        self._request_log = self.hub.log.requests(self.session, self.peer)
        super().on_ws_connected(transport)
        # picows then calls `pause_writing` when the client has left this much unread.
        transport.underlying_transport.set_write_buffer_limits(high=self.hub.settings.send_buffer)
        self.hub.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self._fragments = None
        seconds = monotonic() - self._opened_at
        self.hub.log.closed(self.session, self.peer, transport, seconds, self._bytes_in, self._bytes_out)
        self.hub.socket_closed(self)

    def close(self, code: int, reason: str) -> None:
        self.flush()
        super().close(code, reason)
        self.resume_reading()  # otherwise the client's answer to the close frame would stay unread

    # --- in -------------------------------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received_since_check = True
        self._bytes_in += frame.payload_size
        kind = frame.msg_type
        if self.closing or transport.is_close_frame_sent or kind == _CLOSE:
            super().on_ws_frame(transport, frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close_as(errors.PROTOCOL)
        elif kind == _TEXT and frame.fin and self._fragments is None:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError as invalid:
                self._handle(MalformedFrame(f"frame: not valid UTF-8 (byte {invalid.start})"))
            else:
                self._handle_text(text, frame.payload_size)
        elif kind in (_TEXT, _CONTINUATION):
            self._add_fragment(frame)
        elif kind == _BINARY:
            self._handle_binary(frame)

    def _handle_text(self, text: str, size: int) -> None:
        self.hub.counters.frames_in_total += 1
        self._handle(validate(text, size, self.hub.settings.frame_limit))

    def _handle(self, frame: ValidationResult) -> None:
        """Handles one frame; overridden where its number is checked first."""
        hub, session = self.hub, self.session
        events = self._forward(self._limit_rate(frame))
        if not events:
            return
        hub.perform(self, events)
        counters = hub.counters
        counters.until_sample -= 1
        if counters.until_sample < 0:
            counters.until_sample = counters.sample_every - 1
            if self.timed_input < 0:
                self.timed_input, self._timed_from = session.last_input, perf_counter()
        if session.exceeds(hub.limits) or hub.overloaded:
            self._pause_reading()

    def _limit_rate(self, frame: ValidationResult) -> ValidationResult:
        if self._bucket is None or self._bucket.admit():
            return frame
        self.hub.count_rate_limited(self, self._bucket.rejected)
        return rate_limited(frame)

    def _forward(self, frame: ValidationResult) -> Events:
        """Gives the session what is to be an input, and answers or drops everything else."""
        hub = self.hub
        if self._request_log is not None and isinstance(frame, Frame | RejectedRequest):
            self._request_log.received(frame)
        match frame:
            case Frame(request=True, id=int(id_)) if hub.dependencies_down and self.session.cancellable:
                self.answer_unavailable(id_)
            case Frame():
                return self.session.input(frame)
            case RejectedRequest():
                hub.counters.count_rejected_frame("answered", frame.code)
                return self.session.reject(frame.id, frame.code, frame.reason)
            case MalformedFrame():
                self._report_malformed(frame.reason)
            case RejectedNotification():
                hub.count_rejected_notification(self, frame)
            case Response():
                hub.counters.count_rejected_frame("dropped", errors.BadPayload.code)
            case _:
                assert_never(frame)
        return NOTHING

    def _add_fragment(self, frame: WSFrame) -> None:
        """Joins the fragments of a message (RFC 6455 §5.4), which picows leaves to its user."""
        starts = frame.msg_type == _TEXT
        if starts == (self._fragments is not None):
            self.close_as(errors.PROTOCOL)
            return
        if self._fragments is None:
            self._fragments = bytearray()
        if len(self._fragments) + frame.payload_size > FRAME_BYTES:
            self._fragments = None
            self.close_as(errors.TOO_BIG)
            return
        self._fragments += frame.get_payload_as_memoryview()
        if not frame.fin:
            return
        joined, self._fragments = self._fragments, None
        try:
            text = joined.decode()
        except UnicodeDecodeError as invalid:
            self._handle(MalformedFrame(f"frame: not valid UTF-8 (byte {invalid.start})"))
        else:
            self._handle_text(text, len(joined))

    def _handle_binary(self, frame: WSFrame) -> None:
        if frame.fin and self._fragments is None:
            self._handle(MalformedFrame("frame: expected text, got binary"))
        else:
            self.close_as(errors.PROTOCOL)

    def _report_malformed(self, reason: str) -> None:
        """Answers at once: the frame has no number (DELIVERY I2)."""
        self.hub.counters.count_rejected_frame("malformed", errors.BadPayload.code)
        self.transport.send(_TEXT, protocol_error_frame(errors.BadPayload(reason)))

    def answer_unavailable(self, id_: int) -> None:
        """Answers a request that has no number, or was cancelled before it was published: it is not done."""
        if self.closing:
            return
        code = errors.Unavailable.code
        self.hub.counters.count_rejected_frame("unavailable", code)
        self.transport.send(
            _TEXT, error_frame(id_, errors.Unavailable("RabbitMQ or Redis does not answer: try again later"))
        )
        if self._request_log is not None:
            self._request_log.answered(id_, code)

    def input_applied(self) -> None:
        """Records the time of the timed input, which is applied and whose answer is written."""
        self.timed_input = -1
        self.hub.counters.request.observe(perf_counter() - self._timed_from)

    # --- out ------------------------------------------------------------------------------------------------

    def enqueue(self, message: Message) -> bool:
        """Queues a frame for `flush`, which writes many in the time of one; true if it is the first."""
        if message.close:
            self.close_as(errors.CloseKind(message.close, message.body.decode(errors="replace")))
            return False
        if self.closing:
            return False
        self.hub.counters.frames_out_total += 1
        unwritten, body = self._unwritten, message.body
        size = len(body)
        self._bytes_out += size
        if self._request_log is not None:
            self._request_log.written(body)
        is_first = not unwritten
        unwritten += (text_header(size), body)
        return is_first

    def flush(self) -> None:
        """Writes the queued frames."""
        if self._unwritten:
            unwritten, self._unwritten = self._unwritten, []
            transport = self.transport.underlying_transport
            if not self.closing and not transport.is_closing():  # uvloop raises if it is closing
                transport.write(b"".join(unwritten))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the client has left unread, as far as they are in this process's buffers."""
        return int(self.transport.underlying_transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        if not self.closing:
            self.hub.counters.too_slow_total += 1
            self.close_as(errors.TOO_SLOW)

    # --- reading --------------------------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        if not self.paused and not self.transport.underlying_transport.is_closing():
            self.paused = True
            self.hub.paused.add(self)
            self.transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads the socket again, if it is paused."""
        if self.paused:
            self.paused = False
            self.hub.paused.discard(self)
            if not self.transport.underlying_transport.is_closing():
                self.transport.underlying_transport.resume_reading()

    # --- liveness -------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Pings a client from which nothing came since the last call, and cuts it off at the next."""
        # The pong of a paused connection is not read, so its absence proves nothing.
        if self.received_since_check or self.paused:
            self.received_since_check = self.ping_unanswered = False
        elif self.ping_unanswered:
            self.abort()
        elif not self.closing:
            self.ping_unanswered = True
            self.transport.send_ping()
