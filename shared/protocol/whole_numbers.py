"""Takes whole numbers that are written as `48000.0` or `1e0`, as some clients' libraries write every number.

In JavaScript, for which the protocol was made, they are the same number.
"""

from functools import cache
from types import UnionType
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import UNSET

T = TypeVar("T")

_MOST: Final = 2**53 - 1
"""The largest number up to which every whole number has a `float` of its own."""
_FLOAT_FOR_INTEGER: Final = "got `float`"
"""A part of msgspec's error for a number with a fraction or an exponent where an integer is expected."""


def whole_number(value: object) -> int | None:
    """Returns a JSON number as an integer; None if it has a fraction or is no number (`true` is none)."""
    if type(value) is int:
        return value
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= _MOST else None


class WholeNumberDecoder(Generic[T]):
    """Decodes JSON as `msgspec.json.Decoder` does, and takes whole numbers in either form for integers.

    JSON in which integers are written as such is decoded once, as by msgspec. Other JSON is decoded twice more:
    strictly, with `float` in place of each `int`, so that no string and no boolean passes for a number; then by
    msgspec's lax rules, which make integers of whole numbers and refuse fractions.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._others: tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]] | None = None

    def decode(self, data: bytes | str) -> T:
        """Returns the decoded JSON. Raises what msgspec's decoder raises."""
        try:
            decoded: T = self._decode(data)
        except msgspec.ValidationError as invalid:
            if _FLOAT_FOR_INTEGER not in str(invalid):
                raise
            return self._decode_floats(data)
        return decoded

    def _decode_floats(self, data: bytes | str) -> T:
        if self._others is None:
            self._others = (
                msgspec.json.Decoder(_with_floats(self._kind)),
                msgspec.json.Decoder(self._kind, strict=False),
            )
        strict, lax = self._others
        strict.decode(data)
        decoded: T = lax.decode(data)
        return decoded


def _with_floats(kind: Any) -> Any:
    """Returns the type with `float` in place of each `int` in it, which includes the fields of structs."""
    if kind is int:
        return float
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_with_floats(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[(_with_floats(parts[0]), *parts[1:])]
    if origin in (Union, UnionType):
        return Union[tuple(_with_floats(part) for part in parts)]  # noqa: UP007 - the parts are known only here
    if origin in (list, dict):
        return origin[tuple(_with_floats(part) for part in parts)]
    return kind


@cache
def _struct_with_floats(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    config = kind.__struct_config__
    tagged: dict[str, Any] = {} if config.tag is None else {"tag": config.tag, "tag_field": config.tag_field}
    fields: list[tuple[str, Any, Any]] = [
        (
            field.name,
            _with_floats(field.type),
            msgspec.field(name=field.encode_name)
            if field.required
            else msgspec.field(default=UNSET, name=field.encode_name),
        )
        for field in msgspec.structs.fields(kind)
    ]
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, **tagged)
