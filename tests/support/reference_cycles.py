"""Finds reference cycles, which only the garbage collector frees and a long-running process must not leave."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cycles_of(*packages: str) -> Iterator[set[str]]:
    """Yields a set that afterwards names the classes of these packages whose instances were left in cycles."""
    found: set[str] = set()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(type(it).__qualname__ for it in gc.garbage if type(it).__module__.startswith(packages))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
