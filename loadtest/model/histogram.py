"""A histogram of durations in buckets that are at most 3 % wide, cheap to add to and to merge."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_HALF: Final = 32
"""Buckets per power of two. Durations below twice as many microseconds are counted exactly."""


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value that this fraction of all values does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def bucket(microseconds: int) -> int:
    """Returns the bucket of a duration; longer durations are never in lower buckets."""
    shift = microseconds.bit_length() - _HALF.bit_length()
    return microseconds if shift <= 0 else _HALF * shift + (microseconds >> shift)


def highest(index: int) -> int:
    """Returns the longest duration of a bucket, microseconds."""
    if index < 2 * _HALF:
        return index
    shift, rest = divmod(index - _HALF, _HALF)
    return ((_HALF + rest + 1) << shift) - 1


@dataclass
class Histogram:
    """A histogram of durations in seconds, which are kept as whole microseconds."""

    count: int = 0
    total: int = 0
    longest: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Adds a duration; a negative one counts as zero."""
        microseconds = max(0, int(seconds * 1e6))
        self.count += 1
        self.total += microseconds
        self.longest = max(self.longest, microseconds)
        index = bucket(microseconds)
        self.buckets[index] = self.buckets.get(index, 0) + 1

    def merge(self, other: "Histogram") -> None:
        self.count += other.count
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    def percentile(self, percent: float) -> float:
        """Returns the seconds that `percent` of all durations do not exceed, at most 3 % too long; or 0."""
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= wanted:
                return min(highest(index), self.longest) / 1e6
        return 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count / 1e6 if self.count else 0.0

    @property
    def maximum(self) -> float:
        return self.longest / 1e6

    def steps(self) -> Iterator[tuple[float, int]]:
        """Yields each bucket that is not empty, shortest first: its longest duration in seconds and its count."""
        for index in sorted(self.buckets):
            yield highest(index) / 1e6, self.buckets[index]

    def dump(self) -> list[Any]:
        """Returns a form for JSON, which `load` reads."""
        return [self.count, self.total, self.longest, {str(index): n for index, n in self.buckets.items()}]

    @classmethod
    def load(cls, dumped: list[Any]) -> "Histogram":
        count, total, longest, buckets = dumped
        known: Mapping[str, int] = buckets
        return cls(count, total, longest, {int(index): n for index, n in known.items()})
