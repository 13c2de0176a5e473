"""Describes metrics, as each role's `metrics` module exposes them.

Roles count in plain integers (`…/counters.py`, `shared.telemetry.histogram`). Metrics are made of them
when Prometheus asks.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from shared.telemetry.histogram import Histogram

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[object, ...] | object
"""The values of a metric's labels in their order; a metric with one label may have the value itself."""

Trouble: TypeAlias = Callable[[], str]
"""A function that returns why a role is not ready; empty if it is ready."""


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """The description of one metric.

    Counters end in `_total`, units are seconds and bytes, and labels never hold clients' text.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def with_value(self, value: float) -> Metric:
        """Returns a counter or gauge without labels."""
        return self.with_values({(): value})

    def with_values(self, values: Mapping[Any, float]) -> Metric:
        """Returns a counter or gauge with a sample for each of `values`, by its `Labels`."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(_texts(labels), value)
        return family

    def with_histogram(self, histogram: Histogram) -> Metric:
        """Returns a histogram without labels."""
        return self.with_histograms({(): histogram})

    def with_histograms(self, histograms: Mapping[Any, Histogram]) -> Metric:
        """Returns a histogram with a sample for each of `histograms`, by its `Labels`."""
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


def counter(name: str, help: str, *labels: str) -> MetricDescription:
    return MetricDescription(f"plenary_{name}_total", "counter", help, labels)


def gauge(name: str, help: str, *labels: str) -> MetricDescription:
    return MetricDescription(f"plenary_{name}", "gauge", help, labels)


def histogram(name: str, help: str, *labels: str) -> MetricDescription:
    return MetricDescription(f"plenary_{name}", "histogram", help, labels)


class Metrics(Protocol):
    """The metrics of a role, or of the process around it. `described` is all that `collect` may return."""

    described: tuple[MetricDescription, ...]

    async def refresh(self) -> None:
        """Gathers what has to be asked of others, before each `collect`. Must not raise, and not take long."""
        ...

    def collect(self) -> Iterable[Metric]: ...


def described_in(module: Mapping[str, object]) -> tuple[MetricDescription, ...]:
    """Returns all metrics that a module's globals describe, in their order."""
    return tuple(value for value in module.values() if isinstance(value, MetricDescription))
