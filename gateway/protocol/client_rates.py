"""Remembers how much of its rate a client has used, so that to connect again gives it no new burst.

A client is a peer of a room. What it has used is remembered after it has left, until it would have as much left as a
client that comes for the first time.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

from gateway.protocol.rate_limit import ClientRate

REMEMBERED_LIMIT: Final = 16_384
"""Clients that have left and are remembered. Beyond it the one that left first is forgotten."""

Client: TypeAlias = tuple[str, str]
"""The names of a room and of a peer."""


class ClientRates:
    """The rates of all clients of a gateway; `clock` gives seconds.

    `per_second` and `bytes_per_second` are those of each client, 0 for no limit. A session that is resumed may send
    at once, besides `burst` messages, what its client could have sent while it was away: for the seconds since it
    left this gateway, or for `grace` seconds if it comes from another one.
    """

    def __init__(
        self, clock: Callable[[], float], *, per_second: float, burst: int, bytes_per_second: int, grace: float
    ) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._bytes_per_second = bytes_per_second
        self._grace = grace
        self._open: dict[Client, ClientRate] = {}
        self._left: OrderedDict[Client, tuple[float, ClientRate]] = OrderedDict()
        """When each remembered client left, and its rate; the first to leave comes first."""

    @property
    def remembered(self) -> int:
        """The number of clients that are remembered after they left."""
        return len(self._left)

    def enter(self, client: Client, *, resumed: bool) -> ClientRate:
        """Returns the rate of a connection that has opened. A connection that it replaces may still be open."""
        left_at, before = self._left.pop(client, (None, None))
        if client in self._open:
            left_at, before = self._clock(), self._open[client]
        away = self._grace if left_at is None else min(self._grace, self._clock() - left_at)
        rate = ClientRate(
            self._clock,
            per_second=self._per_second,
            burst=self._burst,
            bytes_per_second=self._bytes_per_second,
            extra=int(self._per_second * away) if resumed else 0,
        )
        if before is not None:
            rate.go_on_from(before)
        self._open[client] = rate
        return rate

    def leave(self, client: Client, rate: ClientRate) -> None:
        """Takes note that a connection has closed. Has no effect if another one of the client's is open."""
        if self._open.get(client) is not rate:
            return
        del self._open[client]
        now = self._clock()
        self._left[client] = (now, rate)
        while self._left:
            first, (left_at, oldest) = next(iter(self._left.items()))
            is_forgotten = oldest.is_rested and now - left_at >= self._grace
            if not is_forgotten and len(self._left) <= REMEMBERED_LIMIT:
                break
            del self._left[first]
