"""Defines the broker port: everything that Plenary needs of a message broker.

Two adapters implement it, `amqp` (RabbitMQ) and `memory` (for a single process), and pass one conformance suite.

Topology
    `rooms`   direct exchange; one durable queue `rooms.<p>` per partition with a single active consumer
    `notify`  topic exchange; one exclusive queue per gateway connection, bound once with `<gateway>.#`
    `media`   direct exchange; one exclusive queue per media node (its id) and per room worker (its id)

All messages are transient: what must survive is in Redis, and a publisher publishes a message again until it is
reported applied (docs/explanation/delivery.md).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from shared.telemetry.histogram import Histogram, seconds

Exchange: TypeAlias = Literal["rooms", "notify", "media"]


class BrokerError(Exception):
    """The base of the port's failures: it is not known that the broker took a message."""


class BrokerUnavailable(BrokerError):
    """The connection is down or was lost before the confirm: the message may or may not have arrived."""


class Unroutable(BrokerError):
    """A mandatory message found no queue, so that it was not delivered."""


class PublishRejected(BrokerError):
    """The broker rejected the message (a queue is full or unavailable); the publisher repeats it in order."""


class Delivery(Protocol):
    """A message of a partition's queue."""

    body: bytes
    redelivered: bool

    def ack(self) -> None:
        """Acknowledges the message. Has no effect once its channel is closed."""
        ...


class Subscription(Protocol):
    """A consumer of one queue, on one channel after another."""

    async def close(self) -> None:
        """Closes the channel (never `basic.cancel`, DELIVERY B1): the next consumer gets what is not acknowledged."""
        ...


Receive: TypeAlias = Callable[[Delivery], None]
ReceiveExclusive: TypeAlias = Callable[[bytes], None]
Notice: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class BrokerStats:
    """Counters of one broker object since it was made."""

    connections: int = 0
    """The number of connections opened."""
    lost: int = 0
    """The number of connections lost."""
    published: int = 0
    """The number of messages published."""
    unconfirmed: int = 0
    """The number of messages that are published and not confirmed yet."""
    unsent_bytes: int = 0
    """The bytes that the socket has not taken yet."""
    blocked: bool = False
    """True while the broker is connected and takes no messages (memory or disk alarm, or it confirms none)."""
    subscription_failures: int = 0
    """The number of attempts to subscribe that the broker refused."""
    receiver_failures: int = 0
    """The number of exceptions that receivers and notices have raised."""
    confirm: Histogram = field(default_factory=seconds)
    """Seconds from a publish to its confirm; one message at a time is measured."""


class Broker(Protocol):
    """One process's access to the broker.

    `connect` returns when the connections are open; it retries with growing pauses and logs why. Lost connections
    are opened again in the background, with their queues and subscriptions.
    Callbacks run on the event loop and must not block. They must not raise either: an exception is logged and
    counted, and a partition's receiver that raises loses its channel (see `subscribe_partition`).
    """

    async def connect(self) -> None: ...

    async def close(self) -> None:
        """Closes all subscriptions and connections. Pending publishes fail with `BrokerUnavailable`."""
        ...

    @property
    def connected(self) -> bool: ...

    @property
    def takes_messages(self) -> bool:
        """Whether the broker is connected and confirms what is published: it does not while it has an alarm."""
        ...

    @property
    def trouble(self) -> str:
        """The reason why messages cannot be sent or received now; empty if they can."""
        ...

    def stats(self) -> BrokerStats: ...

    def publish(
        self,
        exchange: Exchange,
        key: str,
        body: bytes,
        *,
        mandatory: bool = False,
        ttl: float | None = None,
    ) -> asyncio.Future[None]:
        """Publishes without blocking, in the order of the calls. The future is done when the broker has confirmed
        the message. `ttl` is in seconds.

        The future fails with `Unroutable` (only if `mandatory`), `PublishRejected` or `BrokerUnavailable`. A failure
        that is never retrieved is not reported by asyncio.
        """
        ...

    async def subscribe_partition(
        self, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        """Registers a consumer of a partition's queue; deliveries come while it is the single active consumer.

        Returns once the broker has registered it, which waits for the connection if that is down.
        `on_lost` is called whenever the channel was lost: what it delivered without being acknowledged goes to the
        next active consumer (which may be this one again, on a new channel, without a further call).
        If `receive` raises, the channel is closed, which is such a loss, and opened again after a pause of at most
        2 s that grows while `receive` keeps failing.
        """
        ...

    async def subscribe_exclusive(
        self, exchange: Exchange, binding: str, receive: ReceiveExclusive, *, on_lost: Notice, on_restored: Notice
    ) -> Subscription:
        """Consumes an exclusive queue bound with `binding`, which is deleted with its connection. Deliveries need no
        acknowledgement. After a loss a *new* queue is declared and bound, and `on_restored` is called; the messages
        of the old one are lost. A message for which `receive` raises is lost alone.
        """
        ...


def partition_queue(partition: int) -> str:
    """Returns the name of a partition's queue."""
    return f"rooms.{partition}"
