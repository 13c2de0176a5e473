"""Implements AMQP 0-9-1 as RabbitMQ speaks it, without I/O: bytes in, events out; calls in, bytes out.

`AmqpProtocol.receive` turns received bytes into events (`events`). Calls and automatic answers (handshake, closing)
add to the output, which `take_output` hands over. Publishes and acknowledgements, the hot path, are encoded by
`frames` and do not pass here on their way out. The owner of the protocol writes everything in the order of the calls.
"""

import struct
from collections import deque
from enum import Enum, auto
from typing import Any, Final

from pamqp import commands
from pamqp import frame as pamqp_frame

from shared.broker.amqp import frames
from shared.broker.amqp.content import DELIVER, RETURN, ContentAssembler, ProtocolViolation
from shared.broker.amqp.events import (
    Blocked,
    ChannelClosed,
    Closed,
    Confirmed,
    ConsumerCancelled,
    Event,
    Opened,
    Replied,
)

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
FRAME_MAX: Final = 131_072
FRAME_MIN: Final = 4096
CHANNEL_MAX: Final = 2047
CONTENT_MAX: Final = 128 * 1024 * 1024
"""The longest message that RabbitMQ takes by default, in bytes."""

_ACK, _NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_KINDS: Final = frozenset((frames.METHOD, frames.HEADER, frames.BODY, frames.HEARTBEAT))

_frame = struct.Struct(">BHI").unpack_from
_tag = struct.Struct(">QB").unpack_from


class _State(Enum):
    STARTING = auto()
    TUNING = auto()
    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class _ChannelState:
    """The state of one channel: its content, and the answers that it waits for, oldest call first."""

    __slots__ = ("closing", "content", "expected")

    def __init__(self, number: int, content_max: int) -> None:
        self.content = ContentAssembler(number, content_max)
        self.expected: deque[list[str]] = deque()
        self.closing = False


