"""protoo frames: what a WebSocket carries, a JSON object each, with the messages of `client` inside.

Frames from clients are taken apart without touching their data; frames to clients are made whole here, once for
all who receive them.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared.errors import PlenaryError
from shared.protocol.client import SESSION, AnyAnswer, ToClient


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame from a client, its data untouched. Exactly one of the three flags is set in a valid frame."""

    request: bool = False
    response: bool = False
    notification: bool = False
    id: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    method: str = ""
    data: Raw = Raw(b"{}")
    cseq: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None


class SessionInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Data of `session`, the only notification that a resumable session's own working needs. Never numbered.

    The first frame of a new session has `token` and `graceSeconds`. That of a resumed one has `in`, the last of the
    client's numbers that is kept: it goes on with the next. `resumed` false in answer to a resumption: the session is
    gone. Later ones have `ack`, the last of the client's numbers that is applied: sent now and then, and at once when
    the client sends a `session` notification itself, by which it learns that the connection is alive.
    """

    resumed: bool | UnsetType = UNSET
    token: str | UnsetType = UNSET
    grace_seconds: float | UnsetType = msgspec.field(default=UNSET, name="graceSeconds")
    in_: int | UnsetType = msgspec.field(default=UNSET, name="in")
    ack: int | UnsetType = UNSET


class _Answer(msgspec.Struct, frozen=True, gc=False):
    response: bool
    id: int
    ok: bool
    data: Any


class _Error(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    response: bool
    id: int
    error_code: int
    error_reason: str


class _Notification(msgspec.Struct, frozen=True, gc=False):
    notification: bool
    method: str
    data: Any


_encode = msgspec.json.Encoder().encode
_NOTIFICATION_HEAD: Final = b'{"notification":true,"method":"mediasoup-notification","data":'


def answer_frame(id_: int, answer: AnyAnswer) -> bytes:
    return _encode(_Answer(response=True, id=id_, ok=True, data=answer))


def error_frame(id_: int, failure: PlenaryError) -> bytes:
    return _encode(_Error(response=True, id=id_, error_code=failure.code, error_reason=failure.reason))


def notification_frame(notification: ToClient) -> bytes:
    """A mediasoup notification as a protoo frame, with the specification's `target` and `notification`."""
    body = _encode(notification)
    head, comma, rest = body.partition(b",")
    if not comma:  # a notification without fields: {"method":"closed"}
        head, rest = body[:-1], b"}"
    else:
        rest = b"," + rest
    return b"".join((_NOTIFICATION_HEAD, head, b',"target":"peer","notification":true', rest, b"}"))


def message_frame(data: Raw, sender: str | None) -> bytes:
    """The protoo notification `message` {from, data}; without `from` it is the application's server that speaks."""
    head = b'{"notification":true,"method":"message","data":{'
    origin = b"" if sender is None else b'"from":' + _encode(sender) + b","
    return b"".join((head, origin, b'"data":', bytes(data), b"}}"))


def session_frame(info: SessionInfo) -> bytes:
    return _encode(_Notification(notification=True, method=SESSION, data=info))


def protocol_error_frame(failure: PlenaryError) -> bytes:
    """For a frame so broken that it has no id to answer to: the protoo notification `error`."""
    data = {"errorCode": failure.code, "errorReason": failure.reason}
    return _encode(_Notification(notification=True, method="error", data=data))
