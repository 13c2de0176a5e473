"""Decodes JSON from outside, with errors that name the field."""

import re
from typing import Final, TypeVar

import msgspec

from shared.errors import BadPayload

T = TypeVar("T")

DEPTH_LIMIT: Final = 64
"""Levels of arrays and objects in a message's data."""
WRAPPING: Final = 1
"""Levels that a frame, a body of the server API or an action adds around data."""

_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_VALIDATION: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]+)`")


def decode_json(decoder: msgspec.json.Decoder[T], data: bytes, name: str = "data") -> T:
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
    """Returns a reason such as `id: expected int, got str`, made from msgspec's wording."""
    match = _VALIDATION.match(str(invalid))
    assert match is not None
    what, path = match["what"].replace("`", ""), match["path"] or ""
    what = what.removeprefix("Object ")
    if missing := _MISSING.search(str(invalid)):
        return f"{path + '.' if path else ''}{missing['field']}: missing"
    if path == "method" and what.startswith("Invalid value"):
        return f"method: unknown method {what.removeprefix('Invalid value ')}"
    return f"{path or 'data'}: {what[:1].lower()}{what[1:]}"
