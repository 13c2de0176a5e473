"""Subscriptions that outlive their channels."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity

from shared.broker import Exchange, Notice, Receive, ReceiveExclusive, partition_queue
from shared.broker.amqp import wire
from shared.broker.amqp.intake import Intake
from shared.broker.amqp.link import CALL_WITHIN, AmqpConnection, Link, Pause, close_quietly, uncancelled
from shared.broker.amqp.topology import Topology
from shared.broker.amqp.wire import Outlet
from shared.telemetry import log

_log = log.get("broker")


class Acks:
    """The acks of one channel: they wait a little for each other, and go `multiple` over a finished prefix.

    `prefetch` is how many deliveries RabbitMQ gives without them: a good part of that is not kept waiting.
    """

    def __init__(self, channel: int, outlet: Outlet, prefetch: int) -> None:
        self._channel = channel
        self._outlet = outlet
        self._many = max(1, prefetch // 4)
        self._finished_up_to = 0
        self._finished_beyond: set[int] = set()
        self._unsent: list[int] = []
        self.closed = False

    def finish(self, tag: int) -> None:
        if self.closed or tag <= self._finished_up_to or tag in self._finished_beyond:
            return
        self._finished_beyond.add(tag)
        while self._finished_up_to + 1 in self._finished_beyond:
            self._finished_up_to += 1
            self._finished_beyond.remove(self._finished_up_to)
        if not self._unsent:
            self._outlet.write_from(self._take)
        self._unsent.append(tag)
        if len(self._unsent) == self._many:
            self._outlet.hurry()

    def _take(self) -> bytes:
        if self.closed:  # RabbitMQ would close the whole connection over it
            return b""
        tags, self._unsent = self._unsent, []
        prefix = [tag for tag in tags if tag <= self._finished_up_to]
        frames = [wire.ack(self._channel, tag, multiple=False) for tag in tags if tag > self._finished_up_to]
        if prefix:
            # The greatest of the unsent ones: RabbitMQ closes the channel over a tag it no longer knows.
            frames.append(wire.ack(self._channel, max(prefix), multiple=len(prefix) > 1))
        return b"".join(frames)


class AmqpDelivery:
    __slots__ = ("_acks", "_tag", "body", "redelivered")

    def __init__(self, acks: Acks, tag: int, redelivered: bool, body: bytes) -> None:
        self.body = body
        self.redelivered = redelivered
        self._acks = acks
        self._tag = tag

    def ack(self) -> None:
        self._acks.finish(self._tag)


@dataclass(frozen=True, slots=True)
class Consuming:
    """What the subscriptions of one broker share."""

    link: Link
    topology: Topology
    kept: "set[Kept]" = field(default_factory=set)


class Kept(ABC):
    """One subscription: opens a channel on each connection, again when only the channel ended."""

    def __init__(self, consuming: Consuming, on_lost: Notice, on_restored: Notice | None) -> None:
        self._consuming = consuming
        self._link = consuming.link
        self._on_lost = on_lost
        self._on_restored = on_restored
        self._channel: AbstractChannel | None = None
        self._outlet: Outlet | None = None
        self._task: asyncio.Task[None] | None = None
        self._registered = asyncio.Event()

    async def start(self) -> None:
        """Returns once RabbitMQ has registered it."""
        self._consuming.kept.add(self)
        self._task = asyncio.create_task(self._keep())
        try:
            await self._registered.wait()
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        self._consuming.kept.discard(self)
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        channel, self._channel = self._channel, None
        if channel is not None and self._outlet is not None:
            await self._outlet.flush()
            self._abandon()
            await close_quietly(channel)

    @abstractmethod
    async def _subscribe(self, connection: AmqpConnection, channel: AbstractChannel, outlet: Outlet) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Nothing of the present channel counts any more."""

    async def _keep(self) -> None:
        pause = Pause()
        while True:
            connection, outlet = await self._link.opened()
            try:
                async with asyncio.timeout(CALL_WITHIN):
                    channel, ended = await self._open(connection, outlet)
            except ChannelNotFoundEntity:
                await self._declare_again(connection)
                await pause.wait()
                continue
            except Exception as error:  # noqa: BLE001 - whatever it was, there is only trying again
                if self._link.is_up:
                    _log.warning("a subscription failed, trying again", error=str(error) or type(error).__name__)
                await pause.wait()
                continue
            pause.reset()
            self._channel, self._outlet = channel, outlet
            if self._registered.is_set() and self._on_restored is not None:
                self._on_restored()
            self._registered.set()
            await asyncio.wait((ended,))
            self._channel = None
            self._abandon()
            self._on_lost()
            await close_quietly(channel)

    async def _open(
        self, connection: AmqpConnection, outlet: Outlet
    ) -> "tuple[AbstractChannel, asyncio.Future[None]]":
        channel = await uncancelled(connection.channel(publisher_confirms=False, timeout=CALL_WITHIN))
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        channel.closing.add_done_callback(end)
        channel.on_consumer_cancel_callbacks.add(end)
        try:
            await uncancelled(self._subscribe(connection, channel, outlet))
        except BaseException:
            self._abandon()
            await close_quietly(channel)
            raise
        return channel, ended

    async def _declare_again(self, connection: AmqpConnection) -> None:
        """Somebody deleted what was declared when the connection opened."""
        with contextlib.suppress(Exception):
            await uncancelled(self._consuming.topology.declare(connection, CALL_WITHIN))


