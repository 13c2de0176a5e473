"""Service level objectives of a run: expressions like `join.p99<500ms`, `lost==0`, `requests.rate>=1000`."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from loadtest.model.failures import GENERATOR_KINDS, KINDS, SERVER_KINDS

STATISTICS: Final = ("p50", "p90", "p95", "p99", "p999", "max", "mean")
COUNTS: Final = ("count", "errors", "rate")
METHODS: Final = (
    *("queryRoom", "join", "createTransport", "updateTransport", "restartTransport", "createProducer"),
    *("closeProducer", "pauseProducer", "resumeProducer", "enableConsumer", "pauseConsumer", "resumeConsumer"),
    *("setConsumerPreferredProfile", "message", "leave"),
)
STEPS: Final = {
    "requests": "all requests together",
    "connect": "from the first byte to the session",
    "ready": "from the start of joining until everything is sent and received",
    "resume": "from a cut connection until the session goes on",
    "fanout": "from the moment something was due until the notification of another peer",
    "late": "how late the load generator itself was: it is in every figure",
}
_UNITS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM: Final = re.compile(
    r"\s*(?P<name>[A-Za-z]+)(?:\.(?P<what>[A-Za-z0-9]+))?\s*(?P<op><=|>=|==|!=|<|>)\s*"
    r"(?P<value>-?[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-zµ%]*)\s*"
)


Outcome: TypeAlias = Literal["passed", "failed", "invalid"]
"""`invalid`: the load generator itself was at fault, so the run says nothing about the server."""


class BadExpression(ValueError):
    """An expression is invalid; the text names the error and what is allowed."""


@dataclass(frozen=True)
class Verdict:
    """The result of an objective.

    `text` is the expression and `actual` the measured value; `of_generator` is true if the objective is about the
    load generator, not the server.
    """

    text: str
    held: bool
    actual: str
    of_generator: bool = False


@dataclass(frozen=True)
class Slo:
    """An objective. `what` is empty for a count of failures; `limit` is in seconds where `what` is a duration."""

    text: str
    name: str
    what: str
    compare: str
    limit: float

    def judge(self, summary: Mapping[str, Any]) -> Verdict:
        """Compares the figures of `loadtest.report.summary`. A duration that was not measured misses it."""
        if not self.what:
            found = summary["failures"].get(self.name, 0) if self.name != "failures" else summary["failed"]
            held = _OPERATORS[self.compare](found, self.limit)
            return Verdict(self.text, held, f"{found}", self.name in GENERATOR_KINDS)
        row = summary["methods"].get(self.name) or summary["steps"].get(self.name)
        if row is None or (self.what in STATISTICS and not row["count"]):
            held = self.what in COUNTS and _OPERATORS[self.compare](0, self.limit)
            return Verdict(self.text, held, "0" if self.what in COUNTS else "nothing was measured")
        found = row[self.what]
        text = seconds(found) if self.what in STATISTICS else f"{found:g}"
        return Verdict(self.text, _OPERATORS[self.compare](found, self.limit), text)


def parse(text: str) -> Slo:
    """Returns the objective of an expression. Raises `BadExpression`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise BadExpression(
            f"{text!r}: expected NAME.STATISTIC, one of {' '.join(_OPERATORS)}, and a value: "
            "'join.p99<500ms', 'requests.rate>=100', 'lost==0'"
        )
    name, what, unit = match["name"], match["what"] or "", match["unit"]
    if name in ("failures", *KINDS):
        if what:
            raise BadExpression(f"{text!r}: {name} is a count and has no .{what}; say '{name}==0'")
    else:
        _check_statistic(text, name, what)
    if what in STATISTICS:
        if unit not in _UNITS:
            wrong = f"unknown unit {unit!r}" if unit else f"{what} is a duration and needs a unit"
            raise BadExpression(f"{text!r}: {wrong}; one of {', '.join(_UNITS)}")
    elif unit:
        raise BadExpression(f"{text!r}: {what or name} is a number and has no unit {unit!r}")
    return Slo(text.strip(), name, what, match["op"], float(match["value"]) * _UNITS.get(unit, 1.0))


def _check_statistic(text: str, name: str, what: str) -> None:
    if name not in METHODS and name not in STEPS:
        raise BadExpression(
            f"{text!r}: nothing is called {name!r}. Durations: {', '.join((*STEPS, *METHODS))}. "
            f"Counts: failures, {', '.join(KINDS)}"
        )
    if what not in STATISTICS and what not in COUNTS:
        wrong = f"no statistic {what!r}" if what else f"{name} needs a statistic"
        raise BadExpression(f"{text!r}: {wrong}; one of {', '.join((*STATISTICS, *COUNTS))}")


def objectives(given: Iterable[Slo]) -> list[Slo]:
    """Returns the given objectives, and one of 0 failures for every kind that none of them names.

    `failures` names all kinds of the server's failures together.
    """
    slos = list(given)
    named = {slo.name for slo in slos}
    if "failures" in named:
        named |= SERVER_KINDS.keys()
    return slos + [parse(f"{kind}==0") for kind in KINDS if kind not in named]


def outcome(verdicts: Iterable[Verdict]) -> Outcome:
    """Returns the outcome of the whole run."""
    missed = [verdict for verdict in verdicts if not verdict.held]
    if any(verdict.of_generator for verdict in missed):
        return "invalid"
    return "failed" if missed else "passed"


def seconds(value: float) -> str:
    """Formats a duration: `1.24 s`, `38.1 ms`, `250 µs`."""
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"
