"""Defines both error taxonomies of the clients' protocol: errors that answer a message, and close codes.

This module is their only source: docs/reference/errors.md, the OpenAPI document and the server API's page are made
from `ERRORS` and `CLOSES`. An error's reason names the field that it is about.
"""

from dataclasses import dataclass
from typing import Final

TEXT_CHARS: Final = 100
"""Characters of a client's text in an error's reason, and in a line of the log."""
REASON_CHARS: Final = 500
"""Characters of an error's reason, whatever it is made of."""


def cut(text: str, most: int = TEXT_CHARS) -> str:
    """Returns the text, or its beginning with `…` if it has more than `most` characters.

    Everything that a client or another process chose passes through here, or through `quoted`, before it becomes part
    of an error or of a line of the log: an answer is kept for half a minute, and a line for as long as the log.
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(text: str) -> str:
    """Returns a client's text in quotes, with escapes for what cannot be printed, and cut."""
    shown = repr(text[:TEXT_CHARS])
    if len(shown) <= TEXT_CHARS and len(text) <= TEXT_CHARS:
        return shown
    return f"{shown[: TEXT_CHARS - 2]}…{shown[0]}"


class PlenaryError(Exception):
    """An error that answers a message: `code` is one of `ERRORS`, `reason` is for people."""

    code = 500

    def __init__(self, reason: str) -> None:
        self.reason = cut(reason, REASON_CHARS)
        super().__init__(self.reason)


class BadPayload(PlenaryError):
    code = 400


class Unauthorized(PlenaryError):
    code = 401


class Forbidden(PlenaryError):
    code = 403


class NotFound(PlenaryError):
    code = 404


class Conflict(PlenaryError):
    code = 409


class TooLarge(PlenaryError):
    code = 413


class TooMany(PlenaryError):
    code = 429


class InternalError(PlenaryError):
    code = 500


class Unavailable(PlenaryError):
    code = 503


@dataclass(frozen=True)
class ErrorKind:
    """The meaning of an error code. `temporary` is true if the same message may succeed later."""

    meaning: str
    temporary: bool
    advice: str
    """The advice for the client, or for the caller of the server API."""


ERRORS: Final[dict[int, ErrorKind]] = {
    400: ErrorKind("the message is malformed; the reason names the field", False, "correct the message"),
    401: ErrorKind("server API: the key is missing or wrong", False, "send `Authorization: Bearer` and the key"),
    403: ErrorKind("this peer may not do that", False, "do not send it"),
    404: ErrorKind("the object does not exist (any more)", False, "forget the object"),
    409: ErrorKind("duplicate, or the object is in the wrong state", False, "compare with your own state"),
    413: ErrorKind("the message, or a part of it, is too large", False, "send less"),
    429: ErrorKind("too many messages a second, or too many objects", True, "wait, or close some first"),
    500: ErrorKind("a defect of the server; the state is unchanged", False, "report it"),
    503: ErrorKind(
        "no media node, overloaded, a server does not answer, or engines died of the room",
        True,
        "repeat it after growing pauses",
    ),
}

_BY_CODE: Final = {error.code: error for error in PlenaryError.__subclasses__()}


def error(code: int, reason: str) -> PlenaryError:
    """Makes the exception of a code that came over a wire; an unknown code is a 500."""
    return _BY_CODE.get(code, InternalError)(reason)


STAY_AWAY: Final = 4000
"""The close code after which protoo-client does not reconnect; it does after any other."""


@dataclass(frozen=True)
class CloseKind:
    """A reason for which the server closes a WebSocket.

    `resumable` is true if a resumable session may be resumed afterwards.
    """

    code: int
    reason: str
    advice: str = ""
    """The advice for a client other than protoo-client."""
    resumable: bool = False

    @property
    def reconnects(self) -> bool:
        """Whether protoo-client reconnects by itself."""
        return self.code != STAY_AWAY


REPLACED: Final = CloseKind(4000, "replaced by a newer connection of this peer", "stay away: the peer is elsewhere")
LEFT: Final = CloseKind(4000, "peer closed", "stay away: the application's server closed the peer")
ROOM_CLOSED: Final = CloseKind(4000, "room closed", "stay away: the application's server closed the room")
BAD_REQUEST: Final = CloseKind(
    4000, "roomId or peerName missing, or something in the query is invalid", "correct the URL"
)
MISNUMBERED: Final = CloseKind(
    4000, "frames of a resumable session are not numbered as they must be", "correct the client; start a new session"
)
SESSION_UNKNOWN: Final = CloseKind(4001, "session unknown: connect again", "start a new session and join again")
REPLAY_TOO_LARGE: Final = CloseKind(
    4001, "more was missed than is sent again: connect again", "start a new session and join again"
)
GAP: Final = CloseKind(4002, "messages missing: connect again", "reconnect", resumable=True)
TOO_SLOW: Final = CloseKind(4003, "client reads too slowly", "reconnect, and read faster", resumable=True)
STALLED: Final = CloseKind(4003, "message unfinished for 10 s: connect again", "reconnect", resumable=True)
RELEASED: Final = CloseKind(
    4004, "the session does not go over this connection any more: resume it", "resume the session", resumable=True
)
PROTOCOL: Final = CloseKind(1002, "not a WebSocket stream as RFC 6455 has it", "correct the client")
INVALID_TEXT: Final = CloseKind(1007, "text that is not UTF-8", "correct the client")
OVER_RATE: Final = CloseKind(1008, "too many messages for 10 s", "send less; start a new session")
TOO_BIG: Final = CloseKind(1009, "message above 1 MiB", "send less")
DRAINING: Final = CloseKind(1012, "gateway restarts: connect again", "reconnect at once", resumable=True)
UNAVAILABLE: Final = CloseKind(1013, "overloaded: try again later", "reconnect after growing pauses", resumable=True)
MEMORY_USED_UP: Final = CloseKind(
    1013, "room ended: the server's memory is nearly used up", "start a new session after growing pauses"
)

CLOSES: Final = (
    REPLACED,
    LEFT,
    ROOM_CLOSED,
    BAD_REQUEST,
    MISNUMBERED,
    SESSION_UNKNOWN,
    REPLAY_TOO_LARGE,
    GAP,
    TOO_SLOW,
    STALLED,
    RELEASED,
    PROTOCOL,
    INVALID_TEXT,
    OVER_RATE,
    TOO_BIG,
    DRAINING,
    UNAVAILABLE,
    MEMORY_USED_UP,
)
"""All kinds of closes, those with codes of Plenary's own first."""
