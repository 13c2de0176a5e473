"""Resumable sessions without a connection: lost, taken up again, or given up (DESIGN §2).

The clock is the partition's ticks. `lost_at` 0 means lost at a time not known yet; the next tick tells.
"""

from typing import TYPE_CHECKING, Final

from roomworker.core import sessions
from roomworker.core.sessions import Session
from shared.protocol import bus
from shared.telemetry import log

if TYPE_CHECKING:
    from roomworker.core.room import Room

GRACE: Final = 15_000
"""Milliseconds that a session may be without a connection, unless the settings say otherwise."""

LOST_BYTES: Final = 1024 * 1024
"""Outputs that are kept for a session without a connection; beyond them it ends (DELIVERY O1)."""

logger = log.get("session")


def resume(room: "Room", gateway: str, item: bus.Resume) -> None:
    """The session goes on over this connection, unless a later attempt already has it."""
    session = room.sessions.get(item.session)
    if session is None or not session.token or session.token != item.token:
        room.link(gateway, bus.Link(item.connection, item.session, "refused"))
        return
    attached = (session.gateway, session.connection)
    if attached != (gateway, item.connection):
        if item.attempt <= session.attempt:
            room.link(gateway, bus.Link(item.connection, item.session, "refused"))
            return
        if session.gateway:
            room.link(session.gateway, bus.Link(session.connection, session.id, "released"))
        session.gateway, session.connection = gateway, item.connection
        session.attempt = item.attempt
        session.lost_at, session.lost_bytes = None, 0
        room.touch(session)
    room.link_resumed(session)


def lost(room: "Room", gateway: str, item: bus.ConnectionLost, now: int) -> None:
    """The connection is gone. A `final` loss, or one of a session that cannot be resumed, ends the session."""
    session = room.sessions.get(item.session)
    if session is not None and (session.gateway, session.connection) == (gateway, item.connection):
        if item.final or not session.token:
            sessions.end(room, session)
        else:
            lose(room, session, now)
    room.link(gateway, bus.Link(item.connection, item.session, "released"))


def lose(room: "Room", session: Session, now: int) -> None:
    """From now on nobody is there to hear it; what it is sent is kept for its return."""
    session.gateway, session.connection = "", 0
    session.lost_at, session.lost_bytes = now, 0
    room.touch(session)


def overdue(room: "Room", now: int, grace: int) -> list[Session]:
    """Sessions that were without a connection for `grace` ms, or were sent more than is kept for them."""
    late: list[Session] = []
    for session in room.sessions.values():
        if session.lost_at is None:
            continue
        if not session.lost_at:
            session.lost_at = now
            room.touch(session)
        elif now - session.lost_at >= grace or session.lost_bytes > LOST_BYTES:
            late.append(session)
    return late


def end_overdue(room: "Room", now: int, grace: int) -> None:
    for session in overdue(room, now, grace):
        logger.info("session was not resumed", room=room.name, peer=session.peer)
        sessions.end(room, session)
