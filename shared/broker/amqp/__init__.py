"""The broker port over RabbitMQ.

frames, content, events, protocol    AMQP 0-9-1 without I/O
writer, connection                   one connection on asyncio
robust_connection, subscriptions     opening again after a loss
publisher, acks                      the hot path
topology, queues                     declaring and asking, with aio-pika
"""

import asyncio
from typing import Final

from shared.broker import BrokerStats, Exchange, Notice, Receive, ReceiveExclusive, Subscription, addresses
from shared.broker.amqp.connection import CALL_TIMEOUT, AmqpConnection, LoginRefused
from shared.broker.amqp.outage import Outage
from shared.broker.amqp.publisher import Publisher
from shared.broker.amqp.robust_connection import RobustConnection
from shared.broker.amqp.subscriptions import Consuming, ExclusiveSubscription, PartitionSubscription
from shared.broker.amqp.topology import QueueType, Topology, TopologyMismatch
from shared.telemetry import log

__all__ = ["AmqpBroker", "LoginRefused", "TopologyMismatch"]

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at whether RabbitMQ confirms."""
STALLED_LOOKS: Final = 3
RECONNECT_LOOKS: Final = round(CALL_TIMEOUT / LOOK_EVERY)
"""Looks without a confirm after which RabbitMQ counts as taking no messages, and after which it is reconnected."""

_log = log.get("broker")


class AmqpBroker:
    """A broker on RabbitMQ. See `shared.broker.Broker`; `connect` also raises `TopologyMismatch` or `LoginRefused`.

    Publishing and consuming have a connection each: on a memory alarm RabbitMQ stops reading from publishers,
    and acknowledgements must not wait behind them (DELIVERY B3).
    """

    def __init__(self, url: str, *, partitions: int, queue_type: QueueType, name: str) -> None:
        """Takes a `url` as `shared.broker.addresses` parses it. Raises `ValueError`."""
        servers = addresses.parse(url)
        self._topology = Topology(partitions, queue_type, name)
        self._stats = BrokerStats()
        self._publisher = Publisher(self._stats)
        self._outage = Outage(
            "rabbitmq.unavailable",
            "rabbitmq.available",
            address=", ".join(map(str, servers)),
            hint="is it running and reachable? its address is set by PLENARY_AMQP_URL",
        )
        self._publishing = RobustConnection(
            servers,
            f"{name} publish",
            self._outage,
            self._stats,
            prepare=self._open_publisher,
            on_lost=self._publisher.lost,
        )
        consume = RobustConnection(
            servers, f"{name} consume", self._outage, self._stats, prepare=self._declare, on_lost=lambda: None
        )
        self._consuming = Consuming(consume, self._topology, self._stats)
        self._watch: asyncio.Task[None] | None = None
        self._unconfirmed_looks = 0
        """The number of looks in a row at which the same message was the oldest unconfirmed one."""

    async def connect(self) -> None:
        try:
            await asyncio.gather(self._publishing.start(), self._consuming.link.start())
        except BaseException:
            await self.close()
            raise
        self._watch = asyncio.create_task(self._watch_confirms())

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        # The channels are closed first, so that acknowledgements given before this call arrive.
        await asyncio.gather(*(each.close() for each in list(self._consuming.subscriptions)))
        await asyncio.gather(self._consuming.link.close(), self._publishing.close(), self._topology.close())

    @property
    def connected(self) -> bool:
        return self._publishing.is_up and self._consuming.link.is_up

    @property
    def takes_messages(self) -> bool:
        return self.connected and not self._blocked and self._unconfirmed_looks < STALLED_LOOKS

    @property
    def trouble(self) -> str:
        if not self.connected:
            return "no connection to the message broker"
        if not self.takes_messages:
            return f"the message broker takes no messages: {self._blocked or 'it confirms none'}"
        if reason := self._consuming.outage.reason:
            return f"the message broker refuses a subscription: {reason}"
        return ""

    def stats(self) -> BrokerStats:
        self._stats.unconfirmed = self._publisher.unconfirmed
        self._stats.unsent_bytes = self._publisher.unsent
        self._stats.blocked = self.connected and not self.takes_messages
        return self._stats

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool = False, ttl: float | None = None
    ) -> asyncio.Future[None]:
        return self._publisher.publish(exchange, key, body, mandatory=mandatory, ttl=ttl)

    async def subscribe_partition(
        self, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        subscription = PartitionSubscription(self._consuming, partition, receive, prefetch=prefetch, on_lost=on_lost)
        await subscription.start()
        return subscription

    async def subscribe_exclusive(
        self, exchange: Exchange, binding: str, receive: ReceiveExclusive, *, on_lost: Notice, on_restored: Notice
    ) -> Subscription:
        subscription = ExclusiveSubscription(
            self._consuming, exchange, binding, receive, on_lost=on_lost, on_restored=on_restored
        )
        await subscription.start()
        return subscription

    async def _declare(self, connection: AmqpConnection) -> None:
        await self._topology.declare(connection.address)

    async def _open_publisher(self, connection: AmqpConnection) -> None:
        await self._declare(connection)
        connection.on_blocked = _on_blocked
        channel = await self._publisher.open(connection)
        channel.on_closed = lambda failure: connection.abort(f"RabbitMQ closed the publishing channel: {failure}")

    async def _watch_confirms(self) -> None:
        """Notes whether RabbitMQ confirms, and opens a publishing connection anew that is not blocked and does not.

        An idle process publishes a probe each time: RabbitMQ tells a connection that it is blocked when it publishes.
        """
        before: asyncio.Future[None] | None = None
        while True:
            await asyncio.sleep(LOOK_EVERY)
            oldest = self._publisher.oldest_unconfirmed
            if oldest is None:
                self._publisher.probe()
            # Looks are counted, not seconds: after a stall of this process the confirms that wait are read first.
            self._unconfirmed_looks = self._unconfirmed_looks + 1 if oldest is not None and oldest is before else 0
            if self._unconfirmed_looks >= RECONNECT_LOOKS and not self._blocked:
                self._publishing.reconnect(f"RabbitMQ confirmed nothing for {RECONNECT_LOOKS * LOOK_EVERY:.0f} s")
            before = self._publisher.oldest_unconfirmed

    @property
    def _blocked(self) -> str:
        """The reason why RabbitMQ has blocked the publishing connection; empty if it has not."""
        publishing = self._publishing.current
        return (publishing.blocked or "") if publishing is not None else ""


def _on_blocked(reason: str | None) -> None:
    if reason is None:
        _log.info("rabbitmq.unblocked")
    else:
        _log.warning("rabbitmq.blocked", reason=reason, hint="RabbitMQ takes no messages until its alarm is over")
