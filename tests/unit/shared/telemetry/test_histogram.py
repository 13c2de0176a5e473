"""Counting by size, and what Prometheus makes of it."""

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from shared.telemetry.histogram import Histogram
from shared.telemetry.metrics import MetricDescription, counter, gauge, histogram


def exposed(metric: Metric) -> list[str]:
    """The samples of one metric, as they are served."""

    class One(Collector):
        def collect(self) -> list[Metric]:
            return [metric]

    registry = CollectorRegistry()
    registry.register(One())
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_value_equal_to_a_bound_counts_below_it() -> None:
    sizes = Histogram((1, 2, 4))
    for value in (0, 1, 1.5, 2, 4, 5):
        sizes.observe(value)
    assert sizes.counts == [2, 2, 1, 1]
    assert (sizes.count, sizes.sum) == (6, 13.5)


def test_sum_of_two_histograms_has_both_counts() -> None:
    one, two = Histogram((1, 2)), Histogram((1, 2))
    one.observe(1)
    two.observe(3)
    both = one + two
    assert (both.counts, both.sum) == ([1, 0, 1], 4)
    with pytest.raises(AssertionError):
        _ = one + Histogram((1,))


def test_exported_buckets_are_cumulative() -> None:
    waited = Histogram((0.5, 1))
    for value in (0.25, 0.5, 0.75, 9):
        waited.observe(value)
    assert exposed(histogram("waited_seconds", "…").with_histogram(waited)) == [
        'plenary_waited_seconds_bucket{le="0.5"} 2.0',
        'plenary_waited_seconds_bucket{le="1.0"} 3.0',
        'plenary_waited_seconds_bucket{le="+Inf"} 4.0',
        "plenary_waited_seconds_count 4.0",
        "plenary_waited_seconds_sum 10.5",
    ]


@pytest.mark.parametrize(
    ("described", "values", "samples"),
    [
        (gauge("here", "…"), {(): 3}, ["plenary_here 3.0"]),
        (counter("done", "…", "code"), {200: 3}, ['plenary_done_total{code="200"} 3.0']),
        (counter("done", "…", "kind", "code"), {("a", 404): 1}, ['plenary_done_total{code="404",kind="a"} 1.0']),
        (counter("done", "…", "code"), {}, []),
    ],
)
def test_labels_are_given_in_their_order(
    described: MetricDescription, values: dict[object, int], samples: list[str]
) -> None:
    assert exposed(described.with_values(values)) == samples
