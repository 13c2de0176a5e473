"""Parses the head of an HTTP/1 request as RFC 9112 has it, without input or output.

What a head asks for must be unambiguous UTF-8: a target that is not is refused, with the name of the field, since two
names that differ only in bytes that cannot be decoded would become one name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_to_bytes

from multidict import CIMultiDict

HEAD_BYTES: Final = 16 * 1024
"""The largest head that is read; picows holds a WebSocket's request to the same."""
TARGET_BYTES: Final = 8 * 1024
FIELDS_LIMIT: Final = 100
_SHOWN_CHARS: Final = 100

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
_TARGET: Final = re.compile(rb"[^\x00-\x20\x7f]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://[^/?#]+(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SINGLE: Final = frozenset({"content-length", "host"})
"""The fields that a request must not repeat."""


class BadRequest(Exception):
    """A request that is answered with an error: `status`, and a reason for people."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request.

    `path` is decoded; `query` is the part after the first `?`, still percent-encoded. `headers` has one value for
    each name: those of a repeated field are joined by commas (RFC 9110 §5.3). `minor` is 0 for HTTP/1.0, else 1 or
    more.
    """

    method: str
    path: str
    query: str
    minor: int
    headers: CIMultiDict[str]

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return "Transfer-Encoding" in self.headers or self.headers.get("Content-Length", "0").strip("0") != ""


def parse_head(head: bytes) -> Request:
    """Returns the request whose head, without the empty line at its end, is `head`. Raises `BadRequest`."""
    line, *fields = head.split(b"\r\n")
    method, target, minor = _request_line(line)
    headers = _headers(fields)
    if minor and "Host" not in headers:
        raise _malformed("Host: missing")
    path, query = _split_target(method, _decoded_target(target))
    return Request(method, path, query, minor, headers)


def tokens(header: str) -> list[str]:
    """Returns the parts of a header that is a list."""
    return [token.strip() for token in header.split(",") if token.strip()]


def _malformed(reason: str) -> BadRequest:
    return BadRequest(HTTPStatus.BAD_REQUEST, reason)


def _shown(text: bytes) -> str:
    return repr(text[:_SHOWN_CHARS])[2:-1][:_SHOWN_CHARS]


def _request_line(line: bytes) -> tuple[str, bytes, int]:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise _malformed("request line: expected a method, a target and a version")
    method, target, version = parts
    known = _VERSION.fullmatch(version)
    if known is None or not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise _malformed("request line: expected a method, a target and a version")
    if known[1] != b"1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "version: expected HTTP/1.1")
    if len(target) > TARGET_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, f"target: more than {TARGET_BYTES} bytes")
    return method.decode(), target, int(known[2])


def _headers(fields: list[bytes]) -> CIMultiDict[str]:
    if len(fields) > FIELDS_LIMIT:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"headers: more than {FIELDS_LIMIT}")
    headers: CIMultiDict[str] = CIMultiDict()
    for field in fields:
        name, colon, value = field.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise _malformed(f"header: expected a name and a colon, got {_shown(field)}")
        value = value.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise _malformed(f"{_shown(name)}: control characters")
        key, text = name.decode(), value.decode("utf-8", "replace")
        if key not in headers:
            headers[key] = text
        elif key.lower() in _SINGLE:
            raise _malformed(f"{key}: given twice")
        else:
            headers[key] += f", {text}"
    return headers


# --- the target -------------------------------------------------------------------------------------------------


def _decoded_target(target: bytes) -> str:
    try:
        return target.decode()
    except UnicodeDecodeError:
        raise _malformed(f"{_undecodable_part(target)}: not UTF-8") from None


def _undecodable_part(target: bytes) -> str:
    """Returns the name of the first part of a target that is not UTF-8."""
    path, _, query = target.partition(b"?")
    if not is_utf8(path):
        return "path"
    return next(_shown(field.partition(b"=")[0]) for field in query.split(b"&") if not is_utf8(field))


def undecodable_fields(query: str) -> Iterator[str]:
    """Yields the names of the fields of a query whose percent-encoding is not UTF-8."""
    for field in query.split("&"):
        if not is_utf8(unquote_to_bytes(field)):
            yield _shown(field.partition("=")[0].encode())


def is_utf8(text: bytes) -> bool:
    """Returns whether bytes are valid UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Returns the path, decoded, and the query of a target in one of the forms of RFC 9112 §3.2."""
    if target == "*" and method == "OPTIONS":
        return "*", ""
    if absolute := _ABSOLUTE.fullmatch(target):
        target = absolute["rest"] if absolute["rest"].startswith("/") else "/" + absolute["rest"]
    if not target.startswith("/") and method != "CONNECT":
        raise _malformed("target: expected a path or an absolute URL")
    encoded, _, query = target.partition("?")
    path = unquote_to_bytes(encoded)
    if not is_utf8(path):
        raise _malformed("path: not UTF-8")
    return path.decode(), query
