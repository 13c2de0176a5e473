"""Publishes with confirms: one future a message, no task."""

import asyncio
from collections import deque
from time import perf_counter

from shared.broker import BrokerStats, BrokerUnavailable, Exchange, PublishRejected, Unroutable
from shared.broker.amqp import wire
from shared.broker.amqp.intake import Intake
from shared.broker.amqp.link import CALL_WITHIN, AmqpConnection, uncancelled
from shared.broker.amqp.wire import Outlet

UNCONFIRMED_LIMIT = 65536
UNSENT_LIMIT = 64 * 1024 * 1024


class Publisher:
    """`open` at each new connection, `lost` when it is gone; between them `publish` works."""

    def __init__(self, stats: BrokerStats) -> None:
        self._stats = stats
        self._timed = 0
        """The delivery tag whose confirm is being timed; 0: none."""
        self._timed_from = 0.0
        self._outlet: Outlet | None = None
        self._channel = 0
        self._frame_max = 0
        # Of the messages since `_oldest`, in order of their delivery tags; done ones only behind an undone one.
        self._unconfirmed: deque[asyncio.Future[None]] = deque()
        self._oldest = 1

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    @property
    def unsent(self) -> int:
        """Bytes that the connection has not taken yet."""
        return self._outlet.unsent if self._outlet is not None else 0

    @property
    def oldest_unconfirmed(self) -> asyncio.Future[None] | None:
        """If it stays the same, RabbitMQ confirms no more."""
        return self._unconfirmed[0] if self._unconfirmed else None

    async def open(self, connection: AmqpConnection, outlet: Outlet) -> "asyncio.Future[object]":
        """Returns a future that is done when the channel has ended."""
        channel = await uncancelled(connection.channel(publisher_confirms=True, timeout=CALL_WITHIN))
        connection.listen(channel, Intake(confirm=self._confirm, returned=self._on_return))
        self._channel = channel.number
        self._frame_max = connection.connection_tune.frame_max
        self._oldest = 1
        self._outlet = outlet
        return channel.closing

    def lost(self) -> None:
        self._outlet = None
        self._timed = 0
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for future in unconfirmed:
            _settle(future, BrokerUnavailable("the connection was lost before the confirm"))

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool, ttl: float | None
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outlet = self._outlet
        if outlet is None:
            _settle(future, BrokerUnavailable("not connected"))
            return future
        if len(self._unconfirmed) >= UNCONFIRMED_LIMIT or outlet.unsent > UNSENT_LIMIT:
            _settle(future, PublishRejected("RabbitMQ does not keep up: too much is unconfirmed"))
            return future
        tag = self._oldest + len(self._unconfirmed)
        frames = wire.publish(
            self._channel,
            exchange,
            key,
            body,
            returnable_as=str(tag) if mandatory else "",
            ttl=ttl,
            frame_max=self._frame_max,
        )
        self._unconfirmed.append(future)
        self._stats.published += 1
        if not self._timed:
            self._timed, self._timed_from = tag, perf_counter()
        outlet.write(frames)
        return future

    def _on_return(self, message_id: str, why: str) -> None:
        """RabbitMQ returns a message before it confirms it."""
        index = int(message_id or 0) - self._oldest
        if 0 <= index < len(self._unconfirmed):
            _settle(self._unconfirmed[index], Unroutable(why))

    def _confirm(self, tag: int, multiple: bool, /, *, refused: bool) -> None:
        last = tag - self._oldest
        unconfirmed = self._unconfirmed
        for index in range(0 if multiple else max(last, 0), min(last + 1, len(unconfirmed))):
            _settle(unconfirmed[index], PublishRejected("RabbitMQ refused it") if refused else None)
        while unconfirmed and unconfirmed[0].done():
            unconfirmed.popleft()
            self._oldest += 1
        if self._timed and self._timed < self._oldest:
            self._stats.confirm.observe(perf_counter() - self._timed_from)
            self._timed = 0


def _settle(future: asyncio.Future[None], failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
        # Looked at once, it is not reported as never retrieved when nobody waits any more.
        future.exception()
