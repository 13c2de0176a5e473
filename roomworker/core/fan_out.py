"""Limits what a room sends on behalf of its peers: bytes times receivers a second, and bytes that Redis keeps.

Each receiver counts for some bytes more than the message has (`journal.RECEIVER_BYTES`).

Time is the room's (DELIVERY T1), so that a message done again meets the same limit. What a message will send is known
beforehand if it is passed on unchanged; what others send is counted afterwards, and their sender then waits.

Bytes are the weight of a request, too. What costs a room worker most is what makes most bytes: a join into a room
with 400 producers takes 2 ms of CPU and 250 KB, other requests below 0.1 ms. When a room sends too much, messages
between its peers are refused first; then costly requests of those who have sent most; in the end those of all.
"""

from typing import Final

from roomworker.core.limits import Limits
from shared.errors import TooMany

BURST_SECONDS: Final = 8
"""Seconds whose bytes may be sent at once."""
DEBT_SECONDS: Final = 2 * BURST_SECONDS
"""Seconds whose bytes a room may send beyond that, for peers that have sent little: 500 peers with three producers
each, who all come back at once, make three quarters of a gigabyte."""
KEPT_SECONDS: Final = 30
"""Seconds that Redis keeps what was sent, usually."""
DEPARTED_LIMIT: Final = 1000
"""Peers without a session whose bytes are remembered; the one that departed first is forgotten first."""


class TokenBucket:
    """Bytes that may be spent: `rate` more each second, up to `capacity`. Below 0 there is a debt. Times are ms."""

    __slots__ = ("_capacity", "_left", "_rate", "_time")

    def __init__(self, rate: int, capacity: int, now: int) -> None:
        self._rate = rate
        self._capacity = self._left = capacity
        self._time = now

    def has(self, cost: int, now: int) -> bool:
        """Whether so many bytes may be spent at `now`; a full bucket has enough for any message."""
        if now > self._time:
            self._left = min(self._capacity, self._left + self._rate * (now - self._time) // 1000)
            self._time = now
        return self._left >= min(cost, self._capacity)

    def is_half_full(self, now: int) -> bool:
        """Whether less than half of what it may have was spent lately."""
        return self.has(self._capacity // 2, now)

    def is_full(self, now: int) -> bool:
        """Whether nothing was spent lately."""
        return self.has(self._capacity, now)

    def spend(self, cost: int) -> None:
        """Takes bytes."""
        self._left -= cost


class CountedBucket:
    """A bucket for what a counter, which only grows, shows from now on."""

    __slots__ = ("_bucket", "_seen")

    def __init__(self, bucket: TokenBucket, counter: int) -> None:
        self._bucket = bucket
        self._seen = counter

    def has(self, cost: int, counter: int, now: int) -> bool:
        """Whether so many bytes may be spent at `now`, if the counter has this number."""
        self._bucket.spend(counter - self._seen)
        self._seen = counter
        return self._bucket.has(cost, now)


class FanOut:
    """The buckets of a room and of its peers, by name. A limit of 0 means none."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sent: CountedBucket | None = None
        self._kept: CountedBucket | None = None
        self._peers: dict[str, TokenBucket] = {}
        self._departed: dict[str, TokenBucket] = {}
        """The buckets of peers whose session is closed, unless they are full."""

    def check(self, peer: str, sent: int, now: int) -> None:
        """Raises `TooMany` if the peer has sent more than it may: to be called before costly requests.

        While the room sends too much, that is half as much; and nothing, while its debt is that of `DEBT_SECONDS`:
        peers may come under ever new names. `sent` is the room's counter.
        """
        limits = self._limits
        bucket = self._bucket(peer)
        if bucket is not None and not bucket.has(1, now):
            raise TooMany(f"peer: more than {limits.peer_fan_out} bytes a second, times receivers")
        is_rested = bucket is None or bucket.is_half_full(now)
        least = -DEBT_SECONDS * limits.room_fan_out if is_rested else 1
        if not self._room_has(least, sent, now):
            raise TooMany(f"room: more than {limits.room_fan_out} bytes a second, times receivers")

    def check_pause(self, peer: str, now: int) -> None:
        """Raises `TooMany` if the peer has a debt as large as what it may send at once.

        A client that behaves never has; to pause and resume a producer is refused for no less.
        """
        bucket = self._bucket(peer)
        if bucket is not None and not bucket.has(-BURST_SECONDS * self._limits.peer_fan_out, now):
            raise TooMany(f"peer: more than {self._limits.peer_fan_out} bytes a second, times receivers")

    def check_message(self, peer: str, cost: int, size: int, sent: int, kept: int, now: int) -> None:
        """Raises `TooMany` if a message is too much for its sender or for the room.

        It has `size` bytes, which with all its receivers are `cost`. `sent` and `kept` are the room's counters.
        """
        limits = self._limits
        if limits.peer_fan_out and not self._of_peer(peer, now).has(cost, now):
            raise TooMany(f"data: more than {limits.peer_fan_out} bytes a second of one peer, times receivers")
        if not self._room_has(cost, sent, now):
            raise TooMany(f"data: more than {limits.room_fan_out} bytes a second of one room, times receivers")
        if limits.room_stream_bytes:
            if self._kept is None:
                rate = limits.room_stream_bytes // KEPT_SECONDS
                self._kept = CountedBucket(TokenBucket(rate, limits.room_stream_bytes, now), kept)
            if not self._kept.has(size, kept, now):
                raise TooMany(f"data: more than {limits.room_stream_bytes} bytes of one room in {KEPT_SECONDS} s")

    def spend(self, peer: str, cost: int, now: int) -> None:
        """Counts bytes times receivers that were sent on behalf of a peer."""
        if self._limits.peer_fan_out:
            self._of_peer(peer, now).spend(cost)

    def depart(self, peer: str, now: int) -> None:
        """Notes that the peer's session is closed: what it has spent counts for the next one of that name."""
        bucket = self._peers.pop(peer, None)
        if bucket is None or bucket.is_full(now):
            return
        self._departed[peer] = bucket
        if len(self._departed) > DEPARTED_LIMIT:
            del self._departed[next(iter(self._departed))]

    def _room_has(self, cost: int, sent: int, now: int) -> bool:
        if not self._limits.room_fan_out:
            return True
        if self._sent is None:
            self._sent = CountedBucket(_burst_of(self._limits.room_fan_out, now), sent)
        return self._sent.has(cost, sent, now)

    def _bucket(self, peer: str) -> TokenBucket | None:
        bucket = self._peers.get(peer)
        if bucket is None and (bucket := self._departed.pop(peer, None)) is not None:
            self._peers[peer] = bucket
        return bucket

    def _of_peer(self, peer: str, now: int) -> TokenBucket:
        bucket = self._bucket(peer)
        if bucket is None:
            bucket = self._peers[peer] = _burst_of(self._limits.peer_fan_out, now)
        return bucket


def _burst_of(rate: int, now: int) -> TokenBucket:
    return TokenBucket(rate, rate * BURST_SECONDS, now)
