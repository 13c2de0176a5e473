"""Opens sessions: a client's connection to a room, with the numbers that make delivery exact (DELIVERY I1, O2)."""

from roomworker.core import teardown
from roomworker.core.model import Session
from roomworker.core.room import Room
from shared.errors import REPLACED
from shared.protocol import bus


def connect(room: Room, gateway: str, item: bus.Connect) -> Session:
    """Opens a session and returns it. If its peer has another, the one accepted earlier is closed (DELIVERY I7).

    The earlier connection may be the new session's own: the session that is returned is then closed already.
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
    if current is not None and (current.accepted, current.id) > (session.accepted, session.id):
        room.send(session, REPLACED.reason.encode(), REPLACED.code)
        room.record_closed_session(session)
        return session
    if current is not None:
        teardown.close_session_by_server(room, current, REPLACED)
    room.sessions[session.id] = session
    room.session_of[session.peer] = session
    if room.meta.created is not None:
        room.meta.created.idle_since = None
    room.save_meta()
    room.save_session(session)
    return session
