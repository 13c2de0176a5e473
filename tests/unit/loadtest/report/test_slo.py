"""Objectives: expressions over a run's figures that decide whether it passes."""

from typing import Any

import pytest

from loadtest.model.failures import GENERATOR_KINDS, KINDS
from loadtest.report.slo import BadExpression, objectives, outcome, parse, seconds

ROW = {"count": 10, "rate": 2.5, "errors": 1, "mean": 0.1, "p50": 0.1, "p90": 0.2, "p95": 0.3, "p99": 0.4, "max": 0.5}


def summary(**failures: int) -> dict[str, Any]:
    return {
        "methods": {"join": ROW},
        "steps": {"requests": ROW, "ready": {**ROW, "count": 0}},
        "failures": failures,
        "failed": sum(failures.values()),
    }


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("join.p99<500ms", True),
        ("join.p99 < 0.5 s", True),
        ("join.p99<400ms", False),
        ("join.p99<=400ms", True),
        ("join.p99>0.39s", True),
        ("join.max!=500000us", False),
        ("requests.rate>=2.5", True),
        ("requests.count==9", False),
        ("join.errors==0", False),
        ("lost==0", True),
        ("duplicated==0", False),
        ("duplicated<=2", True),
        ("failures==2", True),
    ],
)
def test_expression_is_judged_by_what_was_measured(text: str, held: bool) -> None:
    assert parse(text).judge(summary(duplicated=2)).held is held


@pytest.mark.parametrize("text", ["ready.p99<500ms", "leave.p99<500ms", "leave.p50>0ms"])
def test_objective_on_a_duration_without_measurement_is_missed(text: str) -> None:
    verdict = parse(text).judge(summary())
    assert (verdict.held, verdict.actual) == (False, "nothing was measured")


def test_count_without_measurement_is_zero() -> None:
    assert parse("leave.count==0").judge(summary()).held
    assert not parse("leave.count>0").judge(summary()).held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("join.p99", "expected NAME.STATISTIC"),
        ("join.p99=5ms", "expected NAME.STATISTIC"),
        ("", "expected NAME.STATISTIC"),
        ("join.p99<fast", "expected NAME.STATISTIC"),
        ("jion.p99<5ms", "nothing is called 'jion'. Durations: requests"),
        ("join<5ms", "join needs a statistic; one of p50"),
        ("join.p98<5ms", "no statistic 'p98'; one of p50"),
        ("join.p99<500", "p99 is a duration and needs a unit; one of us"),
        ("join.p99<5h", "unknown unit 'h'; one of us"),
        ("join.count<5ms", "count is a number and has no unit 'ms'"),
        ("lost==0%", "lost is a number and has no unit '%'"),
        ("lost.p99<5ms", "lost is a count and has no .p99; say 'lost==0'"),
    ],
)
def test_bad_expression_names_what_is_wrong_and_what_is_allowed(text: str, words: str) -> None:
    with pytest.raises(BadExpression, match=r".") as refused:
        parse(text)
    assert words in str(refused.value)
    assert repr(text) in str(refused.value)


def test_kind_of_failure_that_no_expression_names_must_be_zero() -> None:
    assert {slo.text for slo in objectives([])} == {f"{kind}==0" for kind in KINDS}
    mixed = objectives([parse("lost<5"), parse("join.p99<1s")])
    assert [slo.text for slo in mixed if slo.name == "lost"] == ["lost<5"]
    assert "errors==0" in {slo.text for slo in mixed}
    together = {slo.text for slo in objectives([parse("failures<3")])}
    assert together == {"failures<3"} | {f"{kind}==0" for kind in GENERATOR_KINDS}


@pytest.mark.parametrize(
    ("failures", "verdict"),
    [
        ({}, "passed"),
        ({"lost": 1}, "failed"),
        ({"overloaded": 1}, "invalid"),
        ({"broken": 1, "lost": 5}, "invalid"),
        ({"died": 1}, "invalid"),
    ],
)
def test_fault_of_the_generator_makes_a_run_invalid(failures: dict[str, int], verdict: str) -> None:
    figures = summary(**failures)
    assert outcome(slo.judge(figures) for slo in objectives([])) == verdict


def test_allowed_fault_of_the_generator_leaves_a_run_valid() -> None:
    figures = summary(overloaded=2)
    assert outcome(slo.judge(figures) for slo in objectives([parse("overloaded<=2")])) == "passed"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 µs"), (0.00025, "250 µs"), (0.0381, "38.1 ms"), (1.24, "1.24 s"), (1200.0, "1200 s")]
)
def test_durations_are_formatted_with_a_fitting_unit(value: float, text: str) -> None:
    assert seconds(value) == text
