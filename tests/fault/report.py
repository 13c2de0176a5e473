"""The results of many runs, by fault type."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.model.histogram import percentile
from tests.fault.driver import Outcome
from tests.fault.faults import Injection
from tests.fault.participant import Failure

COUNTED = ("lost", "duplicated", "reordered")
AS_LOST = {"unanswered": "lost"}
BEFORE = 2.0
"""Seconds before a fault in which what goes wrong may be its doing: it was on its way then."""


@dataclass
class OfKind:
    """The results of one fault type."""

    injections: int = 0
    in_flight: int = 0
    gaps: list[float] = field(default_factory=list)
    unanswered: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*COUNTED, "other"), 0))

    def as_json(self) -> dict[str, Any]:
        gaps = {name: round(percentile(self.gaps, of), 3) for name, of in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
        return {
            "injections": self.injections,
            "in_flight": self.in_flight,
            **self.failures,
            "clients_affected": len(self.gaps) + self.unanswered,
            "unanswered": self.unanswered,
            "gap_seconds": gaps if self.gaps else None,
        }


def by_kind(outcomes: Iterable[Outcome]) -> dict[str, OfKind]:
    kinds: dict[str, OfKind] = defaultdict(OfKind)
    for outcome in outcomes:
        for injection in outcome.injections:
            of = kinds[injection.kind]
            of.injections += 1
            of.in_flight += injection.in_flight
            of.gaps += injection.gaps
            of.unanswered += injection.unanswered
        for failure in outcome.failures:
            culprit = blamed(failure, outcome.injections)
            of = kinds[culprit.kind if culprit is not None else "no fault"]
            kind = AS_LOST.get(failure.kind, failure.kind)
            of.failures[kind if kind in COUNTED else "other"] += 1
    return dict(kinds)


def blamed(failure: Failure, injections: Sequence[Injection]) -> Injection | None:
    """Returns the latest fault that began before the failure, or so soon after that it was on its way."""
    return max((it for it in injections if it.at <= failure.at + BEFORE), key=lambda it: it.at, default=None)


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "seeds": [outcome.seed for outcome in outcomes],
        "requests": sum(outcome.requests for outcome in outcomes),
        "notifications": sum(outcome.notifications for outcome in outcomes),
        "faults": {kind: of.as_json() for kind, of in sorted(by_kind(outcomes).items())},
        "failures": [
            {"seed": outcome.seed, "second": round(it.at - outcome.began, 1), "kind": it.kind, "text": it.text}
            for outcome in outcomes
            for it in outcome.failures
        ],
    }


def as_table(outcomes: Sequence[Outcome]) -> str:
    head = f"{'fault':16}{'times':>6}{'in flight':>10}{'lost':>6}{'doubled':>8}{'order':>6}{'other':>6}"
    lines = [f"{head}{'gap p50':>9}{'p99':>8}{'max':>8}  s"]
    for kind, of in sorted(by_kind(outcomes).items()):
        counts = f"{of.injections:6}{of.in_flight:10}" + "".join(
            f"{of.failures[name]:{width}}"
            for name, width in (("lost", 6), ("duplicated", 8), ("reordered", 6), ("other", 6))
        )
        gaps = "".join(f"{percentile(of.gaps, part):{width}.2f}" for part, width in ((0.5, 9), (0.99, 8), (1.0, 8)))
        late = f"  {of.unanswered} clients without an answer" if of.unanswered else ""
        lines.append(f"{kind:16}{counts}{gaps}{late}")
    total = as_json(outcomes)
    lines.append(
        f"{total['requests']} requests answered, {total['notifications']} notifications, "
        f"{len(total['failures'])} failures"
    )
    return "\n".join(lines)
