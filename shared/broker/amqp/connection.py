"""One AMQP connection on asyncio: transport, heartbeats, calls with deadlines, and channels.

`open_connection` returns a connection whose handshake is complete. `AmqpProtocol` does the AMQP, `FrameWriter` the
writing; this module adds timers and passes events to their receivers.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from pamqp import commands

from shared.broker import BrokerError, BrokerUnavailable
from shared.broker.addresses import Address
from shared.broker.amqp.events import (
    Blocked,
    ChannelClosed,
    Closed,
    Confirmed,
    ConsumerCancelled,
    Delivered,
    Event,
    Opened,
    Replied,
    Returned,
)
from shared.broker.amqp.frames import HEARTBEAT_FRAME
from shared.broker.amqp.protocol import AmqpProtocol
from shared.broker.amqp.writer import FrameWriter
from shared.telemetry import log

HEARTBEAT: Final = 2
"""Seconds between heartbeats; RabbitMQ gives a hung process up after about twice that (DELIVERY B4)."""

SILENCE_LIMIT: Final = 3
"""The number of heartbeats without any byte received after which a connection is ended."""

CALL_TIMEOUT: Final = 10.0
"""The deadline of every remote call, seconds."""

CLOSE_TIMEOUT: Final = 3.0

BYTES_PER_TURN: Final = 256 * 1024
"""The received bytes after which the event loop does other work first, however many wait."""

_log = log.get("broker")


REFUSED: Final = {
    403: "user or password is wrong",
    530: "the virtual host does not exist, or the user may not use it (rabbitmqctl add_vhost, set_permissions)",
}
"""AMQP's reply codes with which RabbitMQ refuses a login, and what they mean to an operator."""


class LoginRefused(BrokerUnavailable):
    """Raised when RabbitMQ refuses user, password or virtual host: to try again helps only if these change."""


class ChannelClosedByServer(BrokerError):
    """Raised when RabbitMQ closed the channel. `code` is AMQP's reply code: 404 for a missing queue or exchange."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Channel:
    """One open channel. Its callbacks run on the event loop as soon as the bytes arrive; what they raise is logged.

    `on_closed` is called once, when either side has closed the channel or its connection, before anything else is
    sent or received. It gets the failure with which pending calls end.
    """

    def __init__(self, connection: "AmqpConnection", number: int) -> None:
        self.number = number
        self.on_deliver: Callable[[int, bool, bytes], None] = _ignore
        """Called with the delivery tag, whether the message is redelivered, and its body."""
        self.on_confirm: Callable[[int, bool, bool], None] = _ignore
        """Called with the tag, whether it stands for all before it, and whether RabbitMQ rejected the message."""
        self.on_return: Callable[[str, str], None] = _ignore
        """Called with a message id and the reason why the message found no queue."""
        self.on_cancelled: Callable[[], None] = _ignore
        """Called when RabbitMQ ended the channel's consumer."""
        self.on_closed: Callable[[BrokerError], None] = _ignore
        self.is_open = True
        self._connection = connection
        self._pending: deque[asyncio.Future[Any]] = deque()

    async def call(self, method: Any) -> Any:
        """Calls one of pamqp's `commands` and returns the answer.

        Raises `ChannelClosedByServer` if RabbitMQ refuses it, `BrokerUnavailable` if the channel is closed, the
        connection is lost or `CALL_TIMEOUT` passes.
        """
        if not self.is_open:
            raise BrokerUnavailable("the channel is closed")
        self._connection.send(self.number, method)
        return await self._answered(method.name, CALL_TIMEOUT)

    async def wait_opened(self) -> None:
        """Waits for the answer to the channel.open that the connection sent."""
        await self._answered("Channel.Open", CALL_TIMEOUT)

    async def close(self) -> None:
        """Closes the channel. What was written before, acknowledgements too, reaches RabbitMQ first.

        Returns after `CLOSE_TIMEOUT` at the latest and raises nothing.
        """
        if not self.is_open:
            return
        with contextlib.suppress(BrokerError, TimeoutError):
            self._connection.send(self.number, commands.Channel.Close(200, "", 0, 0))
            self._end(BrokerUnavailable("the channel is closed"))
            await self._answered("Channel.Close", CLOSE_TIMEOUT)

    def replied(self, method: Any) -> None:
        """Ends the oldest call; its caller may have gone on without it."""
        answer = self._pending.popleft()
        if not answer.done():
            answer.set_result(method)

    def fail(self, failure: BrokerError) -> None:
        """Ends the channel, which nothing will be received on any more."""
        self._end(failure)
        self._pending.clear()

    def _end(self, failure: BrokerError) -> None:
        """Fails the pending calls. They keep their places: answers that are under way still come in their order."""
        for answer in self._pending:
            if not answer.done():
                answer.set_exception(failure)
                answer.exception()  # Retrieved, in case that its caller was cancelled.
        if self.is_open:
            self.is_open = False
            _call_guarded(self.on_closed, failure)

    async def _answered(self, name: str, within: float) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append(answer)
        try:
            async with asyncio.timeout(within):
                return await answer
        except TimeoutError:
            raise BrokerUnavailable(f"RabbitMQ did not answer {name} within {within:.0f} s") from None


