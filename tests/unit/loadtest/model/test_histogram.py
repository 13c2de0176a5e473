"""Durations in buckets."""

import random

import pytest

from loadtest.model.histogram import Histogram, bucket, highest


def of(*durations: float) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


def test_bucket_is_at_most_three_percent_wide() -> None:
    previous = -1
    for microseconds in [*range(4000), *(2**n + odd for n in range(12, 40) for odd in (-1, 0, 1))]:
        index = bucket(microseconds)
        assert microseconds <= highest(index) <= microseconds * 1.032
        assert index >= previous
        previous = index


def test_percentiles_are_within_three_percent_of_the_sorted_durations() -> None:
    chance = random.Random(4)
    durations = sorted(chance.lognormvariate(-5, 1.5) for _ in range(5000))
    histogram = of(*durations)
    for percent in (1, 50, 90, 99, 99.9):
        exact = durations[max(0, round(len(durations) * percent / 100) - 1)]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.035)
    assert histogram.percentile(100) == histogram.maximum == pytest.approx(durations[-1], abs=1e-6)
    assert histogram.mean == pytest.approx(sum(durations) / len(durations), abs=1e-6)


def test_single_stall_is_the_maximum_and_not_the_median() -> None:
    histogram = of(*[0.001] * 999, 2.0)
    assert histogram.percentile(50) == pytest.approx(0.001, rel=0.04)
    assert histogram.percentile(99.9) == pytest.approx(0.001, rel=0.04)
    assert histogram.maximum == 2.0


def test_merged_histograms_equal_one_of_all_durations() -> None:
    first, second = of(0.001, 0.5), of(0.02, 3.0, 0.02)
    first.merge(second)
    assert first == of(0.001, 0.5, 0.02, 3.0, 0.02)


def test_dumped_histogram_is_loaded_unchanged() -> None:
    histogram = of(0.001, 0.5, 0.5)
    assert Histogram.load(histogram.dump()) == histogram


def test_empty_histogram_has_no_duration() -> None:
    assert (Histogram().percentile(99), Histogram().mean, Histogram().maximum) == (0.0, 0.0, 0.0)


def test_negative_duration_counts_as_zero() -> None:
    assert of(-0.5).maximum == 0.0


def test_steps_add_up_to_the_count() -> None:
    steps = list(of(0.001, 0.5, 0.5).steps())
    assert [count for _, count in steps] == [1, 2]
    assert steps == sorted(steps)