class AmqpProtocol:
    """The protocol of one connection.

    `name` is shown by RabbitMQ's tools. `heartbeat` (seconds; 0: none), `frame_max` (bytes) and `channel_max` are
    what this side asks for; after `Opened` they are what both sides agreed on.
    """

    def __init__(
        self,
        *,
        user: str,
        password: str,
        virtual_host: str,
        name: str,
        heartbeat: int,
        frame_max: int = FRAME_MAX,
        channel_max: int = CHANNEL_MAX,
        content_max: int = CONTENT_MAX,
    ) -> None:
        self.heartbeat = heartbeat
        self.frame_max = frame_max
        self.channel_max = channel_max
        self._content_max = content_max
        self._response = f"\0{user}\0{password}"
        self._virtual_host = virtual_host
        self._name = name
        self._state = _State.STARTING
        self._output: list[bytes] = [PROTOCOL_HEADER]
        self._partial = b""
        self._channels: dict[int, _ChannelState] = {}

    @property
    def is_open(self) -> bool:
        return self._state is _State.OPEN

    def take_output(self) -> bytes:
        """Returns the bytes to send since the last call, and forgets them."""
        output, self._output = self._output, []
        return b"".join(output)

    # --- calls ------------------------------------------------------------------------------------------------

    def open_channel(self) -> int:
        """Opens a channel and returns its number; `Replied` says when it is open.

        Raises `RuntimeError` if the connection is not open or has no number left.
        """
        if self._state is not _State.OPEN:
            raise RuntimeError("the connection is not open")
        number = next((n for n in range(1, self.channel_max + 1) if n not in self._channels), 0)
        if not number:
            raise RuntimeError(f"all {self.channel_max} channels of the connection are in use")
        self._channels[number] = _ChannelState(number, self._content_max)
        self.call(number, commands.Channel.Open())
        return number

    def call(self, channel: int, method: Any) -> None:
        """Sends one of pamqp's `commands` on an open channel; `Replied` brings the answer if it has one.

        Raises `RuntimeError` if the channel is not open.
        """
        state = self._channels.get(channel)
        if state is None or state.closing or self._state is not _State.OPEN:
            raise RuntimeError(f"channel {channel} is not open")
        if method.synchronous and not getattr(method, "nowait", False):
            state.expected.append(method.valid_responses)
        state.closing = isinstance(method, commands.Channel.Close)
        self._send(method, channel)

    def close(self, code: int = 200, reason: str = "") -> None:
        """Asks RabbitMQ to close the connection; `Closed` says when it has. Has no effect on a closing one."""
        if self._state in (_State.CLOSING, _State.CLOSED):
            return
        self._state = _State.CLOSING
        for channel in self._channels.values():
            channel.closing = True
        self._send(commands.Connection.Close(code, reason[:200], 0, 0), 0)

    # --- bytes ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Returns the events in `data`, which may begin and end anywhere in a frame. Raises nothing.

        Bytes that are not AMQP close the connection: the last event is `Closed`, and the output tells RabbitMQ why.
        """
        events: list[Event] = []
        if self._state is _State.CLOSED:
            return events
        if self._partial:
            data = self._partial + data
        try:
            start = self._read(data, events)
        except ProtocolViolation as failure:
            self._fail(failure.code, str(failure), events)
        except Exception as failure:  # noqa: BLE001 - pamqp and struct raise many kinds for bytes that they cannot read
            self._fail(502, f"a frame cannot be read: {failure!r}", events)
        else:
            self._partial = data[start:]
        return events

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Adds the events of all whole frames; returns where the first incomplete one begins."""
        start, end = 0, len(data)
        channels, append = self._channels, events.append
        while end - start >= frames.OVERHEAD and self._state is not _State.CLOSED:
            kind, number, size = _frame(data, start)
            after = start + size + frames.OVERHEAD
            if kind not in _KINDS or after - start > self.frame_max:
                raise _not_a_frame(data[start : start + frames.OVERHEAD], self.frame_max)
            if after > end:
                break
            if data[after - 1] != frames.END:
                raise ProtocolViolation(501, "a frame does not end where it should")
            channel = channels.get(number)
            if kind == frames.METHOD:
                method = data[start + 7 : start + 11]
                if channel is None or channel.closing:
                    self._on_method(number, data[start:after], events)
                elif method in (DELIVER, RETURN):
                    channel.content.start(data[start:after])
                elif not channel.content.idle:
                    raise ProtocolViolation(505, "a method came before the end of a content")
                elif method in (_ACK, _NACK):
                    if size != 13:
                        raise ProtocolViolation(502, "a confirm has not the size of one")
                    tag, flags = _tag(data, start + 11)
                    append(Confirmed(number, tag, bool(flags & 1), method == _NACK))
                else:
                    self._on_method(number, data[start:after], events)
            elif kind == frames.HEARTBEAT:
                if number or size:
                    raise ProtocolViolation(501, "a heartbeat has a channel or a payload")
            elif channel is None:
                if self._state is not _State.CLOSING:
                    raise ProtocolViolation(504, f"a content came for channel {number}, which is not open")
            elif not channel.closing:
                take = channel.content.take_header if kind == frames.HEADER else channel.content.take_body
                if (event := take(data[start:after])) is not None:
                    append(event)
            start = after
        return start

    def _on_method(self, number: int, encoded: bytes, events: list[Event]) -> None:
        """Handles a method that is not of the hot path."""
        method: Any = pamqp_frame.unmarshal(encoded)[2]
        if self._state is _State.CLOSING and not isinstance(
            method, commands.Connection.Close | commands.Connection.CloseOk
        ):
            return
        if number == 0:
            self._on_connection_method(method, events)
            return
        channel = self._channels.get(number)
        if isinstance(method, commands.Channel.CloseOk) and (channel is None or not channel.closing):
            return  # Both sides closed the channel at once: its number may already be in use again.
        if channel is None:
            raise ProtocolViolation(504, f"{method.name} came for channel {number}, which is not open")
        if isinstance(method, commands.Channel.Close):
            self._send(commands.Channel.CloseOk(), number)
            del self._channels[number]
            events.append(ChannelClosed(number, method.reply_code or 0, method.reply_text))
        elif channel.closing and not isinstance(method, commands.Channel.CloseOk):
            # Sent before RabbitMQ read our Channel.Close; the answer to an earlier call keeps its place.
            if channel.expected and method.name in channel.expected[0]:
                channel.expected.popleft()
                events.append(Replied(number, method))
        elif isinstance(method, commands.Basic.Cancel):
            if not method.nowait:
                self._send(commands.Basic.CancelOk(method.consumer_tag), number)
            events.append(ConsumerCancelled(number))
        elif channel.expected and method.name in channel.expected[0]:
            channel.expected.popleft()
            if isinstance(method, commands.Channel.CloseOk):
                del self._channels[number]
            events.append(Replied(number, method))
        else:
            raise ProtocolViolation(503, f"{method.name} was not expected")

    def _on_connection_method(self, method: Any, events: list[Event]) -> None:
        match self._state, method:
            case _, commands.Connection.Close():
                self._send(commands.Connection.CloseOk(), 0)
                self._closed(method.reply_code or 0, method.reply_text, events)
            case _State.CLOSING, commands.Connection.CloseOk():
                self._closed(0, "closed by this process", events)
            case _State.STARTING, commands.Connection.Start():
                self._start(method)
            case _State.TUNING, commands.Connection.Tune():
                self._tune(method)
            case _State.OPENING, commands.Connection.OpenOk():
                self._state = _State.OPEN
                events.append(Opened())
            case _State.OPEN, commands.Connection.Blocked():
                events.append(Blocked(method.reason or "no reason given"))
            case _State.OPEN, commands.Connection.Unblocked():
                events.append(Blocked(None))
            case _:
                raise ProtocolViolation(503, f"{method.name} was not expected")

    def _start(self, method: commands.Connection.Start) -> None:
        if "PLAIN" not in str(method.mechanisms).split():
            raise ProtocolViolation(540, f"RabbitMQ offers no PLAIN authentication, only {method.mechanisms}")
        properties: dict[str, Any] = {
            "product": "Plenary",
            "connection_name": self._name,
            "capabilities": {
                "publisher_confirms": True,
                "basic.nack": True,
                "consumer_cancel_notify": True,
                "connection.blocked": True,
                "authentication_failure_close": True,
            },
        }
        self._send(commands.Connection.StartOk(properties, "PLAIN", self._response, "en_US"), 0)
        self._state = _State.TUNING

    def _tune(self, method: commands.Connection.Tune) -> None:
        if 0 < method.frame_max < FRAME_MIN:
            raise ProtocolViolation(501, f"RabbitMQ wants frames of at most {method.frame_max} bytes: too few")
        # RabbitMQ says 0 for "no limit"; its heartbeat is only a suggestion.
        self.frame_max = min(self.frame_max, method.frame_max or self.frame_max)
        self.channel_max = min(self.channel_max, method.channel_max or self.channel_max)
        self._send(commands.Connection.TuneOk(self.channel_max, self.frame_max, self.heartbeat), 0)
        self._send(commands.Connection.Open(self._virtual_host), 0)
        self._state = _State.OPENING

    def _closed(self, code: int, reason: str, events: list[Event]) -> None:
        self._state = _State.CLOSED
        self._channels.clear()
        self._partial = b""
        events.append(Closed(code, reason))

    def _fail(self, code: int, reason: str, events: list[Event]) -> None:
        if self._state not in (_State.STARTING, _State.CLOSING):  # else the other side may not speak AMQP at all
            self._send(commands.Connection.Close(code, reason[:200], 0, 0), 0)
        self._closed(code, reason, events)

    def _send(self, method: Any, channel: int) -> None:
        self._output.append(pamqp_frame.marshal(method, channel))


def _not_a_frame(head: bytes, frame_max: int) -> ProtocolViolation:
    if head.startswith(b"AMQP"):
        return ProtocolViolation(501, f"the other side wants another version of AMQP: {head!r}")
    if head[0] not in _KINDS:
        return ProtocolViolation(501, f"this is not AMQP: {head!r}")
    return ProtocolViolation(501, f"a frame is longer than the {frame_max} bytes agreed on")
