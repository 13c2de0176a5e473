"""Decodes JSON from outside, with errors that name the field."""

import re
from itertools import accumulate
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
CONTAINERS_LIMIT: Final = 8192
"""Arrays and objects in a client's message, with the opening brackets in its strings."""

_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
"""A bracket as the signed byte by which it changes the level."""
_QUOTES: Final = (b'"' * 64, b'"' * 8, b'"' * 2)
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


def count_containers(text: str) -> int:
    """Returns the number of arrays and objects in JSON, or more if its strings have opening brackets."""
    return text.count("{") + text.count("[")


def is_too_deep(text: str) -> bool:
    """Whether valid JSON has more than `DEPTH_LIMIT` levels of arrays and objects within its outermost one."""
    return count_containers(text) > DEPTH_LIMIT and nesting_depth(text) > DEPTH_LIMIT + WRAPPING


def nesting_depth(text: str) -> int:
    """Returns the levels of arrays and objects in valid JSON.

    256 KiB take about a millisecond at most: no step is a loop over tokens, of which there may be as many as bytes,
    but for the last one, which `CONTAINERS_LIMIT` bounds.
    """
    brackets = _outside_strings(text)
    levels = 0
    # A deepest array or object is empty once all within the strings is gone, so each pass removes one level.
    while 2 * len(shorter := brackets.replace(b"[]", b"")) <= len(brackets) > 0:
        brackets, levels = shorter, levels + 1
    return levels + max(accumulate(memoryview(brackets.translate(_STEPS)).cast("b")), default=0)


def _outside_strings(text: str) -> bytes:
    """Returns the brackets of valid JSON that are not in strings, all of them square."""
    data = text.encode()
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = data.translate(_SQUARE, _NO_STRUCTURE)
    for quotes in _QUOTES:  # an even number of them changes nothing about what is in a string
        structure = structure.replace(quotes, b"")
    return b"".join(structure.split(b'"')[::2])


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
