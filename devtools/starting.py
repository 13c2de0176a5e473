"""Finds ports for servers, and waits until a server has started.

No helper can promise a free port, so none is asked for beforehand: a server that cannot choose its port by itself is
started on a random one, and started again on another if that one was taken.
"""

import random
import re
import time
from collections.abc import Callable
from typing import Final

START_WITHIN: Final = 120.0
"""Seconds for a server to answer, however busy the machine is."""
ATTEMPTS: Final = 5
_POLL: Final = 0.05
_PORTS: Final = range(20_000, 32_000)
"""Ports below those that the kernel assigns to outgoing connections and for port 0."""
_TAKEN: Final = re.compile(
    r"address already in use|eaddrinuse|dist_port_already_used|already allocated", re.IGNORECASE
)


class Unavailable(Exception):
    """The server is not available on this machine; the text says what was looked for."""


class StartFailed(Exception):
    """A server ended or did not answer in time; the text has its last log lines."""


class PortTaken(StartFailed):
    """Another process has the port that the server was started on."""


def random_port() -> int:
    """Returns a port to try. Another process may have it: see `on_free_ports`."""
    return random.choice(_PORTS)


def on_free_ports(start: Callable[[], None]) -> None:
    """Calls `start`, which chooses ports with `random_port`, again for as long as it raises `PortTaken`."""
    for _ in range(ATTEMPTS - 1):
        try:
            return start()
        except PortTaken:
            continue
    return start()


def failure(text: str) -> StartFailed:
    """Returns the exception for a server that has failed with this output."""
    return PortTaken(text) if _TAKEN.search(text) else StartFailed(text)


def wait_until(answers: Callable[[], bool], output: Callable[[], str], ended: Callable[[], bool]) -> None:
    """Returns when the server answers. Raises `StartFailed` with its output if it ends or takes too long."""
    deadline = time.monotonic() + START_WITHIN
    while not answers():
        if ended():
            raise failure(output())
        if time.monotonic() > deadline:
            raise StartFailed(f"no answer within {START_WITHIN:.0f} s\n{output()}")
        time.sleep(_POLL)
