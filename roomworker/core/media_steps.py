"""Defines the steps of a handler that needs the media node: it yields each request and is resumed with the result.

Such a handler is a generator. It may raise `PlenaryError` before or after any yield; an error of the media node is
thrown into it at the yield. It changes state only after its last yield (DELIVERY C3), except for changes that are
complete by themselves (a placement).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from shared.errors import InternalError, PlenaryError
from shared.protocol import media


@dataclass(frozen=True)
class Place:
    """A request for a node for the room: the result is `Placed`, or `Unavailable` is thrown if there is none."""


@dataclass(frozen=True)
class Placed:
    """The media node chosen for the room, by its id, and the time (ms, room time)."""

    node: str
    now: int = 0


Step: TypeAlias = Place | media.AnyRequest
StepResult: TypeAlias = Placed | media.AnyResult

Outcome = TypeVar("Outcome")
Result = TypeVar("Result")

Steps: TypeAlias = Generator[Step, StepResult, Outcome]


def expect(result: StepResult, kind: type[Result]) -> Result:
    """Returns the result. Raises `InternalError` if it is not of this kind."""
    if not isinstance(result, kind):
        raise InternalError(f"media node: expected {kind.__name__}, got {type(result).__name__}")
    return result


def resume_with(steps: Steps[Outcome], result: StepResult) -> Callable[[], Step]:
    """Returns a function that resumes the handler with a result, and returns its next step."""
    return lambda: steps.send(result)


def resume_failing(steps: Steps[Outcome], failure: PlenaryError) -> Callable[[], Step]:
    """Returns a function that throws a failure into the handler, and returns its next step."""
    return lambda: steps.throw(failure)
