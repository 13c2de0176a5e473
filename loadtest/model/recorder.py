"""The port through which peers and their views report what they measure and find."""

from collections.abc import Coroutine
from typing import Any, Protocol

from loadtest.model.measurements import Measured


class Recorder(Protocol):
    """Where everything is counted. `current` is replaced every second."""

    current: Measured
    stopping: bool

    def wrong(self, kind: str, text: str) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...
