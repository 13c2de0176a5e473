"""Parses the query of a new WebSocket: room, peer name, and what makes its session resumable or resumes one."""

import re
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

NAME_BYTES: Final = 128
_MAX_NUMBER: Final = 2**53 - 1
SECRET_BYTES: Final = 16
"""Random bytes of a resume token (DELIVERY S3), written as hexadecimal digits."""
_TOKEN = re.compile(r"(?P<session>[A-Za-z0-9_-]{1,200}\.[0-9]{1,16})~(?P<secret>[0-9a-f]{32})", re.ASCII)
_TOKEN_CHARS: Final = 400
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A request to resume a session.

    `token` is the hash of its secret, `ack` the last output that the client has, `attempt` counts from 1.
    """

    session: str
    token: str
    ack: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """The contents of a valid query; `resume` is set only if `resumable` is."""

    room: str
    peer: str
    resumable: bool = False
    resume: Resumption | None = None


def parse(query: str) -> ConnectionRequest | None:
    """Returns None if a field is missing, doubled or invalid; unknown fields are ignored."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        return None
    fields = dict(pairs)
    if sum(name in _KNOWN for name, _ in pairs) != len(fields.keys() & _KNOWN):
        return None
    room, peer = fields.get("roomId", ""), fields.get("peerName", "")
    if not (valid_name(room) and valid_name(peer)):
        return None
    resumable = fields.get("resumable") == "1"
    if "resume" not in fields:
        return ConnectionRequest(room, peer, resumable)
    resume = _resumption(fields)
    return ConnectionRequest(room, peer, True, resume) if resumable and resume is not None else None


_KNOWN: Final = frozenset({"roomId", "peerName", "resumable", "resume", "ack", "attempt"})


def valid_name(name: str) -> bool:
    """Returns whether a name is valid for a room or peer (DELIVERY S1)."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 1 <= size <= NAME_BYTES and not any(unicodedata.category(char) == "Cc" for char in name)


def _resumption(fields: dict[str, str]) -> Resumption | None:
    opened, ack, attempt = _open_token(fields["resume"]), _number(fields.get("ack")), _number(fields.get("attempt"))
    if opened is None or ack is None or not attempt:
        return None
    session, secret = opened
    return Resumption(session, digest(secret), ack, attempt)


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= _MAX_NUMBER else None


# --- resume tokens (DELIVERY S3) ------------------------------------------------------------------------------


def digest(secret: str) -> str:
    """Returns the hash of a secret, which is all that the server keeps of it."""
    return sha256(secret.encode()).hexdigest()


def token(session: str, secret: str) -> str:
    """Returns the resume token that the client gets; its contents mean nothing to the client."""
    return urlsafe_b64encode(f"{session}~{secret}".encode()).decode().rstrip("=")


def _open_token(text: str) -> tuple[str, str] | None:
    if len(text) > _TOKEN_CHARS or not text.isascii():
        return None
    try:
        plain = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (BadBase64, UnicodeDecodeError):
        return None
    match = _TOKEN.fullmatch(plain)
    return (match["session"], match["secret"]) if match else None
