"""A broker inside the process, with those semantics of RabbitMQ that Plenary relies on.

One `MemoryHub` per process holds the queues, and each role has its own `MemoryBroker` on it, as it would have its
own connections. Nothing is delivered or confirmed inside `publish`, but always later on the event loop.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

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
from shared.telemetry import log

QUEUE_LIMIT = 65536
"""The number of messages that a queue holds before it rejects more."""

_log = log.get("broker")


@dataclass(slots=True)
class _Message:
    body: bytes
    expires: float | None
    redelivered: bool = False


class _Queue:
    """Gives its messages in order to the channel that joined first, the single active consumer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[_Message] = deque()
        self._channels: list[_Channel] = []
        self._awake = False

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._limit

    def put(self, message: _Message) -> None:
        self._drop_expired()
        self._waiting.append(message)
        self.wake()

    def join(self, channel: "_Channel") -> None:
        self._channels.append(channel)
        self.wake()

    def leave(self, channel: "_Channel", unacked: Iterable[_Message]) -> None:
        if channel not in self._channels:
            return
        self._channels.remove(channel)
        for message in reversed(list(unacked)):
            message.redelivered = True
            self._waiting.appendleft(message)
        self.wake()

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._awake = False
        # One pass takes what waits now: a consumer that publishes to itself must not occupy the event loop.
        for _ in range(len(self._waiting)):
            self._drop_expired()
            if not (self._waiting and self._channels and self._channels[0].has_room):
                return
            self._channels[0].take(self._waiting.popleft())
        if self._waiting:
            self.wake()

    def _drop_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and (expires := self._waiting[0].expires) is not None and expires <= now:
            self._waiting.popleft()


class _Channel(ABC):
    """One consumer of a queue, from its subscription to its loss."""

    has_room = True

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def take(self, message: _Message) -> None:
        try:
            self._receive(message)
        except Exception:  # noqa: BLE001 - whatever a role's callback does, the queue goes on
            _log.exception("receiver.failed")

    @abstractmethod
    def _receive(self, message: _Message) -> None: ...

    def close(self) -> None:
        self._queue.leave(self, ())


class _PartitionChannel(_Channel):
    """A consumer with acknowledgements: on closing, unacked messages return to the front of the queue in order."""

    def __init__(self, queue: _Queue, receive: Receive, prefetch: int) -> None:
        super().__init__(queue)
        self._to = receive
        self._prefetch = prefetch
        self._unacked: dict[int, _Message] = {}
        self._last_tag = 0

    @property
    def has_room(self) -> bool:  # type: ignore[override]
        return not self._prefetch or len(self._unacked) < self._prefetch

    def _receive(self, message: _Message) -> None:
        self._last_tag += 1
        self._unacked[self._last_tag] = message
        self._to(_Delivery(self, self._last_tag, message))

    def ack(self, tag: int) -> None:
        if self._unacked.pop(tag, None) is not None:
            self._queue.wake()

    def close(self) -> None:
        unacked, self._unacked = self._unacked, {}
        self._queue.leave(self, unacked.values())


class _Delivery:
    __slots__ = ("_channel", "_tag", "body", "redelivered")

    def __init__(self, channel: _PartitionChannel, tag: int, message: _Message) -> None:
        self.body = message.body
        self.redelivered = message.redelivered
        self._channel = channel
        self._tag = tag

    def ack(self) -> None:
        self._channel.ack(self._tag)


class _ExclusiveChannel(_Channel):
    def __init__(self, queue: _Queue, receive: ReceiveExclusive) -> None:
        super().__init__(queue)
        self._to = receive

    def _receive(self, message: _Message) -> None:
        self._to(message.body)


class MemoryHub:
    """The queues and bindings that all brokers of a process share."""

    def __init__(self, partitions: int = 32, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self._limit = queue_limit
        self._partitions = [_Queue(queue_limit) for _ in range(partitions)]
        self._bindings: dict[Exchange, dict[_Queue, str]] = {
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

    def partition(self, number: int) -> _Queue:
        return self._partitions[number]

    def bind_exclusive(self, exchange: Exchange, binding: str) -> _Queue:
        queue = _Queue(self._limit)
        self._bindings[exchange][queue] = binding
        return queue

    def unbind(self, exchange: Exchange, queue: _Queue) -> None:
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
            queue.put(_Message(body, expires))
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
        self._channel: _Channel | None = None

    def open(self, *, again: bool = False) -> None:
        self._channel = self._make()
        if again and self._on_restored is not None:
            self._on_restored()

    @abstractmethod
    def _make(self) -> _Channel: ...

    def lose(self) -> None:
        if self._channel is not None:
            self._leave(self._channel)
            self._channel = None
            asyncio.get_running_loop().call_soon(self._on_lost)

    async def close(self) -> None:
        self._broker.forget(self)
        if self._channel is not None:
            self._leave(self._channel)
            self._channel = None

    def _leave(self, channel: _Channel) -> None:
        channel.close()


class _PartitionSubscription(_Subscription):
    def __init__(self, broker: "MemoryBroker", queue: _Queue, receive: Receive, prefetch: int, lost: Notice) -> None:
        super().__init__(broker, lost, None)
        self._queue = queue
        self._receive = receive
        self._prefetch = prefetch

    def _make(self) -> _Channel:
        channel = _PartitionChannel(self._queue, self._receive, self._prefetch)
        self._queue.join(channel)
        return channel


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
        self._queue: _Queue

    def _make(self) -> _Channel:
        self._queue = self._hub.bind_exclusive(self._exchange, self._binding)
        channel = _ExclusiveChannel(self._queue, self._receive)
        self._queue.join(channel)
        return channel

    def _leave(self, channel: _Channel) -> None:
        self._hub.unbind(self._exchange, self._queue)
        super()._leave(channel)


class MemoryBroker:
    """One role's access to the hub. See `shared.broker.Broker`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._subscriptions: dict[_Subscription, None] = {}
        self._unconfirmed: deque[tuple[asyncio.Future[None], Exception | None]] = deque()
        self._wanted = False
        self._up = asyncio.Event()
        self._stats = BrokerStats()

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
    def trouble(self) -> str:
        return "" if self.connected else "no connection to the message broker"

    def stats(self) -> BrokerStats:
        self._stats.unconfirmed = len(self._unconfirmed)
        return self._stats

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
        self._stats.published += 1
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
        self._stats.lost += self._up.is_set()
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
        self._stats.connections += 1
        for subscription in list(self._subscriptions):
            subscription.open(again=True)
