"""Changes valid inputs into invalid ones: the same random generator makes the same change."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

HOSTILE_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -0.0, 1, -1, 1.0, 1.5, 255, 256, 65_535, 65_536, 2**31, 2**32, 2**53 - 1, 2**53, 2**63,
    2**64, -(2**63), 1e308, 10**400, "", " ", "0", "1", "\0", "\ud800", "\u202e", "é", "😀", "A" * 200, "__proto__",
    "../..", "{", [], {}, [[]], [None], {"": None}, [0] * 300, {"id": 1},
)  # fmt: skip
_BYTES: Final = (b"\0", b"\xff", b"\x80", b"\r\n", b"%", b"%00", b"\xc3", b'"', b"\\", b"\\u", b"[", b"{", b"," * 9)


def changed_bytes(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Returns `data` with one to four changes; `others` are inputs of the same kind to splice it with."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0 if changed:
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            case 2:
                del changed[at : at + rng.randint(1, 16)]
            case 3:
                changed[at:at] = rng.choice(_BYTES)
            case 4:
                changed[at:at] = changed[at : at + rng.randint(1, 64)] * rng.randint(1, 8)
            case 5:
                other = rng.choice(others)
                changed[at:] = other[rng.randrange(len(other) + 1) :]
            case _:
                changed[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(changed)


def changed_json(rng: Random, value: Any) -> Any:
    """Returns a JSON value with one to three parts of it replaced, removed, doubled or renamed."""
    for _ in range(rng.randint(1, 3)):
        value = _changed(rng, value)
    return value


def to_json(value: Any) -> str:
    """Encodes a value as clients do; lone surrogates are escaped."""
    return json.dumps(value, separators=(",", ":"))


def _changed(rng: Random, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(HOSTILE_VALUES)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match rng.randrange(6):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[rng.choice(("", "id", "Kind", "a" * 300, "é"))] = copy.pop(key)
        case 2 if isinstance(copy, list):
            copy += [copy[key]] * rng.randint(1, 50)
        case 3:
            copy[key] = rng.choice(HOSTILE_VALUES)
        case _:
            copy[key] = _changed(rng, copy[key])
    return copy
