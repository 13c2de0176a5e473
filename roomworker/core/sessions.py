"""A session: one client's connection to a room, with the numbers that make delivery exact (DELIVERY I1, O2)."""

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import UNSET

from roomworker.core import peers
from roomworker.core.record import Record
from shared.errors import REPLACED, CloseKind
from shared.protocol import bus, client

if TYPE_CHECKING:
    from roomworker.core.room import Room

FIRST: Final = 0  # the number of a session's `Connect`


class Session(Record):
    """Stored as `session|<peer>`. `n_in` is the last input applied, `n_out` the last output that exists.

    `gateway` is empty while it has no connection; `lost_at` is since when (ms, room time), `lost_bytes` what it was
    sent since. `token` is the hash of its resume token, `attempt` the number of its last resumption.
    `joins` counts how often its peer has joined: it tells apart the media objects of one join and the next.
    """

    id: str
    peer: str
    gateway: str
    connection: int
    accepted: int
    token: str = ""
    n_in: int = FIRST
    n_out: int = 0
    joins: int = 0
    attempt: int = 0
    lost_at: int | None = None
    lost_bytes: int = 0

    @property
    def field(self) -> str:
        return f"session|{self.peer}"


class Gone(NamedTuple):
    """The last numbers of a closed session."""

    n_in: int
    n_out: int


def connect(room: "Room", gateway: str, item: bus.Connect) -> Session:
    """A new session. Of two connections of one peer the one accepted later stays, whichever is heard of first."""
    session = Session(
        id=item.session,
        peer=item.peer,
        gateway=gateway,
        connection=item.connection,
        accepted=item.accepted,
        token=item.token,
    )
    current = room.session_of.get(item.peer)
    if current is not None and (current.accepted, current.id) > (session.accepted, session.id):
        room.send(session, REPLACED.reason.encode(), REPLACED.code)
        room.bury(session)
        return session
    if current is not None:
        end(room, current, REPLACED)
    room.sessions[session.id] = session
    room.session_of[session.peer] = session
    if room.meta.created is not None:
        room.meta.created.idle_since = None
    room.save_meta()
    room.touch(session)
    return session


def end(room: "Room", session: Session, why: CloseKind | None = None, app_data: client.AppData = UNSET) -> None:
    """The session is over, and with it its peer; with `why` its socket is closed, too."""
    if why is not None:
        room.send(session, why.reason.encode(), why.code)
    peer = room.peers.get(session.peer)
    if peer is not None and peer.session is session:
        peers.close(room, peer, app_data)
    del room.sessions[session.id]
    del room.session_of[session.peer]
    room.forget(session.field)
    room.bury(session)