class AmqpConnection(asyncio.Protocol):
    """One connection to RabbitMQ, made by `open_connection`."""

    def __init__(self, address: Address, name: str, heartbeat: int = HEARTBEAT) -> None:
        loop = asyncio.get_running_loop()
        self.address = address
        self.closed: asyncio.Future[BrokerUnavailable] = loop.create_future()
        """A future that is done, with the reason, when the connection has ended."""
        self.blocked: str | None = None
        """The reason why RabbitMQ takes no publishes at present; None if it takes them."""
        self.on_blocked: Callable[[str | None], None] = _ignore
        self.writer: FrameWriter
        self._loop = loop
        self._protocol = AmqpProtocol(
            user=address.user,
            password=address.password,
            virtual_host=address.virtual_host,
            name=name,
            heartbeat=heartbeat,
        )
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, Channel] = {}
        self._opened: asyncio.Future[None] = loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._received = True
        self._silent_beats = 0
        self._bytes_this_turn = 0
        self._reading_paused = False

    @property
    def is_open(self) -> bool:
        return self._protocol.is_open and not self.closed.done()

    @property
    def frame_max(self) -> int:
        """The longest frame that both sides agreed on, bytes."""
        return self._protocol.frame_max

    async def wait_opened(self) -> None:
        """Returns when the handshake is complete. Raises `BrokerUnavailable` if it fails."""
        await self._opened

    async def open_channel(self) -> Channel:
        """Opens a channel. Raises `BrokerUnavailable`."""
        if not self.is_open:
            raise BrokerUnavailable("the connection is closed")
        try:
            channel = Channel(self, self._protocol.open_channel())
        except RuntimeError as failure:
            raise BrokerUnavailable(str(failure)) from None
        self._channels[channel.number] = channel
        self._write_output()
        try:
            await channel.wait_opened()
        except BaseException:
            await channel.close()
            raise
        return channel

    def send(self, channel: int, method: Any) -> None:
        """Sends a method behind everything that was written before it. Raises `BrokerUnavailable`."""
        self.writer.collect()
        try:
            self._protocol.call(channel, method)
        except RuntimeError as failure:
            raise BrokerUnavailable(str(failure)) from None
        self._write_output()

    async def close(self) -> None:
        """Closes the connection. Returns after `CLOSE_TIMEOUT` at the latest and raises nothing."""
        if self._transport is None:
            return
        if self.is_open:
            self.writer.collect()
            self._protocol.close()
            self._write_output()
            await asyncio.wait((self.closed,), timeout=CLOSE_TIMEOUT)
        self.abort("closed by this process")

    def abort(self, reason: str) -> None:
        """Ends the connection at once."""
        self._finish(reason)
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transport is not of that class
        self.writer = FrameWriter(self._transport)
        self._write_output()

    def data_received(self, data: bytes) -> None:
        self._received = True
        events = self._protocol.receive(data)
        self._write_output()
        channels = self._channels
        for event in events:
            if isinstance(event, Delivered):
                if (channel := channels.get(event.channel)) is not None:
                    _call_guarded(channel.on_deliver, event.tag, event.redelivered, event.body)
            elif isinstance(event, Confirmed):
                if (channel := channels.get(event.channel)) is not None:
                    _call_guarded(channel.on_confirm, event.tag, event.multiple, event.rejected)
            else:
                self._on_event(event)
        self._bytes_this_turn += len(data)
        if self._bytes_this_turn > BYTES_PER_TURN and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
            self._loop.call_soon(self._resume_reading)

    def eof_received(self) -> None:
        self._finish("RabbitMQ closed the connection")

    def connection_lost(self, failure: Exception | None) -> None:
        self._finish(f"the connection was lost: {failure}" if failure else "RabbitMQ closed the connection")

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()

    # --- inside -----------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case Replied(number, method):
                if isinstance(method, commands.Channel.CloseOk):
                    channel = self._channels.pop(number, None)
                else:
                    channel = self._channels.get(number)
                if channel is not None:  # None: a receiver ended the connection meanwhile
                    channel.replied(method)
            case Returned(number, message_id, reason):
                if number in self._channels:
                    _call_guarded(self._channels[number].on_return, message_id, reason)
            case ConsumerCancelled(number):
                if number in self._channels:
                    _call_guarded(self._channels[number].on_cancelled)
            case ChannelClosed(number, code, reason):
                if (channel := self._channels.pop(number, None)) is not None:
                    channel.fail(ChannelClosedByServer(code, reason))
            case Blocked(reason):
                self.blocked = reason
                _call_guarded(self.on_blocked, reason)
            case Opened():
                self._start_heartbeats()
                if not self._opened.done():
                    self._opened.set_result(None)
            case Closed(code, reason):
                self.writer.flush()
                if code in REFUSED and not self._opened.done():
                    self._finish(f"{REFUSED[code]} ({code}: {reason})", LoginRefused)
                else:
                    self._finish(f"{code}: {reason}" if code else reason)
            case _:
                raise AssertionError(event)

    def _write_output(self) -> None:
        if output := self._protocol.take_output():
            self.writer.write(output)

    def _start_heartbeats(self) -> None:
        if self._protocol.heartbeat:
            self._timer = self._loop.call_later(self._protocol.heartbeat / 2, self._beat)

    def _beat(self) -> None:
        """Runs twice each heartbeat: sends one if nothing else was sent, and ends a connection that is silent."""
        heartbeat = self._protocol.heartbeat
        self._timer = self._loop.call_later(heartbeat / 2, self._beat)
        # Beats are counted, not seconds: after a stall of this process the bytes that wait are read first.
        self._silent_beats = 0 if self._received else self._silent_beats + 1
        self._received = False
        if self._silent_beats >= 2 * SILENCE_LIMIT:
            self.abort(f"RabbitMQ sent nothing for {SILENCE_LIMIT * heartbeat} s")
            return
        if not self.writer.wrote and not self.writer.waiting:
            self.writer.write(HEARTBEAT_FRAME)
        self.writer.wrote = False

    def _resume_reading(self) -> None:
        self._bytes_this_turn = 0
        self._reading_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish(self, reason: str, kind: type[BrokerUnavailable] = BrokerUnavailable) -> None:
        if self.closed.done():
            return
        failure = kind(reason)
        self.closed.set_result(failure)
        if not self._opened.done():
            self._opened.set_exception(failure)
            self._opened.exception()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self.writer.close()
            self._transport.close()
            self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)  # The other side may not read what is left.
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(failure)


