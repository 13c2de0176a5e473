"""Encodes and decodes protoo frames: the JSON objects of a WebSocket, with the messages of `client` inside.

Frames from clients are decoded without touching their data; frames to clients are encoded here, once for all their
receivers.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared.errors import PlenaryError
from shared.protocol.client import SESSION, AnyAnswer, ToClient

METHOD_CHARS: Final = 100
"""Characters of a protoo method; the longest known has 22."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A frame from a client, its data untouched. Exactly one of the three flags is set in a valid frame."""

    request: bool = False
    response: bool = False
    notification: bool = False
    id: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    method: Annotated[str, Meta(max_length=METHOD_CHARS)] = ""
    data: Raw = Raw(b"{}")
    cseq: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None


class SessionInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The data of the notification `session`, which is about the resumable session itself and is never numbered.

    The first frame of a new session has `token` and `graceSeconds`. The first frame of a resumed session has `in`,
    the last of the client's numbers that is kept: the client continues with the next. `resumed` false answers a
    resumption of a session that is closed. Later frames have `ack`, the last of the client's numbers that is applied:
    sent from time to time, and at once when the client sends a `session` notification itself, by which it learns
    that the connection is alive.
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
    """Returns the response to request `id_`."""
    return _encode(_Answer(response=True, id=id_, ok=True, data=answer))


def error_frame(id_: int, failure: PlenaryError) -> bytes:
    """Returns the error response to request `id_`."""
    return _encode(_Error(response=True, id=id_, error_code=failure.code, error_reason=failure.reason))


def notification_frame(notification: ToClient) -> bytes:
    """Returns a mediasoup notification as a protoo frame, with the specification's `target` and `notification`."""
    body = _encode(notification)
    head, comma, rest = body.partition(b",")
    if not comma:  # a notification without fields: {"method":"closed"}
        head, rest = body[:-1], b"}"
    else:
        rest = b"," + rest
    return b"".join((_NOTIFICATION_HEAD, head, b',"target":"peer","notification":true', rest, b"}"))


def message_frame(data: Raw, sender: str | None) -> bytes:
    """Returns the protoo notification `message` {from, data}.

    Without `from` the sender is the application's server.
    """
    head = b'{"notification":true,"method":"message","data":{'
    origin = b"" if sender is None else b'"from":' + _encode(sender) + b","
    return b"".join((head, origin, b'"data":', bytes(data), b"}}"))


def session_frame(info: SessionInfo) -> bytes:
    """Returns the protoo notification `session`."""
    return _encode(_Notification(notification=True, method=SESSION, data=info))


def protocol_error_frame(failure: PlenaryError) -> bytes:
    """Returns the protoo notification `error`, for a frame so malformed that it has no id to answer to."""
    data = {"errorCode": failure.code, "errorReason": failure.reason}
    return _encode(_Notification(notification=True, method="error", data=data))
