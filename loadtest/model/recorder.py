"""The port through which peers and their views report what they measure and find."""

from collections.abc import Coroutine
from typing import Any, Protocol

from loadtest.model.measurements import Measured


class Recorder(Protocol):
    """Records measurements and failures. `current` is replaced every second; `stopping`: the test is ending."""

    current: Measured
    stopping: bool

    def fail(self, kind: str, text: str) -> None:
        """Counts a failure of one of the kinds in `failures`."""

    def count_own_exception(self, error: Exception) -> None:
        """Counts an exception of the generator's own code."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task of a peer."""
