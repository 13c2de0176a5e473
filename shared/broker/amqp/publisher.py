"""Publishes with confirms: one future per message, no task."""

import asyncio
from collections import deque
from time import perf_counter
from typing import Final

from pamqp import commands

from shared.broker import BrokerStats, BrokerUnavailable, Exchange, PublishRejected, Unroutable
from shared.broker.amqp import frames
from shared.broker.amqp.connection import AmqpConnection, Channel
from shared.broker.amqp.writer import FrameWriter
from shared.broker.futures import complete

UNCONFIRMED_LIMIT: Final = 65536
UNSENT_LIMIT: Final = 64 * 1024 * 1024


class Publisher:
    """Publishes on one channel after another: `open` for each new connection, `lost` when it is gone."""

    def __init__(self, stats: BrokerStats) -> None:
        self._stats = stats
        self._timed = 0
        """The delivery tag whose confirm is being timed; 0 if none is."""
        self._timed_from = 0.0
        self._writer: FrameWriter | None = None
        self._channel = 0
        self._frame_max = 0
        # The messages since `_oldest`, in order of their delivery tags; done ones only behind one that is not done.
        self._unconfirmed: deque[asyncio.Future[None]] = deque()
        self._oldest = 1

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    @property
    def unsent(self) -> int:
        """The bytes that the socket has not taken yet."""
        return self._writer.unsent if self._writer is not None else 0

    @property
    def oldest_unconfirmed(self) -> asyncio.Future[None] | None:
        """The future of the oldest unconfirmed message. If it stays the same, RabbitMQ confirms no more."""
        return self._unconfirmed[0] if self._unconfirmed else None

    async def open(self, connection: AmqpConnection) -> Channel:
        """Opens the channel to publish on. Raises `BrokerError`."""
        channel = await connection.open_channel()
        channel.on_confirm = self._on_confirm
        channel.on_return = self._on_return
        await channel.call(commands.Confirm.Select())
        self._channel = channel.number
        self._frame_max = connection.frame_max
        self._oldest = 1
        self._writer = connection.writer
        return channel

    def lost(self) -> None:
        """Fails every message that is not confirmed."""
        self._writer = None
        self._timed = 0
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for future in unconfirmed:
            complete(future, BrokerUnavailable("the connection was lost before the confirm"))

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool, ttl: float | None
    ) -> asyncio.Future[None]:
        """See `shared.broker.Broker.publish`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writer = self._writer
        if writer is None:
            complete(future, BrokerUnavailable("not connected"))
            return future
        if len(self._unconfirmed) >= UNCONFIRMED_LIMIT or writer.waiting > UNSENT_LIMIT:
            complete(future, PublishRejected("RabbitMQ does not keep up: too much is unconfirmed"))
            return future
        self._stats.published += 1
        self._write(writer, future, exchange, key, body, mandatory=mandatory, ttl=ttl)
        return future

    def probe(self) -> None:
        """Publishes an empty message that reaches no queue: its confirm shows that RabbitMQ takes messages."""
        if self._writer is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._write(self._writer, future, "media", "", b"", mandatory=False, ttl=None)

    def _write(
        self,
        writer: FrameWriter,
        future: asyncio.Future[None],
        exchange: Exchange,
        key: str,
        body: bytes,
        *,
        mandatory: bool,
        ttl: float | None,
    ) -> None:
        tag = self._oldest + len(self._unconfirmed)
        message = frames.publish(
            self._channel,
            exchange,
            key,
            body,
            mandatory_id=str(tag) if mandatory else "",
            ttl=ttl,
            frame_max=self._frame_max,
        )
        self._unconfirmed.append(future)
        if not self._timed:
            self._timed, self._timed_from = tag, perf_counter()
        writer.write(message)

    def _on_return(self, message_id: str, reason: str) -> None:
        """Fails a returned message; RabbitMQ returns a message before it confirms it."""
        index = int(message_id or 0) - self._oldest
        if 0 <= index < len(self._unconfirmed):
            complete(self._unconfirmed[index], Unroutable(reason))

    def _on_confirm(self, tag: int, multiple: bool, rejected: bool) -> None:
        last = tag - self._oldest
        unconfirmed = self._unconfirmed
        for index in range(0 if multiple else max(last, 0), min(last + 1, len(unconfirmed))):
            complete(unconfirmed[index], PublishRejected("RabbitMQ rejected it") if rejected else None)
        while unconfirmed and unconfirmed[0].done():
            unconfirmed.popleft()
            self._oldest += 1
        if self._timed and self._timed < self._oldest:
            self._stats.confirm.observe(perf_counter() - self._timed_from)
            self._timed = 0
