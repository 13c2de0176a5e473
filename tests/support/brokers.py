"""Brokers under test, in memory and on RabbitMQ, and inboxes for what they deliver."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from yarl import URL

from shared.broker import Broker, BrokerUnavailable, Delivery, PublishRejected, Subscription
from shared.broker.amqp import AmqpBroker
from shared.broker.memory import MemoryBroker, MemoryHub
from tests.support.proxy import Proxy
from tests.support.waiting import source, until

PARTITIONS = 4
WITHIN = 20.0
"""The deadline of every wait in seconds: generous, since only a failing test reaches it."""


class BrokerHarness(ABC):
    """Makes brokers on one system, breaks their connections and restores them."""

    def __init__(self) -> None:
        self.brokers: list[Broker] = []

    async def broker(self) -> Any:
        broker = self._make()
        self.brokers.append(broker)
        await asyncio.wait_for(broker.connect(), WITHIN)
        return broker

    @abstractmethod
    def _make(self) -> Broker: ...

    @abstractmethod
    async def cut(self, broker: Broker) -> None:
        """Breaks the broker's connections; it cannot reconnect before `heal`."""

    @abstractmethod
    async def heal(self, broker: Broker) -> None: ...

    async def close(self) -> None:
        for broker in self.brokers:
            await asyncio.wait_for(broker.close(), WITHIN)


class MemoryHarness(BrokerHarness):
    def __init__(self) -> None:
        super().__init__()
        self.hub = MemoryHub(PARTITIONS)

    def _make(self) -> MemoryBroker:
        return MemoryBroker(self.hub)

    async def cut(self, broker: Any) -> None:
        self.hub.drop(broker, heal=False)

    async def heal(self, broker: Any) -> None:
        self.hub.restore(broker)


class AmqpHarness(BrokerHarness):
    """Each broker reaches RabbitMQ through a proxy of its own."""

    def __init__(self, url: str, queue_type: Literal["classic", "quorum"], partitions: int = PARTITIONS) -> None:
        super().__init__()
        self._partitions = partitions
        self._url = URL(url)
        self._queue_type = queue_type
        self._proxies: dict[Broker, Proxy] = {}
        self._next: Proxy

    async def broker(self) -> Any:
        self._next = Proxy(str(self._url.host), self._url.port or 5672)
        await self._next.start()
        return await super().broker()

    def _make(self) -> AmqpBroker:
        url = self._url.with_host("127.0.0.1").with_port(self._next.port)
        broker = AmqpBroker(str(url), partitions=self._partitions, queue_type=self._queue_type, name="test")
        self._proxies[broker] = self._next
        return broker

    async def cut(self, broker: Broker) -> None:
        self._proxies[broker].refuse()
        self._proxies[broker].cut()

    async def heal(self, broker: Broker) -> None:
        await self._proxies[broker].start()

    async def close(self) -> None:
        await super().close()
        for proxy in self._proxies.values():
            await proxy.stop()


class Inbox:
    """Records what a subscription received, and waits for conditions on it."""

    def __init__(self, *, ack: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self.bodies: list[bytes] = []
        self.lost = 0
        self.restored = 0
        self._ack = ack

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.take_body(delivery.body)
        if self._ack:
            delivery.ack()

    def take_body(self, body: bytes) -> None:
        self.bodies.append(body)

    def on_lost(self) -> None:
        self.lost += 1

    def on_restored(self) -> None:
        self.restored += 1

    async def until(self, condition: Callable[["Inbox"], bool]) -> None:
        await until(lambda: condition(self), source(condition), within=WITHIN)

    async def has(self, count: int) -> None:
        await self.until(lambda inbox: len(inbox.bodies) >= count)


async def consume(broker: Broker, inbox: Inbox, *, partition: int = 0, prefetch: int = 64) -> Subscription:
    return await within(broker.subscribe_partition(partition, inbox.take, prefetch=prefetch, on_lost=inbox.on_lost))


async def consume_exclusive(
    broker: Broker, inbox: Inbox, exchange: Literal["notify", "media"] = "notify", binding: str = "gw1.#"
) -> Subscription:
    return await within(
        broker.subscribe_exclusive(
            exchange, binding, inbox.take_body, on_lost=inbox.on_lost, on_restored=inbox.on_restored
        )
    )


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, WITHIN)


async def publish_all(broker: Broker, bodies: list[bytes], *, key: str = "0") -> None:
    await within(asyncio.gather(*(broker.publish("rooms", key, body) for body in bodies)))


async def nothing_more(broker: Broker, inbox: Inbox, partition: int = 3) -> None:
    """Returns when what RabbitMQ had for the inbox before this call has arrived: a later message made the way."""
    after = Inbox()
    subscription = await consume(broker, after, partition=partition)
    await within(broker.publish("rooms", str(partition), b"after"))
    await after.has(1)
    await within(subscription.close())


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


async def publish_until_taken(broker: Broker, body: bytes) -> None:
    """Publishes a message again until it is confirmed, as every publisher does."""

    async def taken() -> bool:
        try:
            await broker.publish("rooms", "0", body)
        except (BrokerUnavailable, PublishRejected):
            return False
        return True

    await until(taken)