async def open_connection(
    address: Address, name: str, *, within: float, heartbeat: int = HEARTBEAT
) -> AmqpConnection:
    """Returns an open connection. `name` is shown by RabbitMQ's tools.

    Raises `BrokerUnavailable`, also if the handshake takes more than `within` seconds, or `LoginRefused`.
    """
    loop = asyncio.get_running_loop()
    connection = AmqpConnection(address, name, heartbeat)
    try:
        async with asyncio.timeout(within):
            secure = await loop.run_in_executor(None, address.tls) if address.secure else None
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=secure)
            await connection.wait_opened()
    except BaseException as failure:
        connection.abort("the handshake failed")
        if isinstance(failure, TimeoutError):
            raise BrokerUnavailable(f"{address} did not answer within {within:.0f} s") from None
        if isinstance(failure, OSError):  # includes TLS errors and unusable certificates
            raise BrokerUnavailable(f"{address}: {failure}") from failure
        if isinstance(failure, BrokerUnavailable):
            raise type(failure)(f"{address}: {failure}") from None
        raise
    return connection


def _call_guarded(callback: Callable[..., None], *args: Any) -> None:
    """Calls a callback of a channel and logs what it raises: an exception would end the connection."""
    try:
        callback(*args)
    except Exception:  # noqa: BLE001 - a defect in the use of one channel must not end the others
        _log.exception("callback.failed")


def _ignore(*_: Any) -> None:
    """Ignores an event that the user of the channel does not handle."""
