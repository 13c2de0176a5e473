"""Decodes JSON from outside, with errors that name the field."""

import re
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import Raw

from shared.errors import BadPayload, TooLarge, cut

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

SIGNALING_BYTES: Final = 64 * 1024
"""Bytes of a request or notification, or of an action of the server API, without the fields that stay unparsed."""
DEPTH_LIMIT: Final = 64
"""Levels of arrays and objects in a message's data."""
WRAPPING: Final = 1
"""Levels that a frame, a body of the server API or an action adds around data."""

_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_VALIDATION: Final = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<field>[^`]+)`")

_decode_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class JsonDecoder(Protocol[T_co]):
    """A decoder as `decode_json` uses it: one of msgspec, or a `WholeNumberDecoder`."""

    def decode(self, data: bytes, /) -> T_co:
        """Returns the decoded JSON. Raises `msgspec.ValidationError`, or what msgspec raises for invalid JSON."""
        ...


def decode_json(decoder: JsonDecoder[T], data: bytes, name: str = "data") -> T:
    """Returns the decoded JSON.

    Raises `BadPayload`, whose reason names the field, or `name` if the whole is not valid JSON or nested too deeply.

    The levels are counted, because parsers raise RecursionError at another depth in each version of Python.
    """
    try:
        decoded = decoder.decode(data)
    except msgspec.ValidationError as invalid:
        raise BadPayload(explain(invalid)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadPayload(f"{name}: not valid JSON ({broken})") from None
    if data.count(b"{") + data.count(b"[") > DEPTH_LIMIT and is_too_deep(data.decode(errors="replace")):
        raise BadPayload(f"{name}: more than {DEPTH_LIMIT} levels deep")
    return decoded


def check_size(data: bytes, *unparsed: str, name: str = "data") -> None:
    """Checks a message before it is decoded: decoded JSON takes up to twenty times its length in memory.

    Raises `TooLarge`, naming the largest field, if the message has more than `SIGNALING_BYTES` without its fields
    `unparsed`, which have limits of their own; `BadPayload` if it is then no JSON object.
    """
    if len(data) <= SIGNALING_BYTES:
        return
    sizes = {field: len(value) for field, value in decode_json(_decode_fields, data, name).items()}
    if len(data) - sum(sizes.pop(field, 0) for field in unparsed) > SIGNALING_BYTES:
        largest = cut(max(sizes, key=lambda field: sizes[field], default=name))
        raise TooLarge(f"{largest}: the message has more than {SIGNALING_BYTES} bytes")


def is_too_deep(text: str) -> bool:
    """Whether valid JSON has more than `DEPTH_LIMIT` levels of arrays and objects within its outermost one."""
    return text.count("{") + text.count("[") > DEPTH_LIMIT and nesting_depth(text) > DEPTH_LIMIT + WRAPPING


def nesting_depth(text: str) -> int:
    """Levels of arrays and objects in valid JSON, counted up to a little more than `DEPTH_LIMIT`."""
    brackets = _STRING.sub("", text).encode().translate(_SQUARE, _NO_BRACKETS)
    for levels in range(DEPTH_LIMIT + 2 * WRAPPING):
        if not brackets:
            return levels
        brackets = brackets.replace(b"[]", b"")
    return DEPTH_LIMIT + 2 * WRAPPING


def explain(invalid: msgspec.ValidationError) -> str:
    """Returns a reason such as `id: expected int, got str`, made from msgspec's wording.

    msgspec repeats the value of an unknown name, whatever its length: it is cut.
    """
    text = str(invalid)
    match = _VALIDATION.match(text)
    assert match is not None
    what, path = cut(match["what"].replace("`", "").removeprefix("Object ")), cut(match["path"] or "")
    if missing := _MISSING.match(text):
        return f"{path + '.' if path else ''}{missing['field']}: missing"
    if path == "method" and what.startswith("Invalid value"):
        return f"method: unknown method {what.removeprefix('Invalid value ')}"
    return f"{path or 'data'}: {what[:1].lower()}{what[1:]}"
