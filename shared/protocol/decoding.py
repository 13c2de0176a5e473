"""Decoding of JSON from outside: a `BadPayload` whose reason names the field, instead of msgspec's exceptions."""

import re
from typing import Final, TypeVar

import msgspec

from shared.errors import BadPayload

T = TypeVar("T")

_VALIDATION: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(?P<field>[^`]+)`")


def decode_json(decoder: msgspec.json.Decoder[T], data: bytes, name: str = "data") -> T:
    """Raises `BadPayload`: its reason names the field, or `name` if the whole is not valid JSON."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as invalid:
        raise BadPayload(explain(invalid)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise BadPayload(f"{name}: not valid JSON ({broken})") from None


def explain(invalid: msgspec.ValidationError) -> str:
    """`id: expected int, got str` from msgspec's wording."""
    match = _VALIDATION.match(str(invalid))
    assert match is not None
    what, path = match["what"].replace("`", ""), match["path"] or ""
    what = what.removeprefix("Object ")
    if missing := _MISSING.search(str(invalid)):
        return f"{path + '.' if path else ''}{missing['field']}: missing"
    if path == "method" and what.startswith("Invalid value"):
        return f"method: unknown method {what.removeprefix('Invalid value ')}"
    return f"{path or 'data'}: {what[:1].lower()}{what[1:]}"
