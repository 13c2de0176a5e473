"""Decides how long sent messages are kept: a fixed time, or longer while some may not have arrived. Pure.

A stream is trimmed by age when its room commits. A gateway that could not be reached for longer than that would find
a gap in what it missed, and its sessions would end. So messages are kept for `LONGEST` seconds

* until this worker's connection to the broker has held for the usual time: a broker that died may have forgotten
  what it had confirmed, and gateways fetch that (`bus.Replay`) when they are back;
* while a gateway that the room's sessions are connected to has no queue, and for the usual time after.

While the store is short of memory, messages are kept for the grace only: a session that is resumed in time needs no
others.
"""

from collections.abc import Callable, Iterable
from typing import Final

BEYOND_GRACE: Final = 15.0
"""Sent messages are kept so many seconds longer than a session may be without a connection (DELIVERY O1)."""
LONGEST: Final = 600.0
"""Seconds that sent messages are kept while some may not have arrived."""
UNREACHABLE_FOR: Final = 120.0
"""Seconds after the last message without a queue during which a gateway may still come back."""


class Retention:
    """Knows when the broker and each gateway were last out of reach.

    `grace` is how long a session may be without a connection, seconds; `now` is the monotonic clock's.
    """

    def __init__(self, grace: float, now: float) -> None:
        self._grace = grace
        self._usual = grace + BEYOND_GRACE
        self.saves_memory = False
        """Whether the store is short of memory."""
        self._disconnected_at = now
        self._unreachable_gateways: dict[str, float] = {}

    def broker_disconnected(self, now: float) -> None:
        """Notes that the broker is not reached."""
        self._disconnected_at = now

    def gateway_unreachable(self, gateway: str, now: float) -> None:
        """Notes that a message for the gateway found no queue."""
        self._unreachable_gateways[gateway] = now + UNREACHABLE_FOR

    def gateway_reached(self, gateway: str, now: float) -> None:
        """Notes that a message for the gateway found its queue."""
        if gateway in self._unreachable_gateways:
            self._unreachable_gateways[gateway] = min(self._unreachable_gateways[gateway], now + self._usual)

    def expire(self, now: float) -> None:
        """Forgets gateways that were out of reach for too long; to be called every second or so."""
        self._unreachable_gateways = {
            gateway: until for gateway, until in self._unreachable_gateways.items() if until > now
        }

    def keep_ms(self, gateways: Callable[[], Iterable[str]], now: float) -> int:
        """Returns the milliseconds to keep a room's messages; calls `gateways` only if the result depends on it."""
        if self.saves_memory:
            return self.least_ms
        return round(1000 * (LONGEST if self._is_longer(gateways, now) else self._usual))

    @property
    def least_ms(self) -> int:
        """The milliseconds that messages are kept while the store is short of memory."""
        return round(1000 * self._grace)

    def _is_longer(self, gateways: Callable[[], Iterable[str]], now: float) -> bool:
        if now - self._disconnected_at < self._usual:
            return True
        return bool(self._unreachable_gateways) and not self._unreachable_gateways.keys().isdisjoint(gateways())
