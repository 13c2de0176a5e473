"""Bounds what one address, and all together, may have of a gateway: connections, new connections a second, rooms.

A connection is admitted when it is accepted, before anything is read from it. That of a trusted proxy is admitted
when it has named its client. The tables hold an entry for each address with an open connection, and `BUCKETS_LIMIT`
rates.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.protocol.addresses import Network, counted_as, forwarded_for, is_within
from gateway.protocol.rate_limit import TokenBucket

BUCKETS_LIMIT: Final = 16_384
"""The number of addresses whose rates are remembered. Beyond it the one that came least recently is forgotten, which
gives that address a new burst and no more; the rate of all connections is bounded by itself."""
BURST_SECONDS: Final = 4
"""New connections may come at once as many as the rate allows in this many seconds."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What is admitted; 0 is no limit. Rates are new connections a second."""

    connections: int = 0
    files: int = 0
    """Connections for which there are file descriptors."""
    connections_per_address: int = 0
    rooms_per_address: int = 0
    rate: float = 0
    rate_per_address: float = 0


class Refused(Exception):
    """A connection over a limit. `temporary` is the server's own trouble (503), otherwise the address's (429).

    `reason` is one of few words, for the metric; the text is for people.
    """

    def __init__(self, reason: str, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.temporary = temporary


@dataclass(slots=True)
class _Use:
    """What an address has: its connections, and for each of its rooms how many of them are in it."""

    connections: int = 0
    rooms: dict[str, int] = field(default_factory=dict)


class Admission:
    """Admits connections; `clock` gives seconds, `trusted` are the networks of proxies."""

    def __init__(self, limits: AdmissionLimits, trusted: Sequence[Network], clock: Callable[[], float]) -> None:
        self.limits = limits
        self.trusted = trusted
        self.open = 0
        """Connections that are open, those of proxies and those whose request is not read yet among them."""
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._all = self._bucket(limits.rate)

    @property
    def addresses(self) -> int:
        """The number of addresses that have a connection."""
        return len(self._uses)

    @property
    def full(self) -> bool:
        """Whether there is no connection left for anybody."""
        return any(limit and self.open >= limit for limit in (self.limits.files, self.limits.connections))

    def accept(self, host: str, port: int) -> "Origin":
        """Counts an accepted connection. Raises `Refused`; later for a trusted proxy's client."""
        if self.limits.files and self.open >= self.limits.files:
            raise Refused("files", "no file descriptor is left for another connection", temporary=True)
        if self.limits.connections and self.open >= self.limits.connections:
            raise Refused("connections", "too many connections", temporary=True)
        origin = Origin(self, host, port, proxied=is_within(host, self.trusted))
        if not origin.proxied:
            self.admit(origin)
        self.open += 1
        return origin

    def admit(self, origin: "Origin") -> None:
        """Counts a connection for its address. Raises `Refused`.

        The limits of the address come first, so that what it is refused takes nothing from others.
        """
        name, limits = counted_as(origin.host), self.limits
        use = self._uses.get(name)
        if limits.connections_per_address and use and use.connections >= limits.connections_per_address:
            raise Refused("address_connections", "too many connections from this address")
        if limits.rate_per_address and not self._bucket_of(name).admit():
            raise Refused("address_rate", "too many new connections from this address")
        if self._all is not None and not self._all.admit():
            raise Refused("rate", "too many new connections", temporary=True)
        if use is None:
            use = self._uses[name] = _Use()
        use.connections += 1
        origin.counted = name

    def enter(self, origin: "Origin", room: str) -> None:
        """Counts a room for the address of an admitted connection. Raises `Refused`."""
        use = self._uses.get(origin.counted)
        if use is None or not self.limits.rooms_per_address:
            return
        if room not in use.rooms and len(use.rooms) >= self.limits.rooms_per_address:
            raise Refused("address_rooms", "too many rooms from this address")
        use.rooms[room] = use.rooms.get(room, 0) + 1
        origin.room = room

    def release(self, origin: "Origin") -> None:
        """Forgets a connection that has ended."""
        self.open -= 1
        use = self._uses.get(origin.counted)
        if use is None:
            return
        use.connections -= 1
        if not use.connections:
            del self._uses[origin.counted]
        elif origin.room in use.rooms:
            use.rooms[origin.room] -= 1
            if not use.rooms[origin.room]:
                del use.rooms[origin.room]

    def _bucket_of(self, name: str) -> TokenBucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._bucket(self.limits.rate_per_address)
            assert bucket is not None
            self._buckets[name] = bucket
            if len(self._buckets) > BUCKETS_LIMIT:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket

    def _bucket(self, rate: float) -> TokenBucket | None:
        return TokenBucket(rate, max(1, round(rate * BURST_SECONDS)), self._clock) if rate else None


class Origin:
    """Where a connection comes from. `counted` is the name under which it is counted; empty before it is admitted."""

    __slots__ = ("_admission", "_released", "counted", "host", "port", "proxied", "room")

    def __init__(self, admission: Admission, host: str, port: int, *, proxied: bool) -> None:
        self._admission = admission
        self._released = False
        self.host = host
        self.port = port
        self.proxied = proxied
        """True while the address is that of a trusted proxy."""
        self.counted = ""
        self.room = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    def name_client(self, host: str, port: int) -> None:
        """Replaces the address of a proxy by that of its client, and admits it. Raises `Refused`."""
        self.host, self.port = host, port
        self.proxied = is_within(host, self._admission.trusted)
        if not self.proxied:
            self._admission.admit(self)

    def read_forwarded_for(self, header: str) -> None:
        """Takes the client from the X-Forwarded-For of a proxy's request, and admits it. Raises `Refused`.

        A proxy that names no client is counted as one. On any other connection the header says nothing.
        """
        if not self.proxied:
            return
        if client := forwarded_for(header, self._admission.trusted):
            self.host, self.port = client, 0
        self.proxied = False
        self._admission.admit(self)

    def enter(self, room: str) -> None:
        """Counts a room for the address. Raises `Refused`."""
        self._admission.enter(self, room)

    def release(self) -> None:
        """Forgets the connection, which has ended; later calls do nothing."""
        if not self._released:
            self._released = True
            self._admission.release(self)
