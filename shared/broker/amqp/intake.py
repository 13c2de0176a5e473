"""The hot way in, beneath aiormq: messages and confirms are taken from the bytes as they come.

aiormq reads its frames from a stream, one after another in a task. `Incoming` is that stream: what belongs to an
`Intake` never gets there. All other frames do, whole and in order.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final, Protocol

from aiormq import TransportFactory
from pamqp.frame import unmarshal
from yarl import URL

from shared.telemetry import log

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_DELIVER, _RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"
_ACK, _NACK = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78"
_OVERHEAD: Final = 8
"""Bytes of a frame besides what it carries: type, channel, size before it, an end after it."""
_ALIVE: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_SAY_ALIVE_EVERY: Final = 0.5
AT_ONCE: Final = 256 * 1024
"""Bytes after which others have their turn."""

_frame = struct.Struct(">BHI").unpack_from
_tag = struct.Struct(">QB").unpack_from
_body_size = struct.Struct(">Q").unpack_from

_log = log.get("broker")


class OnDeliver(Protocol):
    def __call__(self, tag: int, redelivered: bool, body: bytes, /) -> None: ...


class OnConfirm(Protocol):
    def __call__(self, tag: int, multiple: bool, /, *, refused: bool) -> None: ...


class OnReturn(Protocol):
    def __call__(self, message_id: str, why: str, /) -> None: ...


class Intake:
    """What takes the messages or confirms of one channel. An exception of theirs is logged, and goes no further."""

    def __init__(
        self,
        *,
        deliver: OnDeliver | None = None,
        confirm: OnConfirm | None = None,
        returned: OnReturn | None = None,
    ) -> None:
        self._on_deliver = deliver
        self._on_confirm = confirm
        self._on_return = returned
        self._method = b""
        """The frame that says what the content after it is; empty: none comes, or it is not for here."""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def take(self, kind: int, frame: bytes) -> bool:
        """Whether the frame was for here."""
        if kind == _BODY and self._method:
            self._parts.append(frame[7:-1])
            self._missing -= len(frame) - _OVERHEAD
        elif kind == _HEADER and self._method:
            self._header = frame
            (self._missing,) = _body_size(frame, 11)
        elif kind == _METHOD:
            return self._take_method(frame)
        else:
            return False
        if self._missing <= 0:
            self._hand_on()
        return True

    def _take_method(self, frame: bytes) -> bool:
        method = frame[7:11]
        if self._on_confirm is not None and method in (_ACK, _NACK):
            tag, flags = _tag(frame, 11)
            _guarded(self._on_confirm, tag, bool(flags & 1), refused=method == _NACK)
        elif (self._on_deliver is not None and method == _DELIVER) or (
            self._on_return is not None and method == _RETURN
        ):
            self._method = frame
        else:
            return False
        return True

    def _hand_on(self) -> None:
        method, header, parts = self._method, self._header, self._parts
        self._method, self._header, self._parts = b"", b"", []
        if method[7:11] == _DELIVER:
            assert self._on_deliver is not None
            tag, redelivered = _tag(method, 12 + method[11])  # behind the consumer's tag
            _guarded(self._on_deliver, tag, bool(redelivered), parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            assert self._on_return is not None
            what, properties = _decoded(method), _decoded(header).properties
            why = f"{what.exchange} {what.routing_key}: {what.reply_text}"
            _guarded(self._on_return, properties.message_id or "", why)


class Incoming(asyncio.StreamReader):
    """The bytes of one connection, less what is for the intakes of its channels."""

    # StreamReader's own: it pauses the transport while aiormq has much to read.
    _transport: asyncio.ReadTransport | None
    _paused: bool

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._clock = loop.time
        self._intakes: dict[int, Intake] = {}
        self._partial = b""
        self._said_alive = 0.0
        self._taken = 0
        """Bytes since everybody else had a turn."""
        self._resting = False

    def listen(self, channel: int, intake: Intake) -> None:
        """From now on; in place of whoever had a channel of that number."""
        self._intakes[channel] = intake

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        # bytes: a transport gives nothing else
        self._taken += len(data)
        if self._partial:
            data = self._partial + data
        start, end = 0, len(data)
        cold = 0
        """Where those for aiormq begin that have not been passed on."""
        while end - start >= _OVERHEAD:
            kind, channel, size = _frame(data, start)
            if kind not in (_METHOD, _HEADER, _BODY, _HEARTBEAT):
                start = end  # no AMQP, or not ours: aiormq will say so
                break
            behind = start + size + _OVERHEAD
            if behind > end:
                break
            intake = self._intakes.get(channel)
            if intake is not None and intake.take(kind, data[start:behind]):
                if cold < start:
                    super().feed_data(data[cold:start])
                cold = behind
            start = behind
        if cold < start:
            super().feed_data(data[cold:start])
            self._said_alive = self._clock()
        elif start and self._clock() - self._said_alive > _SAY_ALIVE_EVERY:
            # RabbitMQ sends no heartbeats while it sends anything, and aiormq sees nothing of it
            super().feed_data(_ALIVE)
            self._said_alive = self._clock()
        self._partial = data[start:]
        if self._taken > AT_ONCE and not self._resting and self._transport is not None:
            # a whole backlog would be handled in one turn of the event loop
            self._resting = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        self._taken = 0
        self._resting = False
        transport = self._transport
        if transport is not None and not self._paused and not transport.is_closing():
            transport.resume_reading()

    def feed_eof(self) -> None:
        if self._partial:
            super().feed_data(self._partial)
            self._partial = b""
        super().feed_eof()


class IncomingFactory(TransportFactory):
    """A connection whose bytes come through `incoming`, which is there once aiormq has connected."""

    incoming: Incoming

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = options.pop("ssl_context_provider")
        secure = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        self.incoming = Incoming(loop)
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(self.incoming, loop=loop),
            url.host or "localhost",
            url.port or 5672,
            ssl=secure,
            **options,
        )
        return self.incoming, asyncio.StreamWriter(transport, protocol, self.incoming, loop)


def _decoded(frame: bytes) -> Any:
    return unmarshal(frame)[2]


def _guarded(handler: Callable[..., None], *args: Any, **named: Any) -> None:
    try:
        handler(*args, **named)
    except Exception:  # noqa: BLE001 - an exception here would end the connection
        _log.exception("a receiver failed")
