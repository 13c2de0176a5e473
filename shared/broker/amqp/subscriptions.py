"""Keeps subscriptions open beyond the loss of their channels."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from pamqp import commands

from shared.broker import BrokerError, BrokerStats, Exchange, Notice, Receive, ReceiveExclusive, partition_queue
from shared.broker.amqp.acks import Acks
from shared.broker.amqp.connection import AmqpConnection, Channel, ChannelClosedByServer
from shared.broker.amqp.outage import Outage
from shared.broker.amqp.robust_connection import RobustConnection
from shared.broker.amqp.topology import Topology
from shared.broker.receivers import STABLE_AFTER, call_receiver, recovery_backoff

_NOT_FOUND = 404


class AmqpDelivery:
    """A message of a partition's queue. See `shared.broker.Delivery`."""

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
    """The connection, topology and counters that the subscriptions of one broker share."""

    link: RobustConnection
    topology: Topology
    stats: BrokerStats
    outage: Outage = field(default_factory=lambda: Outage("subscription.failed", "subscription.restored"))
    subscriptions: "set[RobustSubscription]" = field(default_factory=set)


class RobustSubscription(ABC):
    """Keeps one subscription: opens a channel on each connection, and again when only the channel was lost."""

    def __init__(self, consuming: Consuming, on_lost: Notice, on_restored: Notice | None) -> None:
        self._consuming = consuming
        self._link = consuming.link
        self._on_lost = on_lost
        self._on_restored = on_restored
        self._channel: Channel | None = None
        self._task: asyncio.Task[None] | None = None
        self._registered = asyncio.Event()
        self._ended: asyncio.Future[None]
        """Done when the present channel is lost, or is to be closed because a receiver has raised."""
        self._receiver_failed = False

    async def start(self) -> None:
        """Returns once RabbitMQ has registered the consumer."""
        self._consuming.subscriptions.add(self)
        self._task = asyncio.create_task(self._run())
        try:
            await self._registered.wait()
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        self._consuming.subscriptions.discard(self)
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._consuming.outage.recovered(self)
        if self._channel is not None:
            await self._channel.close()

    @abstractmethod
    async def _subscribe(self, connection: AmqpConnection, channel: Channel) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Makes deliveries and acknowledgements of the present channel ineffective."""

    async def _run(self) -> None:
        backoff = recovery_backoff()
        failing_receiver_backoff = recovery_backoff()
        clock = asyncio.get_running_loop().time
        while True:
            connection = await self._link.wait_opened()
            try:
                await self._open(connection)
            except Exception as failure:  # noqa: BLE001 - whatever it was, the only answer is to try again
                await self._on_failure(connection, failure)
                await backoff.wait()
                continue
            backoff.reset()
            self._consuming.outage.recovered(self)
            if self._registered.is_set() and self._on_restored is not None:
                call_receiver(self._consuming.stats, self._on_restored)
            self._registered.set()
            since = clock()
            await self._ended
            channel, self._channel = self._channel, None
            call_receiver(self._consuming.stats, self._on_lost)
            if channel is not None:
                await channel.close()
            if self._receiver_failed:
                if clock() - since > STABLE_AFTER:
                    failing_receiver_backoff.reset()
                await failing_receiver_backoff.wait()

    async def _open(self, connection: AmqpConnection) -> None:
        """Registers a consumer on a new channel."""
        channel = await connection.open_channel()
        ended = self._ended = asyncio.get_running_loop().create_future()
        self._receiver_failed = False

        def end(*_: object) -> None:
            if ended is self._ended:  # not the late end of a channel that has a successor
                self._abandon()
            if not ended.done():
                ended.set_result(None)

        channel.on_closed = channel.on_cancelled = end
        try:
            await self._subscribe(connection, channel)
        except BaseException:
            self._abandon()
            await channel.close()
            raise
        self._channel = channel

    def _close_failed_channel(self) -> None:
        """Has the channel closed, behind the acknowledgements given so far, because a receiver has raised."""
        self._receiver_failed = True
        if not self._ended.done():
            self._ended.set_result(None)

    async def _on_failure(self, connection: AmqpConnection, failure: Exception) -> None:
        """Counts and logs a failed attempt, and declares the queue again if it is missing."""
        if not connection.is_open:
            return  # The loss of the connection is counted and logged elsewhere.
        reasons = [str(failure) or type(failure).__name__]
        if isinstance(failure, ChannelClosedByServer) and failure.code == _NOT_FOUND:
            # The queue was deleted after the connection had declared it.
            try:
                await self._consuming.topology.declare(connection.address)
            except BrokerError as refused:
                reasons.append(f"declaring it again failed: {refused}")
        self._consuming.stats.subscription_failures += 1
        self._consuming.outage.failed(self, "; ".join(reasons))


class PartitionSubscription(RobustSubscription):
    """A consumer of a partition's queue, with acknowledgements."""

    def __init__(
        self, consuming: Consuming, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> None:
        super().__init__(consuming, on_lost, None)
        self._queue = partition_queue(partition)
        self._receive = receive
        self._prefetch = prefetch
        self._acks: Acks | None = None

    async def _subscribe(self, connection: AmqpConnection, channel: Channel) -> None:
        acks = self._acks = Acks(channel.number, connection.writer, self._prefetch)
        receive, stats = self._receive, self._consuming.stats

        def deliver(tag: int, redelivered: bool, body: bytes) -> None:
            if acks.closed or self._receiver_failed:
                return  # RabbitMQ delivers it again.
            if not call_receiver(stats, receive, AmqpDelivery(acks, tag, redelivered, body)):
                self._close_failed_channel()

        channel.on_deliver = deliver
        await channel.call(commands.Basic.Qos(prefetch_count=self._prefetch))
        await channel.call(commands.Basic.Consume(queue=self._queue))

    def _abandon(self) -> None:
        if self._acks is not None:
            self._acks.closed = True
            self._acks = None


class ExclusiveSubscription(RobustSubscription):
    """A consumer of a queue that is declared for it and deleted with its channel."""

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

    async def _subscribe(self, connection: AmqpConnection, channel: Channel) -> None:
        generation, receive, stats = self._generation, self._receive, self._consuming.stats

        def deliver(_: int, __: bool, body: bytes) -> None:
            if generation == self._generation:
                call_receiver(stats, receive, body)

        channel.on_deliver = deliver
        declared = await channel.call(commands.Queue.Declare(exclusive=True, auto_delete=True))
        await channel.call(commands.Basic.Consume(queue=declared.queue, no_ack=True))
        # The binding is last: with a consumer the queue is deleted with its channel, so that none is left bound.
        await channel.call(
            commands.Queue.Bind(queue=declared.queue, exchange=self._exchange, routing_key=self._binding)
        )

    def _abandon(self) -> None:
        self._generation += 1
