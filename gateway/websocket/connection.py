"""One client's socket with its session: frames in, messages out, and when to stop reading or give up."""

from time import perf_counter
from typing import Final

from picows import WSFrame, WSMsgType, WSTransport

from gateway.bus.partition_publisher import PartitionPublisher
from gateway.protocol import frame_validation
from gateway.protocol.session import Session
from gateway.websocket.hub import Hub
from gateway.websocket.socket import Socket
from shared import errors
from shared.aio.websocket import text_header
from shared.protocol.bus import Message
from shared.protocol.protoo import Frame, error_frame, protocol_error_frame

FRAME_BYTES: Final = 1024 * 1024
"""A larger frame ends the connection; between this and the settings' `frame_limit` it is answered 413."""

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_CLOSE: Final = WSMsgType.CLOSE


class Connection(Socket):
    __slots__ = (
        "_bucket",
        "_fragments",
        "_timed_from",
        "_unwritten",
        "heard",
        "hub",
        "paused",
        "peer",
        "pinged",
        "publisher",
        "session",
        "timed",
    )

    def __init__(self, hub: Hub, session: Session, publisher: PartitionPublisher, peer: str) -> None:
        super().__init__(hub.closing_sockets, hub.counters)
        self.hub = hub
        self.session = session
        self.publisher = publisher
        self.peer = peer
        self.paused = False
        self.heard = True
        self.pinged = False
        self._fragments: bytearray | None = None
        self._unwritten: list[bytes] = []
        self._bucket = hub.bucket()
        self.timed = -1
        """The number of the input whose way is being timed; -1: none."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        # picows then calls `pause_writing` when the client has left this much unread.
        transport.underlying_transport.set_write_buffer_limits(high=self.hub.settings.send_buffer)
        self.hub.opened(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self._fragments = None
        self.hub.closed(self)

    def close(self, code: int, reason: str) -> None:
        self.flush()
        super().close(code, reason)
        self.resume_reading()  # or the client's answer to the close frame would stay unread

    # --- in -------------------------------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard = True
        kind = frame.msg_type
        if self.closing or transport.is_close_frame_sent or kind == _CLOSE:
            super().on_ws_frame(transport, frame)
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close_as(errors.PROTOCOL)
        elif kind == _TEXT and frame.fin and self._fragments is None:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError as broken:
                self._handle(frame_validation.MalformedFrame(f"frame: not valid UTF-8 (byte {broken.start})"))
            else:
                self._text(text, frame.payload_size)
        elif kind in (_TEXT, _CONTINUATION):
            self._fragment(frame)
        elif kind == _BINARY:
            self._binary(frame)

    def _text(self, text: str, size: int) -> None:
        self.hub.counters.frames_in_total += 1
        self._handle(frame_validation.validate(text, size, self.hub.settings.frame_limit))

    def _handle(self, verdict: frame_validation.ValidationResult) -> None:
        """Of one frame; overridden by who looks at its number first."""
        hub, session = self.hub, self.session
        before = session.size
        self._keep(self._rate_limited(verdict))
        if session.size == before:
            return
        hub.held += session.size - before
        counters = hub.counters
        counters.until_timed -= 1
        if counters.until_timed < 0:
            counters.until_timed = counters.stride - 1
            if self.timed < 0:
                self.timed, self._timed_from = session.last_input, perf_counter()
        self.publisher.schedule(session)
        if session.beyond(hub.limits) or hub.full:
            self._pause_reading()

    def _rate_limited(self, verdict: frame_validation.ValidationResult) -> frame_validation.ValidationResult:
        if self._bucket is None or self._bucket.admit():
            return verdict
        self.hub.too_fast(self, self._bucket.refused)
        return frame_validation.rate_limited(verdict)

    def _keep(self, verdict: frame_validation.ValidationResult) -> None:
        """Gives the session what is its input."""
        hub = self.hub
        match verdict:
            case Frame(request=True, id=int(id_)) if hub.dependencies_down and self.session.revocable:
                self.answer_unavailable(id_)
            case Frame():
                self.session.input(verdict)
            case frame_validation.RejectedRequest():
                hub.counters.reject_frame("answered", verdict.code)
                self.session.refuse(verdict.id, verdict.code, verdict.reason)
            case frame_validation.MalformedFrame():
                self._complain(verdict.reason)
            case frame_validation.RejectedNotification():
                hub.dropped(self, verdict)
            case frame_validation.Response():
                hub.counters.reject_frame("dropped", errors.BadPayload.code)

    def _fragment(self, frame: WSFrame) -> None:
        """RFC 6455 §5.4; picows leaves joining to us."""
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
        except UnicodeDecodeError as broken:
            self._handle(frame_validation.MalformedFrame(f"frame: not valid UTF-8 (byte {broken.start})"))
        else:
            self._text(text, len(joined))

    def _binary(self, frame: WSFrame) -> None:
        if frame.fin and self._fragments is None:
            self._handle(frame_validation.MalformedFrame("frame: expected text, got binary"))
        else:
            self.close_as(errors.PROTOCOL)

    def _complain(self, reason: str) -> None:
        """Not numbered, so it may be answered here (I2)."""
        self.hub.counters.reject_frame("malformed", errors.BadPayload.code)
        self.transport.send(_TEXT, protocol_error_frame(errors.BadPayload(reason)))

    def answer_unavailable(self, id_: int) -> None:
        """A request that has no number, or one that nobody will hear of: it is not done."""
        if self.closing:
            return
        self.hub.counters.reject_frame("unavailable", errors.Unavailable.code)
        self.transport.send(_TEXT, error_frame(id_, errors.Unavailable("servers are away: try again later")))

    def timing_ended(self) -> None:
        """The input that was timed is applied, and its answer written."""
        self.timed = -1
        self.hub.counters.request.observe(perf_counter() - self._timed_from)

    # --- out ------------------------------------------------------------------------------------------------

    def write(self, message: Message) -> None:
        self.collect(message)
        self.flush()

    def collect(self, message: Message) -> bool:
        """For `flush`, which sends many frames in the time of one; whether it is the first."""
        if message.close:
            self.close_as(errors.CloseKind(message.close, message.body.decode(errors="replace")))
            return False
        if self.closing:
            return False
        self.hub.counters.frames_out_total += 1
        unwritten, body = self._unwritten, message.body
        is_first = not unwritten
        unwritten += (text_header(len(body)), body)
        return is_first

    def flush(self) -> None:
        if self._unwritten:
            unwritten, self._unwritten = self._unwritten, []
            transport = self.transport.underlying_transport
            if not self.closing and not transport.is_closing():  # uvloop raises for one that is
                transport.write(b"".join(unwritten))

    @property
    def unsent(self) -> int:
        """Bytes that the client has left unread, as far as they are kept here."""
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
        if self.paused:
            self.paused = False
            self.hub.paused.discard(self)
            if not self.transport.underlying_transport.is_closing():
                self.transport.underlying_transport.resume_reading()

    # --- liveness -------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Pings a client from which nothing came since the last call, and drops it at the next."""
        if self.heard or self.paused:  # whose pong we do not read proves nothing
            self.heard = self.pinged = False
        elif self.pinged:
            self.abort()
        elif not self.closing:
            self.pinged = True
            self.transport.send_ping()