class PartitionSubscription(Kept):
    def __init__(
        self, consuming: Consuming, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> None:
        super().__init__(consuming, on_lost, None)
        self._queue = partition_queue(partition)
        self._receive = receive
        self._prefetch = prefetch
        self._acks: Acks | None = None

    async def _subscribe(self, connection: AmqpConnection, channel: AbstractChannel, outlet: Outlet) -> None:
        acks = self._acks = Acks(channel.number, outlet, self._prefetch)
        receive = self._receive

        def deliver(tag: int, redelivered: bool, body: bytes) -> None:
            if not acks.closed:
                receive(AmqpDelivery(acks, tag, redelivered, body))

        connection.listen(channel, Intake(deliver=deliver))
        await channel.basic_qos(prefetch_count=self._prefetch, timeout=CALL_WITHIN)
        await channel.basic_consume(self._queue, _unused, timeout=CALL_WITHIN)

    def _abandon(self) -> None:
        if self._acks is not None:
            self._acks.closed = True
            self._acks = None


class OwnSubscription(Kept):
    def __init__(
        self,
        consuming: Consuming,
        exchange: Exchange,
        binding: str,
        receive: ReceiveExclusive,
        *,
        on_lost: Notice,
        on_restored: Notice,
    ) -> None:
        super().__init__(consuming, on_lost, on_restored)
        self._exchange = exchange
        self._binding = binding
        self._receive = receive
        self._generation = 0

    async def _subscribe(self, connection: AmqpConnection, channel: AbstractChannel, outlet: Outlet) -> None:
        generation, receive = self._generation, self._receive

        def deliver(_: int, __: bool, body: bytes) -> None:
            if generation == self._generation:
                receive(body)

        connection.listen(channel, Intake(deliver=deliver))
        declared = await channel.queue_declare(exclusive=True, auto_delete=True, timeout=CALL_WITHIN)
        queue = str(declared.queue)
        await channel.basic_consume(queue, _unused, no_ack=True, timeout=CALL_WITHIN)
        # Last: with a consumer the queue goes with its channel, so none is ever bound and forgotten.
        await channel.queue_bind(queue, self._exchange, self._binding, timeout=CALL_WITHIN)

    def _abandon(self) -> None:
        self._generation += 1


async def _unused(_: DeliveredMessage) -> None:
    """aiormq wants a consumer to know; `Intake` takes the messages before it."""
