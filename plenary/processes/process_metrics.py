"""Metrics that every process has, whichever roles run in it: build, event loop, RabbitMQ and Redis connections."""

import asyncio
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import Metric

from shared.broker import Broker
from shared.telemetry.histogram import seconds
from shared.telemetry.metrics import counter, described_in, gauge, histogram
from shared.version import version

LAG_EVERY: Final = 0.25
"""Seconds between two measurements of the event loop's lag."""

BUILD = gauge("build_info", "Always 1; the labels say what runs.", "version", "python")
PARTITIONS = gauge("partitions", "Partitions that the cluster has by this process's settings.")
LAG = histogram(
    "event_loop_lag_seconds", "How much later than planned the event loop woke; measured four times a second."
)
BROKER_UP = gauge("broker_up", "1 while connected to RabbitMQ, else 0.")
BROKER_CONNECTIONS = counter("broker_connections", "Connections opened to RabbitMQ; two for each role at its start.")
BROKER_LOST = counter("broker_connections_lost", "Connections to RabbitMQ that were lost.")
BROKER_PUBLISHED = counter("broker_published", "AMQP messages published.")
BROKER_CONFIRM = histogram(
    "broker_confirm_seconds", "From a publish to its confirm by RabbitMQ; measured one at a time."
)
BROKER_UNCONFIRMED = gauge("broker_unconfirmed_messages", "AMQP messages published and not confirmed yet.")
BROKER_BLOCKED = gauge(
    "broker_blocked", "1 while connected to a RabbitMQ that takes no messages (memory or disk alarm), else 0."
)
BROKER_SUBSCRIPTION_FAILURES = counter(
    "broker_subscription_failures", "Attempts to subscribe that RabbitMQ refused while connected."
)
BROKER_RECEIVER_FAILURES = counter(
    "broker_receiver_failures",
    "Exceptions raised while a message was received; a partition's messages are then delivered again.",
)
BROKER_UNSENT = gauge("broker_unsent_bytes", "Bytes for RabbitMQ that its socket has not taken yet.")
REDIS_CONNECTIONS = counter(
    "redis_connections",
    "Connections opened to Redis: as many as were ever needed at once, and those that replaced lost ones.",
)


@dataclass(slots=True)
class RedisConnectionCounter:
    """Counts the connections that a Redis client opens; `opened` is the client's `redis_connect_func`."""

    connections: int = 0

    async def opened(self, connection: Any) -> None:
        await connection.on_connect()
        self.connections += 1


class ProcessMetrics:
    """Metrics of the process itself. `start` begins and `stop` ends measuring the event loop's lag."""

    described = described_in(globals())

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._brokers: list[Broker] = []
        self._redis: list[RedisConnectionCounter] = []
        self._lag = seconds()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, broker: Broker, redis: RedisConnectionCounter | None = None) -> None:
        """Includes the connections of one role. `redis` is None for a role on memory."""
        self._brokers.append(broker)
        if redis is not None:
            self._redis.append(redis)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_EVERY

        def woke() -> None:
            nonlocal due
            now = loop.time()
            self._lag.observe(max(0.0, now - due))
            due = now + LAG_EVERY
            self._timer = loop.call_at(due, woke)

        self._timer = loop.call_at(due, woke)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def refresh(self) -> None:
        pass

    def collect(self) -> Iterable[Metric]:
        yield BUILD.with_values({(version(), platform.python_version()): 1})
        yield PARTITIONS.with_value(self._partitions)
        yield LAG.with_histogram(self._lag)
        brokers = [broker.stats() for broker in self._brokers]
        yield BROKER_UP.with_value(bool(self._brokers) and all(broker.connected for broker in self._brokers))
        yield BROKER_CONNECTIONS.with_value(sum(broker.connections for broker in brokers))
        yield BROKER_LOST.with_value(sum(broker.lost for broker in brokers))
        yield BROKER_PUBLISHED.with_value(sum(broker.published for broker in brokers))
        yield BROKER_CONFIRM.with_histogram(sum((broker.confirm for broker in brokers), seconds()))
        yield BROKER_UNCONFIRMED.with_value(sum(broker.unconfirmed for broker in brokers))
        yield BROKER_BLOCKED.with_value(any(broker.blocked for broker in brokers))
        yield BROKER_SUBSCRIPTION_FAILURES.with_value(sum(broker.subscription_failures for broker in brokers))
        yield BROKER_RECEIVER_FAILURES.with_value(sum(broker.receiver_failures for broker in brokers))
        yield BROKER_UNSENT.with_value(sum(broker.unsent_bytes for broker in brokers))
        yield REDIS_CONNECTIONS.with_value(sum(redis.connections for redis in self._redis))
