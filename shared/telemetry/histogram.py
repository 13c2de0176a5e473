"""Counts values on the hot path in plain integers, which become metrics only when they are collected."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""The bounds for durations, in seconds."""
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The bounds for numbers of things."""


class Histogram:
    """Counts values by size: `counts[i]` up to `bounds[i]`, the last one beyond all bounds. Not for threads."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        """Returns the sum of both, which must have the same bounds."""
        assert self.bounds == other.bounds
        both = Histogram(self.bounds)
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.sum = self.sum + other.sum
        return both


def seconds() -> Histogram:
    """Makes a histogram of durations."""
    return Histogram(SECONDS)


def sizes() -> Histogram:
    """Makes a histogram of numbers of things."""
    return Histogram(SIZES)
