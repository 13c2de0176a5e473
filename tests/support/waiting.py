"""Waits for a state that no event announces, by looking again and again."""

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Final

PATIENCE: Final = 60.0
"""Seconds after which a test that waits for something has failed; no test waits for time to pass."""
TURNS: Final = 100
"""Number of first looks that are one turn of the event loop apart, so that none of its states is missed."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two later looks: twice as many after each look, up to the longest."""


async def until(
    condition: Callable[[], Any], what: str = "", *, within: float = PATIENCE, in_thread: bool = False
) -> Any:
    """Looks at `condition` until it returns, or its awaitable results in, something true; returns that.

    `what` says in the failure's text what was waited for; without it the text has the condition's source.
    A condition that blocks is called in a thread with `in_thread`.

    Raises AssertionError after `within` seconds, and whatever the condition raises.
    """
    __tracebackhide__ = True  # pytest then shows the line that waits
    value: Any = "none: the first look did not end"
    turns, pause = 0 if in_thread else TURNS, FIRST_PAUSE
    timer = asyncio.timeout(within)
    try:
        async with timer:
            while True:
                found = await asyncio.to_thread(condition) if in_thread else condition()
                value = await found if inspect.isawaitable(found) else found
                if value:
                    return value
                if turns:
                    turns -= 1
                    await asyncio.sleep(0)
                    continue
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
    except TimeoutError:
        if not timer.expired():
            raise
        raise AssertionError(
            f"not within {within:g} s: {what or source(condition)} (last value: {value!r})"
        ) from None


def source(condition: Callable[..., Any]) -> str:
    """Returns a lambda's source in one line, or another function's name."""
    if isinstance(condition, partial):
        return source(condition.func)
    name = getattr(condition, "__qualname__", repr(condition))
    if not name.endswith("<lambda>"):
        return str(name)
    try:
        return " ".join(inspect.getsource(condition).split())
    except OSError:
        return str(name)
