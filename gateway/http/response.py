"""Encodes HTTP responses. Each is the only one of its connection, which closes after it."""

import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from gateway.http.request import BadRequest
from gateway.protocol.admission import Refused

RETRY_AFTER: Final = "10"
"""Seconds after which a refused client may try again."""
TEXT: Final = "text/plain; charset=utf-8"
_SAFE: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
_WITHOUT_LENGTH: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(slots=True)
class Response:
    """A response; `headers` are those beside Date, Content-Length and Connection."""

    status: HTTPStatus
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def head(self) -> bytes:
        """Returns the encoded status line and headers."""
        headers = {"Date": _date()} | self.headers
        if self.status not in _WITHOUT_LENGTH:
            headers["Content-Length"] = str(len(self.body))
        headers["Connection"] = "upgrade, close" if "Upgrade" in headers else "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n{lines}\r\n".encode()


def respond(status: HTTPStatus, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
    """Returns a response, plain text unless `headers` say otherwise."""
    kind = {"Content-Type": TEXT} if body else {}
    return Response(status, body, kind | _SAFE | (headers or {}))


def refuse(refused: BadRequest) -> Response:
    """Returns the response to a request that cannot be taken."""
    return respond(refused.status, f"{refused.reason}\n".encode(errors="replace"))


def refusal(refused: Refused) -> Response:
    """Returns the response to a connection over a limit: 429 if it is that of its address, otherwise 503."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if refused.temporary else HTTPStatus.TOO_MANY_REQUESTS
    return respond(status, f"{refused.text}\n".encode(), {"Retry-After": RETRY_AFTER})


def _date() -> str:
    """Returns the time of day as RFC 9110 §5.6.7 has it, made once a second."""
    global _made
    now = int(time.time())
    if _made[0] != now:
        _made = (now, formatdate(now, usegmt=True))
    return _made[1]


_made: tuple[int, str] = (0, "")
