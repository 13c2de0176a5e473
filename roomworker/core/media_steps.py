"""How a handler asks the media node: it yields what it wants done and is resumed with the result.

A handler is a generator; it may raise `PlenaryError` before or after any yield, and is sent the error as an
exception where the media node failed. It changes state only after its last yield (DELIVERY C3), except for
things that are whole by themselves (a placement).
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from shared.errors import InternalError
from shared.protocol import media


@dataclass(frozen=True)
class Place:
    """Asks for a media node for the room. → `Placed`, or `Unavailable` is thrown: there is none."""


@dataclass(frozen=True)
class Placed:
    node: str


Step: TypeAlias = Place | media.AnyRequest
StepResult: TypeAlias = Placed | media.AnyResult

Outcome = TypeVar("Outcome")
Result = TypeVar("Result")

Steps: TypeAlias = Generator[Step, StepResult, Outcome]


def expect(result: StepResult, kind: type[Result]) -> Result:
    """The result as the kind that belongs to the request. Raises `InternalError` for another."""
    if not isinstance(result, kind):
        raise InternalError(f"media node: expected {kind.__name__}, got {type(result).__name__}")
    return result
