"""How long sent messages are kept: usually a fixed time, longer while some may not have arrived. Pure.

A stream is trimmed by age when its room commits. A gateway that could not be reached for longer than that would find
a gap in what it missed, and its sessions would end. So messages are kept for `LONGEST` seconds

* until this worker's link to the broker has held for the usual time: what was confirmed may be forgotten by a broker
  that died, and gateways fetch it (`bus.Replay`) when they are back;
* while a gateway that the room's sessions are connected to has no queue, and for the usual time after.
"""

from collections.abc import Callable, Iterable
from typing import Final

BEYOND_GRACE: Final = 15.0
"""Sent messages are kept so many seconds longer than a session may be without a connection (DELIVERY O1)."""
LONGEST: Final = 600.0
UNREACHABLE_FOR: Final = 120.0
"""Seconds after the last message that found no queue for which a gateway is waited for, at most."""


class Retention:
    """`grace` is how long a session may be without a connection, seconds; `now` is the monotonic clock's."""

    def __init__(self, grace: float, now: float) -> None:
        self._usual = grace + BEYOND_GRACE
        self._disconnected_at = now
        self._unreachable_gateways: dict[str, float] = {}

    def broker_disconnected(self, now: float) -> None:
        """The broker is not reached."""
        self._disconnected_at = now

    def gateway_unreachable(self, gateway: str, now: float) -> None:
        """A message for the gateway found no queue."""
        self._unreachable_gateways[gateway] = now + UNREACHABLE_FOR

    def gateway_reached(self, gateway: str, now: float) -> None:
        """A message for the gateway found its queue."""
        if gateway in self._unreachable_gateways:
            self._unreachable_gateways[gateway] = min(self._unreachable_gateways[gateway], now + self._usual)

    def expire(self, now: float) -> None:
        """Gives gateways up that were waited for long enough; to be called every second or so."""
        self._unreachable_gateways = {
            gateway: until for gateway, until in self._unreachable_gateways.items() if until > now
        }

    def keep_ms(self, gateways: Callable[[], Iterable[str]], now: float) -> int:
        """Milliseconds that a room's messages are to be kept; asks for its gateways only if it matters."""
        return round(1000 * (LONGEST if self._is_longer(gateways, now) else self._usual))

    def _is_longer(self, gateways: Callable[[], Iterable[str]], now: float) -> bool:
        if now - self._disconnected_at < self._usual:
            return True
        return bool(self._unreachable_gateways) and not self._unreachable_gateways.keys().isdisjoint(gateways())
