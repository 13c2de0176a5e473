"""Metrics of every process, and the means by which each role's `metrics` module describes its own.

Roles count in plain integers (`…/counts.py`, `shared.telemetry.histogram`); whoever scrapes pays for the rest.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from shared.broker import Broker
from shared.telemetry.histogram import Histogram, seconds
from shared.version import version

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[object, ...] | object
"""The values of a metric's labels in their order; of its only label, the value."""

LAG_EVERY: Final = 0.25


@dataclass(frozen=True, slots=True)
class Described:
    """One metric. Counters end in `_total`; units are seconds and bytes; labels never hold clients' text."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: float) -> Metric:
        """Without labels."""
        return self.by({(): value})

    def by(self, values: Mapping[Any, float]) -> Metric:
        """A counter or gauge with a sample for each of `values`, by its `Labels`."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(_texts(labels), value)
        return family

    def spread(self, histogram: Histogram) -> Metric:
        return self.spreads({(): histogram})

    def spreads(self, histograms: Mapping[Any, Histogram]) -> Metric:
        """A histogram for each of these, by its `Labels`."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, histogram in histograms.items():
            buckets: list[tuple[str, float]] = []
            below = 0
            for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
                below += count
                buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), below))
            family.add_metric(_texts(labels), buckets, histogram.sum)
        return family


def _texts(labels: Labels) -> list[str]:
    return [str(label) for label in labels] if isinstance(labels, tuple) else [str(labels)]


def counter(name: str, help: str, *labels: str) -> Described:
    return Described(f"plenary_{name}_total", "counter", help, labels)


def gauge(name: str, help: str, *labels: str) -> Described:
    return Described(f"plenary_{name}", "gauge", help, labels)


def histogram(name: str, help: str, *labels: str) -> Described:
    return Described(f"plenary_{name}", "histogram", help, labels)


class Metrics(Protocol):
    """What a role, or the process around it, has to tell. `described` is all that `collect` may give."""

    described: tuple[Described, ...]

    async def refresh(self) -> None:
        """Before each `collect`: whatever has to be asked of others. Must not raise, and not take long."""
        ...

    def collect(self) -> Iterable[Metric]: ...


def described_in(module: Mapping[str, object]) -> tuple[Described, ...]:
    """All metrics that a module's globals describe, in their order."""
    return tuple(value for value in module.values() if isinstance(value, Described))


# --- every process -------------------------------------------------------------------------------------------

BUILD = gauge("build_info", "Always 1; the labels say what runs.", "version", "python")
PARTITIONS = gauge("partitions", "Partitions that the cluster has by this process's settings.")
LAG = histogram(
    "event_loop_lag_seconds", "How much later than planned the event loop woke; looked at four times a second."
)
BROKER_UP = gauge("broker_up", "1 while connected to RabbitMQ, else 0.")
BROKER_CONNECTIONS = counter("broker_connections", "Connections opened to RabbitMQ; two for each role at its start.")
BROKER_LOST = counter("broker_connections_lost", "Connections to RabbitMQ that were lost.")
BROKER_PUBLISHED = counter("broker_published", "AMQP messages published.")
BROKER_CONFIRM = histogram(
    "broker_confirm_seconds", "From a publish to its confirm by RabbitMQ; measured one at a time."
)
BROKER_UNCONFIRMED = gauge("broker_unconfirmed_messages", "AMQP messages published and not confirmed yet.")
BROKER_UNSENT = gauge("broker_unsent_bytes", "Bytes for RabbitMQ that its socket has not taken yet.")
REDIS_CONNECTIONS = counter(
    "redis_connections",
    "Connections opened to Redis: as many as were ever needed at once, and those that replaced lost ones.",
)


@dataclass(slots=True)
class RedisLink:
    """Counts a Redis client's connections; `opened` is its `redis_connect_func`."""

    connections: int = 0

    async def opened(self, connection: Any) -> None:
        await connection.on_connect()
        self.connections += 1


class ProcessMetrics:
    """A process's own, around whichever roles it has. `start` and `stop` watch the event loop."""

    described = described_in(globals())

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._brokers: list[Broker] = []
        self._redis: list[RedisLink] = []
        self._lag = seconds()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, broker: Broker, redis: RedisLink | None = None) -> None:
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
        yield BUILD.by({(version(), platform.python_version()): 1})
        yield PARTITIONS.of(self._partitions)
        yield LAG.spread(self._lag)
        brokers = [broker.stats() for broker in self._brokers]
        yield BROKER_UP.of(bool(self._brokers) and all(broker.connected for broker in self._brokers))
        yield BROKER_CONNECTIONS.of(sum(broker.connections for broker in brokers))
        yield BROKER_LOST.of(sum(broker.lost for broker in brokers))
        yield BROKER_PUBLISHED.of(sum(broker.published for broker in brokers))
        yield BROKER_CONFIRM.spread(sum((broker.confirm for broker in brokers), seconds()))
        yield BROKER_UNCONFIRMED.of(sum(broker.unconfirmed for broker in brokers))
        yield BROKER_UNSENT.of(sum(broker.unsent_bytes for broker in brokers))
        yield REDIS_CONNECTIONS.of(sum(redis.connections for redis in self._redis))


Trouble: TypeAlias = Callable[[], str]
"""Why a role is not ready, in words; empty if it is."""
