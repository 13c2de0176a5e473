"""Defines the events by which a session asks the gateway for writes, publishes and closes.

Sessions are sans-I/O: a method changes the session and returns the events that follow, in the order in which they are
to be carried out. A `Message` among them is to be written to the client; it stands for itself, so that a delivered
message needs no further object.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from shared.errors import RELEASED, SESSION_UNKNOWN, UNAVAILABLE, CloseKind
from shared.protocol.bus import Message


class Publish(msgspec.Struct, frozen=True):
    """Tells that the session has items for its partition, which `Session.take` hands out."""

    repeated: bool = False
    """True if they were published before, and the room worker did not report in time."""


class Close(msgspec.Struct, frozen=True):
    """Asks the gateway to close the socket."""

    kind: CloseKind


class ResumeAnswered(msgspec.Struct, frozen=True):
    """Tells that the room worker has answered the client's request to resume its session."""

    resumed: bool


class Forgotten(msgspec.Struct, frozen=True):
    """Tells that the session can be removed: its socket is closed, and the room worker knows or need not know."""


Event: TypeAlias = Message | Publish | Close | ResumeAnswered | Forgotten
Events: TypeAlias = Sequence[Event]

NOTHING: Final[Events] = ()
PUBLISH: Final[Events] = (Publish(),)
REPUBLISH: Final[Events] = (Publish(repeated=True),)
FORGOTTEN: Final[Events] = (Forgotten(),)
CLOSE_SESSION_UNKNOWN: Final[Events] = (Close(SESSION_UNKNOWN),)
"""Closes a session that the room worker does not know, or not over this connection."""
CLOSE_RELEASED: Final[Events] = (Close(RELEASED),)
CLOSE_UNAVAILABLE: Final[Events] = (Close(UNAVAILABLE),)
