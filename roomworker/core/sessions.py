"""Opens sessions: a client's connection to a room, with the numbers that make delivery exact (DELIVERY I1, O2)."""

from roomworker.core import teardown
from roomworker.core.budget import size_of_session
from roomworker.core.model import Session
from roomworker.core.room import Room
from shared.errors import REPLACED, UNAVAILABLE, CloseKind, PlenaryError
from shared.protocol import bus


def connect(room: Room, gateway: str, item: bus.Connect) -> Session:
    """Opens a session and returns it. If its peer has another, the one that arrived earlier is closed (DELIVERY I7).

    A `Connect` that its gateway had to repeat may arrive behind that of a later connection to the same gateway: the
    session that is returned is then closed already. So it is if the room or the worker has no bytes left for it.
    """
    session = Session(
        id=item.session,
        peer=item.peer,
        gateway=gateway,
        connection=item.connection,
        accepted=item.accepted,
        token=item.token,
    )
    current = room.session_of.get(item.peer)
    if current is not None and current.gateway == gateway and current.connection > session.connection:
        return _close_at_once(room, session, REPLACED)
    size = size_of_session(session)
    try:
        room.budget.check_room(size, room.limits)
    except PlenaryError:
        return _close_at_once(room, session, UNAVAILABLE)
    if current is not None:
        teardown.close_session_by_server(room, current, REPLACED)
    room.budget.add_to_room(size)
    room.sessions[session.id] = session
    room.session_of[session.peer] = session
    if room.meta.created is not None:
        room.meta.created.idle_since = None
    room.save_meta()
    room.save_session(session)
    return session


def _close_at_once(room: Room, session: Session, why: CloseKind) -> Session:
    room.send(session, why.reason.encode(), why.code)
    room.record_closed_session(session)
    return session
