"""Values for tables of FlatBuffers: Hypothesis makes them from the schema, and the expected decoded form of each."""

import functools
import math
from typing import Any

from hypothesis import strategies as st

from medianode.engines.mediasoup.flatbuffers_types import SCALARS, Enum, Field, Scalar, String, Table, Type, Union

LEVELS = 6
"""Tables within one another that are made at most, unless required fields need more."""


@functools.cache
def levels_needed(table: Table, within: tuple[Table, ...] = ()) -> float:
    """The least number of tables within one another in a value of `table`; infinite if it cannot end."""
    if table in within:
        return math.inf
    within = (*within, table)
    needed = 0.0
    for field in table.fields.values():
        if field.required and not field.vector:
            match field.type:
                case Table():
                    needed = max(needed, levels_needed(field.type, within))
                case Union():
                    needed = max(needed, min(levels_needed(member, within) for member in field.type.members.values()))
    return 1 + needed


def smallest(table: Table) -> dict[str, Any]:
    """Returns the value of a table with as little as possible."""
    return {name: _smallest_field(field) for name, field in table.fields.items() if field.required}


def _smallest_field(field: Field) -> Any:
    match field.type:
        case _ if field.vector:
            return []
        case Table():
            return smallest(field.type)
        case Union():
            members = field.type.members
            name = min(members, key=lambda member: levels_needed(members[member]))
            return name, smallest(members[name])
        case _:
            return ""


def values(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """Values that fit the table, with every field present, absent and None."""
    return _table(table, LEVELS)


@functools.cache
def _table(table: Table, levels: int) -> st.SearchStrategy[dict[str, Any]]:
    required, optional = {}, {}
    for field in table.fields.values():
        strategy = _field(field, levels - 1)
        if field.required:
            assert strategy is not None, field
            required[field.name] = strategy
        elif strategy is not None:
            optional[field.name] = st.none() | strategy
    return st.fixed_dictionaries(required, optional=optional)


def _field(field: Field, levels: int) -> st.SearchStrategy[Any] | None:
    if not field.vector:
        return _one(field.type, levels, required=field.required)
    if field.type == SCALARS["uint8"]:
        return st.binary(max_size=9) | st.lists(st.integers(0, 255), max_size=9)
    element = _one(field.type, levels)
    return st.builds(list) if element is None else st.lists(element, max_size=4)


def _one(type_: Type, levels: int, required: bool = False) -> st.SearchStrategy[Any] | None:
    """Returns None if the type needs more tables within one another than `levels`, and is not required."""
    match type_:
        case Scalar():
            return _scalar(type_)
        case String():
            return st.text(max_size=20)
        case Enum():
            return st.sampled_from(list(type_.numbers))
        case Table():
            return _table(type_, levels) if required or levels_needed(type_) <= levels else None
        case Union():
            needed = {name: levels_needed(table) for name, table in type_.members.items()}
            allowed = max(levels, min(needed.values())) if required else levels
            members = [
                _table(table, levels).map(functools.partial(_pair, name))
                for name, table in type_.members.items()
                if needed[name] <= allowed
            ]
            return st.one_of(members) if members else None


def _pair(name: str, value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, value


def _scalar(scalar: Scalar) -> st.SearchStrategy[Any]:
    if scalar.python_type is bool:
        return st.booleans()
    if scalar.python_type is float:
        return st.floats(width=32 if scalar.size == 4 else 64)
    least, most = scalar.range[0], scalar.range[-1]
    return st.sampled_from([least, most]) | st.integers(least, most)


def expected(table: Table, value: dict[str, Any]) -> dict[str, Any]:
    """Returns what `value` is after encoding and decoding."""
    found: dict[str, Any] = {}
    for name, field in table.fields.items():
        item = value.get(name)
        if item is None:
            if field.default is not None:
                found[name] = field.default
        elif field.vector and field.type == SCALARS["uint8"]:
            found[name] = bytes(item)
        elif field.vector:
            found[name] = [_expected_one(field.type, element) for element in item]
        else:
            found[name] = _expected_one(field.type, item)
    return found


def _expected_one(type_: Type, item: Any) -> Any:
    match type_:
        case Table():
            return expected(type_, item)
        case Union():
            name, value = item
            return name, expected(type_.members[name], value)
    return item


def comparable(value: Any) -> Any:
    """Returns the value with something in place of NaN that is equal to itself."""
    match value:
        case dict():
            return {name: comparable(item) for name, item in value.items()}
        case list() | tuple():
            return [comparable(item) for item in value]
        case float() if math.isnan(value):
            return "NaN"
    return value
