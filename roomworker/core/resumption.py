"""Resumes sessions whose connection was lost, or closes them after the grace period.

The clock is the partition's time (DELIVERY T1). A session's `lost_at` 0 means that the time is not known yet; the
next tick sets it, as it does for a time that is still to come: that was another clock's.
"""

from typing import Final

from roomworker.core import teardown
from roomworker.core.model import Session
from roomworker.core.room import Room
from shared.protocol import bus

GRACE: Final = 15_000
"""Milliseconds that a session may be without a connection, unless the settings say otherwise."""

LOST_BYTES_LIMIT: Final = 1024 * 1024
"""Bytes of outputs that are kept for a session without a connection; with more it is closed (DELIVERY O1)."""


def resume(room: Room, gateway: str, item: bus.Resume) -> None:
    """Continues the session over this connection, unless a later attempt already has it."""
    session = room.sessions.get(item.session)
    if session is None or not session.token or session.token != item.token:
        room.reply_link(gateway, bus.Link(item.connection, item.session, "refused"))
        return
    attached = (session.gateway, session.connection)
    if attached != (gateway, item.connection):
        if item.attempt <= session.attempt:
            room.reply_link(gateway, bus.Link(item.connection, item.session, "refused"))
            return
        if session.gateway:
            room.reply_link(session.gateway, bus.Link(session.connection, session.id, "released"))
        session.gateway, session.connection = gateway, item.connection
        session.attempt = item.attempt
        session.lost_at, session.lost_bytes = None, 0
        room.save_session(session)
    room.reply_resumed(session)


def connection_lost(room: Room, gateway: str, item: bus.ConnectionLost, now: int) -> None:
    """Detaches the session from its closed socket, or closes it if the loss is final or it cannot be resumed."""
    session = room.sessions.get(item.session)
    if session is not None and (session.gateway, session.connection) == (gateway, item.connection):
        if item.final or not session.token:
            teardown.close_session(room, session)
        else:
            detach(room, session, now)
    room.reply_link(gateway, bus.Link(item.connection, item.session, "released"))


def detach(room: Room, session: Session, now: int) -> None:
    """Leaves the session without a connection from now on (ms); its outputs are kept for its return."""
    session.gateway, session.connection = "", 0
    session.lost_at, session.lost_bytes = now, 0
    room.save_session(session)


def close_expired(room: Room, now: int, grace: int) -> list[Session]:
    """Closes sessions without a connection for `grace` ms, or with more outputs than are kept; returns them."""
    expired: list[Session] = []
    for session in room.sessions.values():
        if session.lost_at is None:
            continue
        if not 0 < session.lost_at <= now:
            session.lost_at = now
            room.save_session(session)
        elif now - session.lost_at >= grace or session.lost_bytes > LOST_BYTES_LIMIT:
            expired.append(session)
    for session in expired:
        teardown.close_session(room, session)
    return expired
