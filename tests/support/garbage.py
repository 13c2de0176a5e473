"""What only the garbage collector would free: processes that do not wait for it must not leave any."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cycles_of(*packages: str) -> Iterator[set[str]]:
    """Afterwards the set has the classes of these packages whose instances were left in cycles inside."""
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
