"""The broker port: all that Plenary asks of RabbitMQ, small enough that memory can stand in for it.

Two adapters, `amqp` (RabbitMQ) and `memory` (the all-in-one process), pass one conformance suite.

Topology
    `rooms`   direct exchange; one durable queue `rooms.<p>` per partition with a single active consumer
    `notify`  topic exchange; one exclusive queue per gateway connection, bound once with `<gateway>.#`
    `media`   direct exchange; one exclusive queue per media node (its id) and per room worker (its id)

All messages are transient: what must survive is in Redis, and whoever published a message publishes it
again until it is reported applied (docs/explanation/delivery.md).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from shared.telemetry.histogram import Histogram, seconds

Exchange: TypeAlias = Literal["rooms", "notify", "media"]


class BrokerError(Exception):
    """A publish that is not known to have been taken."""


class BrokerGone(BrokerError):
    """The connection is down or went down before the confirm: the message may or may not have arrived."""


class Unroutable(BrokerError):
    """A mandatory message found no queue: nobody will ever get it."""


class Refused(BrokerError):
    """The broker nacked the message (full, or in trouble). Publish it again, in order."""


class Delivery(Protocol):
    """One message taken from a partition's queue."""

    body: bytes
    redelivered: bool

    def ack(self) -> None:
        """Tells the broker that this message is done with. Without effect once its channel is closed."""
        ...


class Subscription(Protocol):
    async def close(self) -> None:
        """Gives the queue up by closing its channel (never `basic.cancel`): what is not acked goes to the next."""
        ...


Receive: TypeAlias = Callable[[Delivery], None]
ReceiveOwn: TypeAlias = Callable[[bytes], None]
Notice: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class BrokerStats:
    """What one link to the broker has done since it was made, and has to do."""

    connections: int = 0
    """Connections opened."""
    lost: int = 0
    """Connections lost."""
    published: int = 0
    unconfirmed: int = 0
    unsent_bytes: int = 0
    confirm: Histogram = field(default_factory=seconds)
    """Seconds from a publish to its confirm, of one message at a time."""


class Broker(Protocol):
    """One process's link to the broker.

    `connect` returns when the link is up (it keeps trying, with growing pauses, and says so in the log).
    Later losses are healed in the background: queues and subscriptions come back by themselves.
    Callbacks run on the event loop, must not block, and must not raise.
    """

    async def connect(self) -> None: ...

    async def close(self) -> None:
        """Gives everything up. Pending publishes fail with `BrokerGone`."""
        ...

    @property
    def connected(self) -> bool: ...

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
        """Never blocks. The message takes its place in the order at the call; the future is done when the broker
        has confirmed it. `ttl` in seconds.

        The future fails with `Unroutable` (only if `mandatory`), `Refused` or `BrokerGone`; asyncio never complains
        about a failure that nobody looked at.
        """
        ...

    async def subscribe_partition(
        self, partition: int, receive: Receive, *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        """Waits in line for a partition's queue; deliveries come while this is its active consumer.

        Returns once the broker has registered it; while the link is down, that waits for its return.
        `on_lost` is called whenever the channel was lost: whatever it delivered and is not acked belongs to
        the next active consumer (which may be this one again, on a new channel, without further calls).
        """
        ...

    async def subscribe_own(
        self, exchange: Exchange, binding: str, receive: ReceiveOwn, *, on_lost: Notice, on_restored: Notice
    ) -> Subscription:
        """An exclusive queue of one's own, bound with `binding`, gone with its connection. Deliveries need no
        ack. After a loss a *new* queue is made and bound (`on_restored`); what the old one held is lost.
        """
        ...


def partition_queue(partition: int) -> str:
    return f"rooms.{partition}"
