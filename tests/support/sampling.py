"""Chooses how much of the long suites runs: `make test` takes a random sample, `make test-all` everything."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import pytest

TIMES: Final = 5
"""How many more examples Hypothesis tries in all of a suite than in a sample."""

whole = False
"""Whether everything is to be run; set by tests/conftest.py before test modules are imported."""


def examples(count: int) -> int:
    """How many examples Hypothesis is to try where a sample has `count`."""
    return count * TIMES if whole else count


def left_out(items: Sequence[pytest.Item], seed: int) -> set[pytest.Item]:
    """Returns the tests of long suites that are not in the sample that the seed chooses.

    `sample(count, of=parameter)` keeps so many values of a test's parameter, `sample(count)` so many of a module's
    tests.
    """
    suites: dict[str, list[pytest.Item]] = defaultdict(list)
    counts: dict[str, int] = {}
    for item in items:
        if marker := item.get_closest_marker("sample"):
            suite = _suite(item, marker.kwargs.get("of"))
            suites[suite].append(item)
            counts[suite] = marker.args[0]
    return {
        item
        for suite, found in suites.items()
        for item in random.Random(f"{seed} {suite}").sample(found, max(0, len(found) - counts[suite]))
    }


def _suite(item: pytest.Item, parameter: str | None) -> str:
    """Returns a name for the tests that a sample is taken of."""
    assert isinstance(item, pytest.Function)
    if parameter is None:
        return item.nodeid.partition("::")[0]
    others = {name: value for name, value in item.callspec.params.items() if name != parameter}
    return f"{item.nodeid.partition('[')[0]} {others}"
