"""Counts the bytes that a room's state takes, of each peer and in all, before a client's message adds to it.

Bytes are not measured but counted, by rules that give the same for a record whenever it is counted: on creation, on
removal and after loading. They are those of the worker's memory, which is more than the record takes in Redis: a
fixed number for each record, one for each byte that stays unparsed, and for JSON that is decoded several for each
byte and many for each object and array: `{"":{}}` takes thirty times its length.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

import msgspec
from msgspec import Raw

from roomworker.core.limits import Limits
from roomworker.core.model import Consumer, Created, PeerData, Producer, Session, Transport
from shared.errors import TooLarge, TooMany, Unavailable
from shared.protocol import client
from shared.protocol.rtp import RtpCapabilities, RtpParameters

DECODED: Final = 6
"""Bytes of memory for each byte of JSON that is decoded."""
OBJECT_BYTES: Final = 200
ARRAY_BYTES: Final = 80
"""Bytes of memory for each object and array of JSON, besides."""
ROOM_BYTES: Final = 5 * 1024
"""Bytes of a room without a session, which count for the worker only."""
SESSION_BYTES: Final = 1024
PEER_BYTES: Final = 1024
TRANSPORT_BYTES: Final = 512
PRODUCER_BYTES: Final = 1024
CONSUMER_BYTES: Final = 400

MODEST_PART: Final = 8
"""What of its share a peer may have while the room or the worker has less than half of its bytes left: 1 / this.
Otherwise few peers that take all they may would leave nothing to the others."""

Counted: TypeAlias = PeerData | Transport | Producer | Consumer

_encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True)
class WorkerTotal:
    """The bytes of all rooms of a worker, counted anew from time to time; what is added in between is added here."""

    limit: int = 2**63
    used: int = 0

    def check(self, added: int, *, half: bool = False) -> None:
        """Raises `Unavailable` if the worker has no room for so many bytes, or with `half` not in its first half."""
        if self.used + added > (self.limit // 2 if half else self.limit):
            raise Unavailable("the room worker has as many bytes of rooms as it takes: try again later")


def size_of(record: Counted) -> int:
    """Returns the bytes that a record counts as. They change only with a producer's parameters."""
    match record:
        case PeerData():
            return size_of_peer(record.rtp_capabilities, record.app_data)
        case Transport():
            return size_of_transport(record.app_data)
        case Producer():
            return size_of_producer(record.rtp_parameters, record.app_data)
        case Consumer():
            return CONSUMER_BYTES
        case _:
            assert_never(record)


def size_of_peer(rtp_capabilities: RtpCapabilities, app_data: client.AppData) -> int:
    """Returns the bytes that a peer with these capabilities counts as, without its objects."""
    return PEER_BYTES + _decoded_size(rtp_capabilities) + _size(app_data)


def size_of_transport(app_data: client.AppData) -> int:
    """Returns the bytes that a transport counts as."""
    return TRANSPORT_BYTES + _size(app_data)


def size_of_producer(rtp_parameters: RtpParameters, app_data: client.AppData) -> int:
    """Returns the bytes that a producer with these parameters counts as."""
    return PRODUCER_BYTES + _decoded_size(rtp_parameters) + _size(app_data)


def size_of_session(session: Session) -> int:
    """Returns the bytes that a session counts as; they do not change."""
    return SESSION_BYTES + len(session.peer)


def size_of_creation(created: Created | None) -> int:
    """Returns the bytes that the settings count as with which the server API created a room."""
    return 0 if created is None else _decoded_size(created.codecs) + _size(created.app_data)


def _decoded_size(value: object) -> int:
    """Returns the bytes that decoded JSON counts as."""
    text = _encode(value)
    return DECODED * len(text) + OBJECT_BYTES * text.count(b"{") + ARRAY_BYTES * text.count(b"[")


def _size(app_data: client.AppData) -> int:
    return len(app_data) if isinstance(app_data, Raw) else 0


class Budget:
    """The bytes that one room counts as: `total`, which includes its sessions, and those of each peer by name."""

    def __init__(self, total: WorkerTotal) -> None:
        self._worker = total
        self.total = 0
        self.by_peer: dict[str, int] = {}

    def check(self, peer: str, added: int, limits: Limits) -> None:
        """Checks whether the peer may add so many bytes.

        Raises `TooLarge` beyond the peer's own share, `TooMany` beyond the room's, `Unavailable` beyond the worker's.
        The second half of the room's and the worker's is for peers that have little (`MODEST_PART`).
        """
        held = self.by_peer.get(peer, 0) + added
        if held > limits.peer_bytes:
            raise TooLarge(f"peer: more than {limits.peer_bytes} bytes of one peer")
        self.check_room(added, limits, half=held > limits.peer_bytes // MODEST_PART)

    def check_room(self, added: int, limits: Limits, *, half: bool = False) -> None:
        """Checks whether so many bytes may be added that are no peer's; raises as `check`.

        With `half` only the first half of the room's and the worker's bytes may be used.
        """
        most = limits.room_bytes // 2 if half else limits.room_bytes
        if self.total + added > most:
            raise TooMany(f"room: more than {most} bytes of one room")
        self._worker.check(added, half=half)

    def add(self, peer: str, size: int) -> None:
        """Counts bytes of a peer; a negative number gives them back."""
        self.by_peer[peer] = self.by_peer.get(peer, 0) + size
        self.add_to_room(size)
        if not self.by_peer[peer]:
            del self.by_peer[peer]

    def add_to_room(self, size: int) -> None:
        """Counts bytes that are no peer's."""
        self.total += size
        if size > 0:
            self._worker.used += size
