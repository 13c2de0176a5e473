"""Runs the fuzzers that work inside one process. A seed and a number make an input, so that it can be repeated."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from tests.fuzz.amqp import AmqpTarget
from tests.fuzz.room import RoomTarget

INPUTS_PER_LINE = 20_000


class Target(Protocol):
    """Something that takes inputs. `check` returns an input's outcome in few words, and raises if it went wrong."""

    name: str

    def check(self, rng: Random) -> str: ...


TARGETS: dict[str, Callable[[], Target]] = {"amqp": AmqpTarget, "room": RoomTarget}


def fuzz(target: Target, seed: int, first: int, count: int) -> Counter[str]:
    """Gives so many inputs to a target, and returns how often which outcome was seen.

    Raises `AssertionError` with the number of the input that went wrong.
    """
    outcomes = Counter[str]()
    for number in range(first, first + count):
        try:
            outcomes[target.check(Random(f"{target.name}:{seed}:{number}"))] += 1
        except Exception as failure:
            raise AssertionError(f"{target.name}, seed {seed}, input {number}: {failure!r}") from failure
    return outcomes
