"""Logs an outage that several users of RabbitMQ notice, once for all of them."""

import asyncio
from typing import Any, Final

from shared.telemetry import log

REMIND_AFTER: Final = 10.0

_log = log.get("broker")


class Outage:
    """Records which users fail at present, the latest reason, and the number of failures.

    The first failure is logged as event `begun`, the end of the last one as event `over`. In between failures are
    counted; the count is logged every `remind_after` seconds.
    """

    def __init__(self, begun: str, over: str, *, remind_after: float = REMIND_AFTER, **context: Any) -> None:
        self._begun = begun
        self._over = over
        self._remind_after = remind_after
        self._context = context
        self._failing: set[object] = set()
        self._since = self._logged = 0.0
        self._failures = 0
        self.reason = ""
        """The latest failure while the outage lasts, else empty."""

    def failed(self, user: object, reason: str) -> None:
        """Records a failed attempt of `user`."""
        now = asyncio.get_running_loop().time()
        if not self._failing:
            self._since, self._failures = now, 0
        first = not self._failing
        self._failing.add(user)
        self._failures += 1
        self.reason = reason
        if first or now - self._logged >= self._remind_after:
            self._logged = now
            _log.warning(self._begun, error=reason, failures=self._failures, **self._context)

    def recovered(self, user: object) -> None:
        """Records that `user` works, or is no longer needed."""
        if user not in self._failing:
            return
        self._failing.remove(user)
        if not self._failing:
            self.reason = ""
            seconds = round(asyncio.get_running_loop().time() - self._since, 1)
            _log.info(self._over, seconds=seconds, failures=self._failures)
