"""The measurements of a run: durations and failures, second by second, in a form that can be sent and merged."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from loadtest.model.histogram import Histogram

EXAMPLES: Final = 5
"""Number of failures of each kind that are kept with their text, per generator."""


@dataclass
class Measured:
    """The measurements of one generator, or of all, over some time. Durations are in seconds."""

    methods: dict[str, Histogram] = field(default_factory=dict)
    """Durations from when a request was due until its answer, by method."""
    errors: Counter[str] = field(default_factory=Counter)
    """Number of error answers by method, without excused ones."""
    steps: dict[str, Histogram] = field(default_factory=dict)
    """Durations of `connect`, `ready` and `resume`, and of `late` actions."""
    fanout: dict[str, Histogram] = field(default_factory=dict)
    """Durations from when an action was due until another peer was notified, by notification."""
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[list[Any]]] = field(default_factory=dict)
    """The first failures of each kind: seconds since the start, and a sentence."""

    @property
    def answers(self) -> int:
        """The number of answers, errors included."""
        return sum(it.count for it in self.methods.values()) + self.errors.total() + self.counts["excused"]

    def answered(self, method: str, seconds: float) -> None:
        _add(self.methods, method, seconds)

    def took(self, step: str, seconds: float) -> None:
        _add(self.steps, step, seconds)

    def notified(self, notification: str, seconds: float) -> None:
        _add(self.fanout, notification, seconds)

    def fail(self, kind: str, text: str, at: float) -> None:
        self.failures[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append([round(at, 3), text])

    def merge(self, other: "Measured") -> None:
        for mine, theirs in self._histograms(other):
            for name, histogram in theirs.items():
                mine.setdefault(name, Histogram()).merge(histogram)
        self.errors.update(other.errors)
        self.counts.update(other.counts)
        self.failures.update(other.failures)
        for kind, examples in other.examples.items():
            kept = self.examples.setdefault(kind, [])
            kept.extend(examples[: EXAMPLES - len(kept)])

    def _histograms(self, other: "Measured") -> list[tuple[dict[str, Histogram], dict[str, Histogram]]]:
        return [(self.methods, other.methods), (self.steps, other.steps), (self.fanout, other.fanout)]

    def dump(self) -> dict[str, Any]:
        """Returns a form for JSON, which `load` reads."""
        return {
            "methods": {name: it.dump() for name, it in self.methods.items()},
            "steps": {name: it.dump() for name, it in self.steps.items()},
            "fanout": {name: it.dump() for name, it in self.fanout.items()},
            "errors": self.errors,
            "counts": self.counts,
            "failures": self.failures,
            "examples": self.examples,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> "Measured":
        return cls(
            methods={name: Histogram.load(it) for name, it in dumped["methods"].items()},
            steps={name: Histogram.load(it) for name, it in dumped["steps"].items()},
            fanout={name: Histogram.load(it) for name, it in dumped["fanout"].items()},
            errors=Counter(dumped["errors"]),
            counts=Counter(dumped["counts"]),
            failures=Counter(dumped["failures"]),
            examples=dumped["examples"],
        )


def total(histograms: dict[str, Histogram]) -> Histogram:
    """Returns the sum of all measurements."""
    whole = Histogram()
    for histogram in histograms.values():
        whole.merge(histogram)
    return whole


def _add(histograms: dict[str, Histogram], name: str, seconds: float) -> None:
    histogram = histograms.get(name)
    if histogram is None:
        histogram = histograms[name] = Histogram()
    histogram.add(seconds)
