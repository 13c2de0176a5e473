"""Connects one client's socket with its session: passes frames and messages on, pauses reading, checks liveness."""

import asyncio
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
    skim,
    validate,
)
from gateway.protocol.rate_limit import ClientRate, Excess
from gateway.protocol.session import Session
from gateway.websocket.connection_log import RequestLog
from gateway.websocket.frame_reader import BINARY, CLOSE, TEXT
from gateway.websocket.hub import Hub
from gateway.websocket.socket import Socket, has_reserved_bit
from gateway.websocket.unfinished_message import UnfinishedMessage
from shared import errors
from shared.aio.websocket import text_header
from shared.protocol.bus import Message
from shared.protocol.protoo import Frame, error_frame, protocol_error_frame

FRAME_BYTES: Final = 1024 * 1024
"""A larger message ends the connection; one between the setting `frame_limit` and this is answered 413."""
SHORT_FRAGMENT: Final = 1024
"""A later fragment of a message counts in the client's rate as a message does if it has fewer bytes than this."""

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE


class Connection(Socket):
    """A WebSocket with a session. The hub knows it from its opening until its session is forgotten."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_message",
        "_opened_at",
        "_over_rate",
        "_rate",
        "_refused",
        "_request_log",
        "_throttle",
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

    _rate: ClientRate

    def __init__(self, hub: Hub, session: Session, publisher: PartitionPublisher, peer: str) -> None:
        super().__init__(hub.closing_sockets, hub.counters)
        self.hub = hub
        self.session = session
        self.publisher = publisher
        self.peer = peer
        self.paused = False
        self.timed_input = -1
        """The number of the input whose handling is being timed; -1 if none is."""
        self.received_since_check = False
        """True if something has come since the last ping."""
        self.ping_unanswered = False
        """True if a ping was sent; only together with `received_since_check` it says whether the client is alive."""
        self._message: UnfinishedMessage | None = None
        self._unwritten: list[bytes] = []
        self._refused = False
        """True if the message that began last is above the client's rate."""
        self._throttle: asyncio.TimerHandle | None = None
        """The timer of a pause in reading because of the client's rate."""
        self._over_rate = False
        """True if the client was over its rate for so long that it is not read any more."""
        self._opened_at = 0.0
        self._bytes_in = 0
        self._bytes_out = 0
        self._request_log: RequestLog | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._opened_at = monotonic()
        self.hub.log.opened(self.session, self.peer, transport)
        self._request_log = self.hub.log.requests(self.session, self.peer)
        self._rate = self.hub.client_rates.enter((self.session.room, self.peer), resumed=self.session.resuming)
        super().on_ws_connected(transport)
        # picows then calls `pause_writing` when the client has left this much unread.
        transport.underlying_transport.set_write_buffer_limits(high=self.hub.settings.send_buffer)
        self.hub.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        super().on_ws_disconnected(transport)
        self._discard_message()
        self._end_throttle()
        self.hub.client_rates.leave((self.session.room, self.peer), self._rate)
        seconds = monotonic() - self._opened_at
        self.hub.log.closed(self.session, self.peer, transport, seconds, self._bytes_in, self._bytes_out)
        self.hub.socket_closed(self)

    def close(self, code: int, reason: str) -> None:
        self.flush()
        super().close(code, reason)
        self._discard_message()
        # Otherwise the client's answer to the close frame would stay unread.
        self.resume_reading()
        self._end_throttle()

    # --- in -------------------------------------------------------------------------------------------------

    def bytes_received(self, size: int) -> None:
        if self._rate.spend_bytes(size):
            self._pause_for_rate()

    def frame_begins(self, opcode: int, size: int) -> bool:
        """Counts a frame in the client's rate before it is handled; a control frame above the rate is skipped."""
        is_data = opcode <= BINARY
        if opcode in (TEXT, BINARY):
            refused = self._refused = not self._rate.admit_message()
        elif is_data:
            refused = size < SHORT_FRAGMENT and not self._rate.admit_frame()
        else:
            refused = opcode != CLOSE and not self._rate.admit_frame()
        if refused:
            self.received_since_check = True
            self.hub.count_refused(self, self._rate.refused)
            self._pause_for_rate()
        if is_data and size + (self._message.size if self._message is not None else 0) > FRAME_BYTES:
            self.close_as(errors.TOO_BIG)
        return is_data or not refused

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.received_since_check = True
        self._bytes_in += frame.payload_size
        kind = frame.msg_type
        if self.closing or transport.is_close_frame_sent or kind == _CLOSE:
            super().on_ws_frame(transport, frame)
        elif has_reserved_bit(frame):
            self.close_as(errors.PROTOCOL)
        elif kind == _TEXT and frame.fin and self._message is None:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self.close_as(errors.INVALID_TEXT)
            else:
                self._handle_text(text, frame.payload_size)
        elif kind in (_TEXT, _BINARY, _CONTINUATION):
            self._add_fragment(frame)
        elif kind == _PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self.hub.unsent.update(self)

    def _handle_text(self, text: str, size: int) -> None:
        self.hub.counters.frames_in_total += 1
        self._handle(skim(text) if self._refused else validate(text, size, self.hub.settings.frame_limit))

    def _handle(self, frame: ValidationResult) -> None:
        """Handles one frame; overridden where its number is checked first."""
        hub, session = self.hub, self.session
        events = self._forward(self._refuse_above_rate(frame))
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

    def _refuse_above_rate(self, frame: ValidationResult) -> ValidationResult:
        return rate_limited(frame) if self._refused else frame

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
        """Takes a fragment of a message, or a whole binary one."""
        if (frame.msg_type == _CONTINUATION) == (self._message is None):
            self.close_as(errors.PROTOCOL)
            return
        if self._message is None:
            self._message = UnfinishedMessage(frame)
        else:
            self._message.add(frame)
        if not frame.fin:
            self.hub.unfinished.update(self)
            return
        message = self._message
        self._discard_message()
        try:
            text = message.text()
        except UnicodeDecodeError:
            self.close_as(errors.INVALID_TEXT)
        else:
            if text is None:
                self._handle(MalformedFrame("frame: expected text, got binary"))
            else:
                self._handle_text(text, message.size)

    def _discard_message(self) -> None:
        if self._message is not None:
            self._message = None
            self.hub.unfinished.remove(self)

    @property
    def unfinished_bytes(self) -> int:
        """Bytes held of a message that has begun and not ended."""
        return 0 if self._message is None else self._message.held_bytes

    def cut_unfinished(self) -> None:
        """Gives up a message that has not ended, since all of them take too much memory."""
        self.hub.counters.count_cut("unfinished_total")
        self.close_as(errors.UNAVAILABLE)

    def cut_stalled(self) -> None:
        """Gives up a message that makes no progress."""
        self.hub.counters.count_cut("unfinished_stalled")
        self.close_as(errors.STALLED)

    def _report_malformed(self, reason: str) -> None:
        """Answers at once: the frame has no number (DELIVERY I2)."""
        self.hub.counters.count_rejected_frame("malformed", errors.BadPayload.code)
        self._send(protocol_error_frame(errors.BadPayload(reason)))

    def answer_unavailable(self, id_: int) -> None:
        """Answers a request that has no number, or was cancelled before it was published: it is not done."""
        if self.closing:
            return
        code = errors.Unavailable.code
        self.hub.counters.count_rejected_frame("unavailable", code)
        self._send(error_frame(id_, errors.Unavailable("RabbitMQ or Redis does not answer: try again later")))
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
                data, most = b"".join(unwritten), self.hub.settings.send_buffer
                if len(data) > most // 2:  # as an answer to `join`: one message alone makes no client too slow
                    transport.set_write_buffer_limits(high=most + max(map(len, unwritten)))
                transport.write(data)
                if transport.get_write_buffer_size() or self in self.hub.unsent:
                    self.hub.unsent.update(self)

    def _send(self, body: bytes) -> None:
        """Writes a frame of this gateway's own, which no session numbers."""
        self.transport.send(_TEXT, body)
        self.hub.unsent.update(self)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the client has left unread, as far as they are in this process's buffers."""
        return int(self.transport.underlying_transport.get_write_buffer_size())

    def pause_writing(self) -> None:
        if not self.closing:
            self.hub.counters.too_slow_total += 1
            self.hub.counters.count_cut("unsent")
            self.close_as(errors.TOO_SLOW)

    def cut_unsent(self) -> None:
        """Gives up what the client has not read, since all clients together leave too much unread."""
        if not self.closing:
            self.hub.counters.too_slow_total += 1
            self.hub.counters.count_cut("unsent_total")
        self._unwritten = []
        self.close_as(errors.TOO_SLOW)
        self.abort()  # the close frame would wait behind the very bytes that are too many

    # --- reading --------------------------------------------------------------------------------------------

    @property
    def is_read(self) -> bool:
        """Whether the socket is read."""
        return not (self.paused or self._throttle is not None or self._over_rate)

    def _pause_reading(self) -> None:
        if not self.paused and not self.transport.underlying_transport.is_closing():
            self.paused = True
            self.hub.paused.add(self)
            self.reader.pause()

    def resume_reading(self) -> None:
        """Reads the socket again, if it is paused because of unapplied inputs."""
        if self.paused:
            self.paused = False
            self.hub.paused.discard(self)
            self._read_again()

    def _pause_for_rate(self) -> None:
        """Does not read the socket until the client is within its limits again."""
        if self._throttle is None and not self.closing and (seconds := self._rate.begin_pause()):
            self._throttle = asyncio.get_running_loop().call_later(seconds, self._end_throttle)
            self.reader.pause()

    def _end_throttle(self) -> None:
        if self._throttle is not None:
            self._throttle.cancel()
            self._throttle = None
            self._read_again()

    def _read_again(self) -> None:
        if self.is_read:
            self.reader.resume()

    def check_rate(self) -> bool:
        """Returns whether the client is over its rate, and closes the socket if it is so for too long."""
        match self._rate.sweep():
            case Excess.PAST:
                return False
            case Excess.PRESENT:
                return True
            case Excess.TOO_LONG:
                self._over_rate = True
                self.reader.pause()
                self.hub.counters.count_cut("over_rate")
                self.close_as(errors.OVER_RATE)
                return False

    # --- liveness -------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Pings the client, and cuts it off if nothing has come since the ping of the last call."""
        # The pong of a socket that is not read proves nothing by its absence.
        if self.ping_unanswered and not self.received_since_check and self.is_read:
            self.abort()
        elif not self.closing:
            self.ping_unanswered, self.received_since_check = True, False
            if not self.unsent_bytes:  # the limit may have been raised for a large message
                self.transport.underlying_transport.set_write_buffer_limits(high=self.hub.settings.send_buffer)
            self.transport.send_ping()
            self.hub.unsent.update(self)
