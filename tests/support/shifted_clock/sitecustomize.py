"""Shifts this process's wall clock by the seconds in a file, SHIFTED_CLOCK (`tests.support.shifted_clocks`).

Python imports a module of this name when it starts, before any module of Plenary takes a function of `time`.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_file = Path(os.environ["SHIFTED_CLOCK"])
_time: Callable[[], float] = time.time
_time_ns: Callable[[], int] = time.time_ns


def _shift() -> float:
    with suppress(OSError, ValueError):  # it is just being written
        return float(_file.read_text())
    return 0.0


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + round(_shift() * 1e9)
