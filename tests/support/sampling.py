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
    """The tests marked `sample(count, of=parameter)`, except `count` values of that parameter, chosen by the seed."""
    variants: dict[str, list[pytest.Item]] = defaultdict(list)
    counts: dict[str, int] = {}
    for item in items:
        marker = item.get_closest_marker("sample")
        if marker is not None:
            assert isinstance(item, pytest.Function)
            others = {name: value for name, value in item.callspec.params.items() if name != marker.kwargs["of"]}
            test = f"{item.nodeid.partition('[')[0]} {others}"
            variants[test].append(item)
            counts[test] = marker.args[0]
    return {
        item
        for test, found in variants.items()
        for item in random.Random(f"{seed} {test}").sample(found, max(0, len(found) - counts[test]))
    }
