"""Finds the field of a value that does not fit its schema, to name it in an error.

Encoding refuses the same values without saying why; this is slow, and needed only then.
"""

import reprlib
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from medianode.engines.mediasoup.flatbuffers_types import (
    DEEPEST,
    SCALARS,
    Enum,
    Field,
    Scalar,
    String,
    Table,
    Type,
    Union,
)


class EncodeError(ValueError):
    """A value does not fit the schema; the text names the field by its path."""


def refuse_misfit(table: Table, value: Any, path: str = "", levels: int = DEEPEST) -> None:
    """Raises `EncodeError` for the first field of a table that does not fit. `path` leads to the table."""
    path = path or table.name
    if not isinstance(value, Mapping):
        _refuse(path, f"a dict is needed, not {type(value).__name__}")
    if not levels:
        _refuse(path, f"tables are nested deeper than {DEEPEST}")
    for name in value:
        if name not in table.fields:
            _refuse(path, f"there is no field {_shown(name)}")
    for name, field in table.fields.items():
        item, place = value.get(name), f"{path}.{name}"
        if item is None and field.required:
            _refuse(place, "required, but absent")
        elif item is not None and field.vector:
            _refuse_vector(field, item, place, levels)
        elif item is not None:
            _refuse_one(field.type, item, place, levels)


def _refuse_vector(field: Field, items: Any, path: str, levels: int) -> None:
    if type(items) is bytes and field.type == SCALARS["uint8"]:
        return
    if type(items) is not list:
        _refuse(path, f"a list is needed, not {type(items).__name__}")
    for index, item in enumerate(items):
        _refuse_one(field.type, item, f"{path}[{index}]", levels)


def _refuse_one(type_: Type, item: Any, path: str, levels: int) -> None:
    match type_:
        case Table():
            refuse_misfit(type_, item, path, levels - 1)
        case Union():
            if type(item) is not tuple or len(item) != 2 or not isinstance(item[0], str):
                _refuse(path, f"a pair of the member's name and a dict is needed, not {_shown(item)}")
            if item[0] not in type_.members:
                _refuse(path, f"{type_.name} has no member {_shown(item[0])}")
            table = type_.members[item[0]]
            refuse_misfit(table, item[1], table.name, levels - 1)
        case Enum():
            if not isinstance(item, str) or item not in type_.numbers:
                _refuse(path, f"{type_.name} has no {_shown(item)}")
        case String():
            _refuse_string(item, path)
        case Scalar():
            _refuse_scalar(type_, item, path)


def _refuse_string(item: Any, path: str) -> None:
    if not isinstance(item, str):
        _refuse(path, f"a str is needed, not {type(item).__name__}")
    try:
        item.encode()
    except UnicodeEncodeError as error:
        _refuse(path, f"not encodable: {error.reason}")


def _refuse_scalar(scalar: Scalar, item: Any, path: str) -> None:
    wanted = scalar.python_type
    if type(item) is not wanted and not (wanted is float and type(item) is int):
        _refuse(path, f"a value of the type {wanted.__name__} is needed, not {type(item).__name__}")
    try:
        struct.pack("<" + scalar.char, item)
    except (struct.error, OverflowError):
        _refuse(path, f"{_shown(item)} does not fit {scalar.name}")


def _refuse(path: str, problem: str) -> NoReturn:
    raise EncodeError(f"{path}: {problem}")


def _shown(item: object) -> str:
    try:
        return reprlib.repr(item)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"this {type(item).__name__}"
