"""The kinds of failures that a run counts: those of the server, and those of the load generator itself."""

from collections.abc import Callable
from typing import Final, TypeAlias

Fail: TypeAlias = Callable[[str, str], None]
"""Is called with each failure: its kind and a sentence."""

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
GENERATOR_KINDS: Final = {
    "overloaded": f"moments in which the load generator was more than {LATE_SECONDS:g} s late",
    "broken": "errors in the load generator's own code",
    "died": "generator processes that ended before their time",
}
"""Failures of these kinds make a run invalid: they say nothing about the server, and neither do its figures."""
KINDS: Final = SERVER_KINDS | GENERATOR_KINDS
