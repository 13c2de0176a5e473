"""A broker inside the process, with those semantics of RabbitMQ that Plenary relies on.

One `MemoryHub` per process holds the queues, and each role has its own `MemoryBroker` on it, as it would have its
own connections. Nothing is delivered or confirmed inside `publish`, but always later on the event loop.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from shared.broker import (
    BrokerStats,
    BrokerUnavailable,
    Exchange,
    Notice,
    PublishRejected,
    Receive,
    ReceiveExclusive,
    Subscription,
    Unroutable,
)
from shared.broker.futures import complete
from shared.broker.memory_queues import Channel, ExclusiveChannel, MemoryDelivery, Message, PartitionChannel, Queue
from shared.broker.receivers import STABLE_AFTER, call_receiver, recovery_backoff

QUEUE_LIMIT = 65536
"""The number of messages that a queue holds before it rejects more."""


class MemoryHub:
    """The queues and bindings that all brokers of a process share."""

    def __init__(self, partitions: int = 32, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._limit = queue_limit
        self._partitions = [Queue(queue_limit) for _ in range(partitions)]
        self._bindings: dict[Exchange, dict[Queue, str]] = {
            "rooms": {queue: str(number) for number, queue in enumerate(self._partitions)},
            "notify": {},
            "media": {},
        }

    def drop(self, broker: "MemoryBroker", *, heal: bool = True) -> None:
        """Breaks the broker's connection, for tests. With `heal` it returns on the loop's next turn, else when
        `restore` is called.
        """
        broker.lose()
        if heal:
            asyncio.get_running_loop().call_soon(broker.restore)

    def restore(self, broker: "MemoryBroker") -> None:
        """Ends a `drop(…, heal=False)`."""
        broker.restore()

    def partition(self, number: int) -> Queue:
        return self._partitions[number]

    def bind_exclusive(self, exchange: Exchange, binding: str) -> Queue:
        queue = Queue(self._limit)
        self._bindings[exchange][queue] = binding
        return queue

    def unbind(self, exchange: Exchange, queue: Queue) -> None:
        del self._bindings[exchange][queue]

    def put(self, exchange: Exchange, key: str, body: bytes, ttl: float | None) -> bool:
        """Returns False if no queue is bound with the key. Raises `PublishRejected`."""
        if exchange == "rooms":
            queues = [self._partitions[int(key)]] if key.isdecimal() and int(key) < len(self._partitions) else []
        else:
            queues = [queue for queue, binding in self._bindings[exchange].items() if _matches(binding, key)]
        if any(queue.full for queue in queues):
            raise PublishRejected(f"a queue for {exchange} {key} is full")
        expires = None if ttl is None else asyncio.get_running_loop().time() + ttl
        for queue in queues:
            queue.put(Message(body, expires))
        return bool(queues)


def _matches(binding: str, key: str) -> bool:
    if binding.endswith(".#"):
        return key == binding[:-2] or key.startswith(binding[:-1])
    return key == binding


class _Subscription(ABC):
    """One subscription of a broker, on one channel after another."""

    def __init__(self, broker: "MemoryBroker", on_lost: Notice, on_restored: Notice | None) -> None:
        self._broker = broker
        self._on_lost = on_lost
        self._on_restored = on_restored
        self._channel: Channel | None = None

    def open(self, *, again: bool = False) -> None:
        self._channel = self._make()
        if again and self._on_restored is not None:
            call_receiver(self._broker.counters, self._on_restored)

    @abstractmethod
    def _make(self) -> Channel: ...

    def lose(self) -> None:
        if self._channel is not None:
            self._leave(self._channel)
            self._channel = None
            asyncio.get_running_loop().call_soon(call_receiver, self._broker.counters, self._on_lost)

    async def close(self) -> None:
        """Closes the channel; messages that are not acknowledged go to the next consumer."""
        self._broker.forget(self)
        if self._channel is not None:
            self._leave(self._channel)
            self._channel = None

    def _leave(self, channel: Channel) -> None:
        channel.close()


class _PartitionSubscription(_Subscription):
    def __init__(self, broker: "MemoryBroker", queue: Queue, receive: Receive, prefetch: int, lost: Notice) -> None:
        super().__init__(broker, lost, None)
        self._queue = queue
        self._receive = receive
        self._prefetch = prefetch
        self._backoff = recovery_backoff()
        self._opened_at = 0.0
        self._reopening: asyncio.TimerHandle | None = None

    def _make(self) -> Channel:
        self._cancel_reopening()
        self._opened_at = asyncio.get_running_loop().time()
        channel = PartitionChannel(self._queue, self._take, self._prefetch)
        self._queue.join(channel)
        return channel

    async def close(self) -> None:
        self._cancel_reopening()
        await super().close()

    def _take(self, delivery: MemoryDelivery) -> None:
        """Gives a delivery to the receiver; if that raises, closes the channel and opens it again after a pause."""
        if call_receiver(self._broker.counters, self._receive, delivery):
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._opened_at > STABLE_AFTER:
            self._backoff.reset()
        self.lose()
        self._reopening = loop.call_later(self._backoff.next(), self._reopen)

    def _reopen(self) -> None:
        self._reopening = None
        if self._broker.connected:  # otherwise `restore` opens it
            self.open(again=True)

    def _cancel_reopening(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None


class _ExclusiveSubscription(_Subscription):
    def __init__(
        self,
        broker: "MemoryBroker",
        hub: MemoryHub,
        where: tuple[Exchange, str],
        receive: ReceiveExclusive,
        notices: tuple[Notice, Notice],
    ) -> None:
        super().__init__(broker, *notices)
        self._hub = hub
        self._exchange, self._binding = where
        self._receive = receive
        self._queue: Queue

    def _make(self) -> Channel:
        self._queue = self._hub.bind_exclusive(self._exchange, self._binding)
        channel = ExclusiveChannel(self._queue, self._take)
        self._queue.join(channel)
        return channel

    def _take(self, body: bytes) -> None:
        call_receiver(self._broker.counters, self._receive, body)

    def _leave(self, channel: Channel) -> None:
        self._hub.unbind(self._exchange, self._queue)
        super()._leave(channel)


class MemoryBroker:
    """A broker on a hub, which one role uses. See `shared.broker.Broker`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._subscriptions: dict[_Subscription, None] = {}
        self._unconfirmed: deque[tuple[asyncio.Future[None], Exception | None]] = deque()
        self._wanted = False
        self._up = asyncio.Event()
        self.counters = BrokerStats()
        """What `stats` returns; subscriptions count in it, too."""

    async def connect(self) -> None:
        self._wanted = True
        self.restore()

    async def close(self) -> None:
        self._wanted = False
        for subscription in list(self._subscriptions):
            await subscription.close()
        self.lose()

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def takes_messages(self) -> bool:
        return self.connected

    @property
    def trouble(self) -> str:
        return "" if self.connected else "no connection to the message broker"

    def stats(self) -> BrokerStats:
        self.counters.unconfirmed = len(self._unconfirmed)
        return self.counters

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool = False, ttl: float | None = None
    ) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._up.is_set():
            complete(future, BrokerUnavailable("not connected"))
            return future
        failure: Exception | None = None
        try:
            if not self._hub.put(exchange, key, body, ttl) and mandatory:
                failure = Unroutable(f"no queue for {exchange} {key}")
        except PublishRejected as refused:
            failure = refused
        self.counters.published += 1
        if not self._unconfirmed:
            loop.call_soon(self._confirm)
        self._unconfirmed.append((future, failure))
        return future

    def _confirm(self) -> None:
        while self._unconfirmed:
            complete(*self._unconfirmed.popleft())

    async def subscribe_partition(
        self, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        queue = self._hub.partition(partition)
        return await self._subscribe(_PartitionSubscription(self, queue, receive, prefetch, on_lost))

    async def subscribe_exclusive(
        self, exchange: Exchange, binding: str, receive: ReceiveExclusive, *, on_lost: Notice, on_restored: Notice
    ) -> Subscription:
        notices = (on_lost, on_restored)
        return await self._subscribe(_ExclusiveSubscription(self, self._hub, (exchange, binding), receive, notices))

    async def _subscribe(self, subscription: _Subscription) -> Subscription:
        await self._up.wait()
        subscription.open()
        self._subscriptions[subscription] = None
        return subscription

    def forget(self, subscription: _Subscription) -> None:
        self._subscriptions.pop(subscription, None)

    def lose(self) -> None:
        self.counters.lost += self._up.is_set()
        self._up.clear()
        for subscription in self._subscriptions:
            subscription.lose()
        while self._unconfirmed:
            future, _ = self._unconfirmed.popleft()
            complete(future, BrokerUnavailable("the connection was lost before the confirm"))

    def restore(self) -> None:
        if not self._wanted or self._up.is_set():
            return
        self._up.set()
        self.counters.connections += 1
        for subscription in list(self._subscriptions):
            subscription.open(again=True)
