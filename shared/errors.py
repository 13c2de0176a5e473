"""The two error taxonomies: answers to a message, and close codes of a socket.

`ERRORS` is the table of docs/reference/errors.md. An error's reason names the field it is about.
"""

from dataclasses import dataclass
from typing import Final


class PlenaryError(Exception):
    """An error that is somebody's answer: `code` from `ERRORS`, `reason` for people."""

    code = 500

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
    meaning: str
    retry: bool


ERRORS: Final[dict[int, ErrorKind]] = {
    400: ErrorKind("bad payload: the reason names the field", retry=False),
    401: ErrorKind("no or bad token", retry=False),
    403: ErrorKind("not allowed", retry=False),
    404: ErrorKind("no such object", retry=False),
    409: ErrorKind("duplicate, or the object is in the wrong state", retry=False),
    413: ErrorKind("too large", retry=False),
    429: ErrorKind("too many", retry=True),
    500: ErrorKind("a defect of the server; the state is unchanged", retry=False),
    503: ErrorKind("no media node, or overloaded", retry=True),
}

_BY_CODE: Final = {error.code: error for error in PlenaryError.__subclasses__()}


def error(code: int, reason: str) -> PlenaryError:
    """The exception for a code that came over a wire; an unknown code is a 500."""
    return _BY_CODE.get(code, InternalError)(reason)


@dataclass(frozen=True)
class CloseKind:
    """Why a socket is closed. protoo-client stays away after 4000 and reconnects after any other code."""

    code: int
    reason: str


REPLACED: Final = CloseKind(4000, "replaced by a newer connection of this peer")
LEFT: Final = CloseKind(4000, "peer closed")
ROOM_CLOSED: Final = CloseKind(4000, "room closed")
BAD_REQUEST: Final = CloseKind(4000, "roomId or peerName missing, or something in the query is invalid")
MISNUMBERED: Final = CloseKind(4000, "frames of a resumable session are not numbered as they must be")
GONE: Final = CloseKind(4001, "session unknown: connect again")
GAP: Final = CloseKind(4002, "messages missing: connect again")
RELEASED: Final = CloseKind(4004, "the session does not go over this connection any more: resume it")
TOO_SLOW: Final = CloseKind(4003, "client reads too slowly")
PROTOCOL: Final = CloseKind(1002, "not a WebSocket stream as RFC 6455 has it")
TOO_BIG: Final = CloseKind(1009, "frame above 1 MiB")
DRAINING: Final = CloseKind(1012, "gateway restarts: connect again")
UNAVAILABLE: Final = CloseKind(1013, "overloaded: try again later")
