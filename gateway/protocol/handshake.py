"""What a connection asks for in its query: a room and a peer name, and whether its session can be resumed."""

import re
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import Final
from urllib.parse import parse_qsl

NAME_BYTES: Final = 128
_MOST: Final = 2**53 - 1
_SECRET_BYTES: Final = 16
_TOKEN = re.compile(r"(?P<session>[A-Za-z0-9_-]{1,200}\.[0-9]{1,16})~(?P<secret>[0-9a-f]{32})", re.ASCII)
_TOKEN_CHARS: Final = 400
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A session to be taken up again: `token` is the hash of its secret, `ack` the last output its client has."""

    session: str
    token: str
    ack: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Wanted:
    room: str
    peer: str
    resumable: bool = False
    resume: Resumption | None = None


def read(query: str) -> Wanted | None:
    """None if something needed is missing, or something known is doubled or invalid."""
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
        return Wanted(room, peer, resumable)
    resume = _resumption(fields)
    return Wanted(room, peer, True, resume) if resumable and resume is not None else None


_KNOWN: Final = frozenset({"roomId", "peerName", "resumable", "resume", "ack", "attempt"})


def valid_name(name: str) -> bool:
    """DELIVERY S1."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 1 <= size <= NAME_BYTES and not any(unicodedata.category(char) == "Cc" for char in name)


def _resumption(fields: dict[str, str]) -> Resumption | None:
    opened, ack, attempt = _open(fields["resume"]), _number(fields.get("ack")), _number(fields.get("attempt"))
    if opened is None or ack is None or not attempt:
        return None
    session, secret = opened
    return Resumption(session, digest(secret), ack, attempt)


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= _MOST else None


# --- resume tokens (DELIVERY S3) ------------------------------------------------------------------------------


def new_secret() -> str:
    return token_hex(_SECRET_BYTES)


def digest(secret: str) -> str:
    """What the server keeps of a secret."""
    return sha256(secret.encode()).hexdigest()


def token(session: str, secret: str) -> str:
    """What the client gets: to it, any text."""
    return urlsafe_b64encode(f"{session}~{secret}".encode()).decode().rstrip("=")


def _open(text: str) -> tuple[str, str] | None:
    if len(text) > _TOKEN_CHARS or not text.isascii():
        return None
    try:
        plain = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except (BadBase64, UnicodeDecodeError):
        return None
    match = _TOKEN.fullmatch(plain)
    return (match["session"], match["secret"]) if match else None
