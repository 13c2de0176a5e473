"""For how long sent messages are kept: usually for a fixed time, for longer while some may not have arrived. Pure.

A stream is trimmed by age when its room commits. Whoever could not be reached for longer than that would find a gap
in what it missed, and its sessions would end, so nothing is trimmed

* until this worker's link to the broker has held for the usual time: what was confirmed may be forgotten by a broker
  that died, and gateways fetch it (`bus.Replay`) when they are back;
* while a gateway that the room's sessions are connected to has no queue, and for the usual time after.
"""

from collections.abc import Callable, Iterable
from typing import Final

UNREACHABLE_FOR: Final = 120.0
"""Seconds after the last message that found no queue for which a gateway is waited for, at most."""


class Retention:
    """`usual` is the usual time, seconds; `now` is the monotonic clock's."""

    def __init__(self, usual: float, now: float) -> None:
        self._usual = usual
        self._link_down_at = now
        self._unreachable_gateways: dict[str, float] = {}

    def link_down(self, now: float) -> None:
        """The broker is not reached."""
        self._link_down_at = now

    def unreached(self, gateway: str, now: float) -> None:
        """A message for it found no queue."""
        self._unreachable_gateways[gateway] = now + UNREACHABLE_FOR

    def reached(self, gateway: str, now: float) -> None:
        if gateway in self._unreachable_gateways:
            self._unreachable_gateways[gateway] = min(self._unreachable_gateways[gateway], now + self._usual)

    def forget(self, now: float) -> None:
        """To be called every second or so."""
        self._unreachable_gateways = {
            gateway: until for gateway, until in self._unreachable_gateways.items() if until > now
        }

    def keeps_all(self, gateways: Callable[[], Iterable[str]], now: float) -> bool:
        """Whether nothing of a room is to be trimmed now; asks for its gateways only if it matters."""
        if now - self._link_down_at < self._usual:
            return True
        return bool(self._unreachable_gateways) and not self._unreachable_gateways.keys().isdisjoint(gateways())
