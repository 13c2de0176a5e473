"""Random sequences of operations against the published `mediasoup` 2.6.19, which decides where the protocol
is silent.

Every difference is either excused by a rule with a reason (`excused_differences.py`) or fails the test, which then
prints the shortest sequence it finds that still differs.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.differential.divergences import DIVERGENCES, Divergence
from tests.differential.excused_differences import RULES, DifferenceFilter
from tests.differential.node import Oracle, Unavailable
from tests.differential.normalise import Difference, canonical, differences
from tests.differential.operations import SequenceWriter
from tests.differential.room_core import RoomCore
from tests.support import sampling
from tests.unit.roomworker.payloads import CAPABILITIES

Json = dict[str, Any]

SEQUENCES = 300 if sampling.whole else 150
LENGTH = 60


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    try:
        started = Oracle()
    except Unavailable as why:
        pytest.skip(str(why))
    with started:
        yield started


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keeps the log quiet: half of the operations here are logged as not applied."""
    with capture_logs():
        yield


def compare(oracle: Oracle, operations: list[Json], excuses: DifferenceFilter) -> list[Difference]:
    theirs = canonical(oracle.perform(CAPABILITIES, operations))
    ours = canonical(RoomCore().perform(operations))
    return excuses.unexplained(differences(operations, theirs, ours))


def test_random_sequences_have_no_unexplained_difference(oracle: Oracle) -> None:
    excuses = DifferenceFilter()
    for seed in range(SEQUENCES):
        operations = SequenceWriter(seed).sequence(LENGTH)
        found = compare(oracle, operations, excuses)
        if found:
            shortest = shrunk(oracle, operations, found[0])
            pytest.fail(f"seed {seed}\n{report(oracle, shortest)}", pytrace=False)
    unused = [rule.name for rule in RULES if rule.name not in excuses.excused]
    assert not unused, f"nothing differs so any more: {unused}"


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=[it.name.replace(" ", "_") for it in DIVERGENCES])
def test_divergence_is_as_described(oracle: Oracle, divergence: Divergence) -> None:
    operations = list(divergence.operations)
    found = compare(oracle, operations, DifferenceFilter())
    assert {it.at for it in found} == {len(operations) - 1}, "\n".join(map(str, found))


def shrunk(oracle: Oracle, operations: list[Json], found: Difference) -> list[Json]:
    """Up to `found`, without the operations that it does not need: first in large pieces, then one by one.

    Fewer operations must still differ in the same way and not before: without what made them sensible, operations
    run into what is set apart on purpose.
    """
    operations = operations[: found.at + 1]
    size = len(operations) // 2
    while size:
        start = 0
        while start < len(operations) - 1:
            fewer = operations[:start] + operations[min(start + size, len(operations) - 1) :]
            left = compare(oracle, fewer, DifferenceFilter())
            if left and left[0].at == len(fewer) - 1 and any(it.kind == found.kind for it in left):
                operations = fewer
            else:
                start += size
        size //= 2
    return operations


def report(oracle: Oracle, operations: list[Json]) -> str:
    theirs = canonical(oracle.perform(CAPABILITIES, operations))
    ours = canonical(RoomCore().perform(operations))
    lines = ["(`capabilities`: all that the room has)"]
    for at, operation in enumerate(operations):
        lines += [f"{at}. {_short(operation)}", f"   theirs: {_short(theirs[at])}", f"   ours:   {_short(ours[at])}"]
    found = DifferenceFilter().unexplained(differences(operations, theirs, ours))
    return "\n".join([*lines, *(f"=> {it}" for it in found)])


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text.replace(json.dumps(CAPABILITIES, ensure_ascii=False), "capabilities")
