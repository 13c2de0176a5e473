"""Calls what a broker's users registered: receivers of messages and notices, which may raise by mistake."""

from collections.abc import Callable
from typing import Any, Final

from shared.aio.backoff import Backoff
from shared.broker import BrokerStats
from shared.telemetry import log

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
STABLE_AFTER: Final = 5.0
"""Seconds after which the loss of a channel or connection is not taken for another failure of the same cause."""

_log = log.get("broker")


def recovery_backoff() -> Backoff:
    """Makes the pauses between attempts to open a connection or a channel again."""
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE, scatter=True)


def call_receiver(stats: BrokerStats, receiver: Callable[..., None], *args: Any) -> bool:
    """Calls a receiver or a notice. Counts and logs what it raises, and returns whether it raised nothing."""
    try:
        receiver(*args)
    except Exception:  # noqa: BLE001 - a defect of one consumer must not end the connection that all share
        stats.receiver_failures += 1
        _log.exception("receiver.failed")
        return False
    return True
