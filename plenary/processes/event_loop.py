"""Runs a process's main coroutine: event loop, signals, garbage collection, and the exit code."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

GC_THRESHOLDS: Final = (5_000, 20, 100)
"""Objects until a collection of each generation. Python's defaults are (700, 10, 10).

With these, collections of the youngest generation stay below 2 ms and full ones are rare.
"""


class CannotStart(Exception):
    """A process cannot start until an operator corrects something; the text says what."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Runs `main` until it ends. SIGTERM and SIGINT set the event that `main` is given. Exits 1 for `CannotStart`."""

    # With Python's thresholds a process with thousands of rooms would spend half of its time on full collections, a
    # third of a second each. Imported objects live as long as the process, and an ended room leaves no cycle.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    async def with_signals() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    try:
        uvloop.run(with_signals())
    except CannotStart as reason:
        print(f"plenary: {reason}", file=sys.stderr)  # noqa: T201 - the user of the command line reads it
        sys.exit(1)
