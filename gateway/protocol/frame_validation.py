"""Validates the envelope of a client's frame, without reading its data.

msgspec checks the JSON of `data` while it skips over it (bad escapes, lone surrogates, loose numbers), and
decoding the bytes as UTF-8 first checks the rest, so what is accepted here may be sent to browsers.
"""

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from shared.protocol.decoding import CONTAINERS_LIMIT, DEPTH_LIMIT, count_containers, explain, is_too_deep
from shared.protocol.protoo import Frame
from shared.protocol.whole_numbers import WholeNumberDecoder, whole_number

_decode = WholeNumberDecoder[Frame](Frame).decode


class RejectedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that is not forwarded: it is numbered, and answered with the error in its turn (DELIVERY I2)."""

    id: int
    code: int
    reason: str
    cseq: int | None = None


class MalformedFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame in which no request can be recognised: it is answered at once, without a number.

    If it is not even JSON (`is_json`), its `cseq` is unknown.
    """

    reason: str
    cseq: int | None = None
    is_json: bool = False


class RejectedNotification(msgspec.Struct, frozen=True, gc=False):
    """A notification that is not forwarded; its sender expects no answer."""

    code: int
    reason: str
    cseq: int | None = None


class Response(msgspec.Struct, frozen=True, gc=False):
    """A response, which answers nothing: the server sends no requests."""

    cseq: int | None = None


ValidationResult: TypeAlias = Frame | RejectedRequest | MalformedFrame | RejectedNotification | Response


class _LenientEnvelope(msgspec.Struct, gc=False):
    """The fields of an envelope that may be invalid, undecoded: each may be as large as the frame."""

    request: Raw = Raw(b"null")
    notification: Raw = Raw(b"null")
    id: Raw = Raw(b"null")
    cseq: Raw = Raw(b"null")


_decode_leniently = msgspec.json.Decoder(_LenientEnvelope).decode
_TRUE: Final = b"true"
_NUMBER_BYTES: Final = 32
"""A longer number is none of a frame or request."""


def validate(text: str, size: int, limit: int) -> ValidationResult:
    """Returns a `Frame` that may be forwarded, or what is wrong with it.

    `text` arrived as `size` bytes, of which at most `limit` are accepted.
    """
    try:
        frame = _decode(text)
    except msgspec.ValidationError as invalid:
        return _invalid_envelope(text, explain(invalid))
    except (msgspec.DecodeError, UnicodeError) as broken:
        return MalformedFrame(f"frame: not valid JSON ({broken})")
    except RecursionError:
        return MalformedFrame(f"frame: more than {DEPTH_LIMIT} levels deep")
    if frame.request + frame.response + frame.notification != 1:
        return _invalid_envelope(text, "frame: expected exactly one of request, response, notification")
    if frame.response:
        return Response(frame.cseq)
    if frame.request and frame.id is None:
        return MalformedFrame("id: missing", frame.cseq, is_json=True)
    if not frame.method:
        return _reject(frame, 400, "method: missing")
    if size > limit:
        return _reject(frame, 413, f"frame: {size} bytes, at most {limit} are accepted")
    if count_containers(text) > CONTAINERS_LIMIT:
        return _reject(frame, 413, f"data: more than {CONTAINERS_LIMIT} arrays and objects")
    if is_too_deep(text):
        return _reject(frame, 400, f"data: more than {DEPTH_LIMIT} levels deep")
    return frame


def skim(text: str) -> ValidationResult:
    """Returns what is to be known of a frame above the rate limit: the id of a request, and its `cseq`.

    The frame is not validated, and what is returned is no reason to refuse it: `rate_limited` makes one of it.
    """
    return _invalid_envelope(text, "")


def rate_limited(frame: ValidationResult) -> RejectedRequest | RejectedNotification:
    """Returns what a frame above the rate limit becomes: only requests are answered."""
    reason = "messages: too many a second"
    match frame:
        case Frame(request=True, id=int(id_)) | RejectedRequest(id=id_):
            return RejectedRequest(id_, 429, reason, frame.cseq)
        case _:
            return RejectedNotification(429, reason, frame.cseq)


def _reject(frame: Frame, code: int, reason: str) -> RejectedRequest | RejectedNotification:
    if frame.request:
        assert frame.id is not None
        return RejectedRequest(frame.id, code, reason, frame.cseq)
    return RejectedNotification(code, reason, frame.cseq)


def _invalid_envelope(text: str, reason: str) -> RejectedRequest | MalformedFrame | RejectedNotification:
    """Returns the result for valid JSON that is no frame; a request with a readable id is answered under that id."""
    try:
        fields = _decode_leniently(text)
    except msgspec.ValidationError:  # not an object
        return MalformedFrame(reason, is_json=True)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return MalformedFrame(reason)
    id_, cseq = _number(fields.id, 0), _number(fields.cseq, 1)
    is_request = bytes(fields.request) == _TRUE
    if is_request and id_ is not None:
        return RejectedRequest(id_, 400, reason, cseq)
    if not is_request and bytes(fields.notification) == _TRUE:
        return RejectedNotification(400, reason, cseq)
    return MalformedFrame(reason, cseq, is_json=True)


def _number(value: Raw, least: int) -> int | None:
    """Returns the number of a request or frame; None if it is none, or not from `least` to 2⁵³ - 1."""
    text = bytes(value)
    if len(text) > _NUMBER_BYTES:
        return None
    try:
        number = whole_number(msgspec.json.decode(text))
    except msgspec.DecodeError:  # as 1e400, which is no float
        return None
    return number if number is not None and least <= number < 2**53 else None
