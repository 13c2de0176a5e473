"""The broker port over RabbitMQ.

`link` keeps the two connections, `publisher` and `subscriptions` use them, `wire` and `intake` are the hot ways out
and in beneath both, `topology` declares what is shared.
"""

import asyncio

from shared.broker import BrokerStats, Exchange, Notice, Receive, ReceiveExclusive, Subscription
from shared.broker.amqp.link import CALL_WITHIN, AmqpConnection, Link, Report
from shared.broker.amqp.publisher import Publisher
from shared.broker.amqp.subscriptions import Consuming, OwnSubscription, PartitionSubscription
from shared.broker.amqp.topology import QueueType, Topology, TopologyMismatch
from shared.broker.amqp.wire import Outlet

__all__ = ["AmqpBroker", "TopologyMismatch"]


class AmqpBroker:
    """See `shared.broker.Broker`. `connect` also raises `TopologyMismatch`.

    Publishing and consuming have a connection each: on a memory alarm RabbitMQ stops reading from publishers,
    and acks must not wait behind them.
    """

    def __init__(self, url: str, *, partitions: int, queue_type: QueueType, name: str) -> None:
        self._topology = Topology(partitions, queue_type)
        self._stats = BrokerStats()
        self._publisher = Publisher(self._stats)
        report = Report(url)
        self._publishing = Link(
            url, f"{name} publish", report, self._stats, prepare=self._open_publisher, lost=self._publisher.lost
        )
        consume = Link(url, f"{name} consume", report, self._stats, prepare=self._declare, lost=lambda: None)
        self._consuming = Consuming(consume, self._topology)
        self._watch: asyncio.Task[None] | None = None

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
        # First the channels, so that acks given before this call arrive: a closing connection drops them.
        await asyncio.gather(*(kept.close() for kept in list(self._consuming.kept)))
        await asyncio.gather(self._consuming.link.close(), self._publishing.close())

    @property
    def connected(self) -> bool:
        return self._publishing.is_up and self._consuming.link.is_up

    def stats(self) -> BrokerStats:
        self._stats.unconfirmed = self._publisher.unconfirmed
        self._stats.unsent_bytes = self._publisher.unsent
        return self._stats

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool = False, ttl: float | None = None
    ) -> asyncio.Future[None]:
        return self._publisher.publish(exchange, key, body, mandatory=mandatory, ttl=ttl)

    async def subscribe_partition(
        self, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        kept = PartitionSubscription(self._consuming, partition, receive, prefetch=prefetch, on_lost=on_lost)
        await kept.start()
        return kept

    async def subscribe_exclusive(
        self, exchange: Exchange, binding: str, receive: ReceiveExclusive, *, on_lost: Notice, on_restored: Notice
    ) -> Subscription:
        kept = OwnSubscription(self._consuming, exchange, binding, receive, on_lost=on_lost, on_restored=on_restored)
        await kept.start()
        return kept

    async def _declare(self, connection: AmqpConnection, _: Outlet) -> None:
        await self._topology.declare(connection, CALL_WITHIN)

    async def _open_publisher(self, connection: AmqpConnection, outlet: Outlet) -> None:
        await self._topology.declare(connection, CALL_WITHIN)
        ended = await self._publisher.open(connection, outlet)
        ended.add_done_callback(lambda _: self._publishing.drop("RabbitMQ closed the publishing channel"))

    async def _watch_confirms(self) -> None:
        """Gives the publishing connection up when nothing was confirmed for a whole deadline."""
        before: asyncio.Future[None] | None = None
        while True:
            await asyncio.sleep(CALL_WITHIN)
            oldest = self._publisher.oldest_unconfirmed
            if oldest is not None and oldest == before:
                self._publishing.drop(f"no confirm for {CALL_WITHIN:.0f} s: a memory or disk alarm?")
            before = oldest
