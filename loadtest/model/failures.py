"""The kinds of failures that a run counts: those of the server, and those of the load generator itself."""

from collections.abc import Callable
from typing import Final, TypeAlias

Fail: TypeAlias = Callable[[str, str], None]
"""Called with each failure: its kind and a sentence."""

SERVER_KINDS: Final = {
    "errors": "error answers that should not have been",
    "lost": "messages, notifications or answers that never came",
    "duplicated": "messages, notifications or answers that came twice",
    "reordered": "messages, notifications or answers that came too late or too early",
    "mismatch": "messages, notifications or answers that contradict what is known of the room",
    "sessions": "sessions that the server ended or that could not begin",
    "unanswered": "requests that were not answered",
}
LATE_SECONDS: Final = 1.0
"""Seconds that the generator may be late before it is overloaded."""
GENERATOR_KINDS: Final = {
    "overloaded": f"moments in which the load generator was more than {LATE_SECONDS:g} s late",
    "broken": "errors in the load generator's own code",
    "died": "generator processes that ended before their time",
}
"""Kinds of failures that make a run invalid: the run's figures then say nothing about the server."""
KINDS: Final = SERVER_KINDS | GENERATOR_KINDS
