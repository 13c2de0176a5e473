"""Encodes FlatBuffers by their schema; `flatbuffers_codec` explains the layout of a buffer.

A table is encoded by a function that is made for it at its first use. The function's parameters are the fields, so
that Python itself notices unknown and missing names. For a table `RtcpFeedback` with the fields `type: string
(required)` and `parameter: string` it is:

    def encode(*, type, parameter=None):
        _present = 0
        _end = 24
        type = STRING[type]
        _at_type = _end - 4
        _end += LEN(type)
        if parameter is None:
            parameter = NOTHING
            _at_parameter = 0
        else:
            parameter = STRING[parameter]
            _at_parameter = _end - 8
            _end += LEN(parameter)
            _present += 1
        return JOIN((PACK(-12, _at_type, _at_parameter, VTABLE[_present]), type, parameter))

The result is the table (12 bytes), its vtable (8 bytes; padded to 24 together) and the blocks that the table refers
to. `_end` is where the next block begins. An offset is that position minus the place of the offset itself, here 4 or
8.

The length of every block is a multiple of 8, and so is that of a frame. All numbers are therefore aligned, counted
from the length in front of the buffer, as Google's runtime does it, and also in a stream of frames.

A function raises whatever exception comes first if a value does not fit; `flatbuffers_validation` then finds the
field.
"""

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from medianode.engines.mediasoup.flatbuffers_types import (
    OFFSET,
    TAG,
    Enum,
    Field,
    Scalar,
    String,
    Table,
    Union,
)
from medianode.engines.mediasoup.flatbuffers_validation import EncodeError, refuse_misfit

_Encode: TypeAlias = Callable[..., bytes]
"""Encodes a table that is given as keyword arguments, or another type that is the only argument."""

_FRAME_HEAD: Final = Struct("<II")
_LENGTH: Final = Struct("<I")
_EMPTY_VECTOR: Final = bytes(8)
_HEAD_OF_ONE: Final = struct.pack("<II", 1, 4)
_KEPT_STRINGS: Final = 1024
_KEPT_STRING_BYTES: Final = 64
_REFUSALS: Final = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error)


class Encoder:
    """Encodes tables; keeps the functions it has made for them."""

    def __init__(self) -> None:
        self._functions: dict[Table, _Encode] = {}
        self._strings = _Strings()

    def encode(self, table: Table, value: Mapping[str, Any]) -> bytes:
        """Returns a frame with `value` as the root table. Raises `EncodeError`."""
        try:
            block = self.table_function(table)(**value)
            return _FRAME_HEAD.pack(4 + len(block), 4) + block
        except _REFUSALS as error:
            refuse_misfit(table, value)
            raise EncodeError(f"{table.name}: {error}") from error

    def table_function(self, table: Table) -> _Encode:
        """Returns the function of a table, which is made if there is none."""
        if table not in self._functions:
            made: dict[Table, _Encode] = {}
            self._make(table, made)
            self._functions.update(made)  # all are complete, or none is kept
        return self._functions[table]

    def _make(self, table: Table, made: dict[Table, _Encode]) -> _Encode:
        """Returns the function of a table; adds it to `made`, with those of the tables within, unless they exist."""
        known = self._functions.get(table) or made.get(table)
        if known:
            return known
        layout = TableLayout(table)
        vtables = _Vtables(layout)
        names: dict[str, Any] = {
            **_HELPERS,
            "STRING": self._strings,
            "PACK": layout.pack,
            "VTABLE": vtables if layout.bits else vtables[0],
        }
        exec(function_source(layout), names)  # noqa: S102 - all names in it are checked by the schema's parser
        function: _Encode = names["encode"]
        made[table] = function  # before those of the tables within, which may contain this one
        for field in table.fields.values():
            names |= self._helpers(field, made)
        return function

    def _helpers(self, field: Field, made: dict[Table, _Encode]) -> dict[str, Any]:
        """Returns what the function of a table calls for a field, by its name there."""
        match field.type:
            case Scalar(char="B") if field.vector:
                return {f"ENCODE_{field.name}": _encode_bytes}
            case Scalar() as scalar if field.vector:
                return {f"ENCODE_{field.name}": _scalar_vector(scalar)}
            case Enum() as enum if field.vector:
                return {f"ENCODE_{field.name}": _enum_vector(enum)}
            case String() if field.vector:
                return {f"ENCODE_{field.name}": _string_vector(self._strings)}
            case Table() as table:
                return {f"ENCODE_{field.name}": self._make(table, made)}
            case Union() as union:
                return {f"MEMBER_{field.name}": _Members(self, union)}
            case Enum() as enum:
                default = {} if field.default is None else {None: enum.numbers[str(field.default)]}
                return {f"NUMBER_{field.name}": {**default, **enum.numbers}}
            case _:
                return {}


class _Cell(NamedTuple):
    """A place in a table, and the local variable of the function that has what goes there."""

    variable: str
    slot: int
    scalar: Scalar
    bit: int
    """The bit of `_present` that says whether the vtable names the place; 0 if it always does."""


class TableLayout:
    """Where the fields of an encoded table lie. Absent fields leave their places unused: one format serves all."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.bits: dict[str, int] = {}
        """The fields whose absence can be seen, and their bits in `_present`."""
        cells = []
        for field in table.fields.values():
            if field.default is None and not field.required:
                self.bits[field.name] = 1 << len(self.bits)
            bit = self.bits.get(field.name, 0)
            if isinstance(field.type, Union):
                cells.append(_Cell(f"_tag_{field.name}", field.slot - 1, TAG, bit))
            variable = field.name if field.inline else f"_at_{field.name}"
            cells.append(_Cell(variable, field.slot, field.inline or OFFSET, bit))
        cells.sort(key=lambda cell: cell.scalar.size, reverse=True)  # then few gaps align them
        self.cells = cells
        self.places: dict[str, int] = {}
        chars, self.size = "<i", 4
        for cell in cells:
            gap = -self.size % cell.scalar.size
            self.places[cell.variable] = self.size + gap
            chars += f"{gap}x{cell.scalar.char}"
            self.size += gap + cell.scalar.size
        odd = self.size % 2  # the vtable that follows consists of uint16s
        self.size += odd
        self.slots = max((cell.slot for cell in cells), default=-1) + 1
        chars += f"{odd}x{4 + 2 * self.slots}s"
        padding = -struct.calcsize(chars) % 8
        packing = Struct(f"{chars}{padding}x")
        self.pack, self.end = packing.pack, packing.size


class _Vtables(dict[int, bytes]):
    """The vtables of a table by its present fields.

    They are at most 2ⁿ for n fields whose absence can be seen, and in practice the few combinations that are sent.
    """

    def __init__(self, layout: TableLayout) -> None:
        super().__init__()
        self._layout = layout

    def __missing__(self, present: int) -> bytes:
        layout = self._layout
        places = [0] * layout.slots
        for cell in layout.cells:
            if not cell.bit or cell.bit & present:
                places[cell.slot] = layout.places[cell.variable]
        vtable = struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), layout.size, *places)
        self[present] = vtable
        return vtable


class _Members(dict[str, tuple[int, _Encode]]):
    """The members of a union with their tags; their functions are made when they are needed."""

    def __init__(self, encoder: Encoder, union: Union) -> None:
        super().__init__()
        self._encoder = encoder
        self._union = union

    def __missing__(self, name: str) -> tuple[int, _Encode]:
        tag = 1 + list(self._union.members).index(name)
        self[name] = found = tag, self._encoder.table_function(self._union.members[name])
        return found


def function_source(layout: TableLayout) -> str:
    """Returns the source of the function that encodes a table.

    The names of fields are in lower case and do not begin with an underscore, and so cannot hide the other names.
    """
    fields = layout.table.fields.values()
    lines = []
    if layout.bits:
        lines.append("_present = 0")
    if not all(field.inline for field in fields):
        lines.append(f"_end = {layout.end}")
    for field in fields:
        lines += _scalar_lines(field, layout) if field.inline else _reference_lines(field, layout)
    arguments = [
        str(-layout.size),
        *(cell.variable for cell in layout.cells),
        "VTABLE[_present]" if layout.bits else "VTABLE",
    ]
    blocks = [f"PACK({', '.join(arguments)})", *(field.name for field in fields if not field.inline)]
    lines.append(f"return JOIN(({', '.join(blocks)}))" if len(blocks) > 2 else f"return {' + '.join(blocks)}")
    parameters = [field.name if field.required else f"{field.name}={field.default!r}" for field in fields]
    head = f"def encode({', '.join(['*', *parameters] if parameters else [])}):"
    return "\n    ".join([head, *lines])


def _scalar_lines(field: Field, layout: TableLayout) -> list[str]:
    name = field.name
    if isinstance(field.type, Enum):
        lines = [f"{name} = NUMBER_{name}[{name}]"]
    else:
        assert field.inline
        kind = field.inline.python_type.__name__.upper()
        lines = [f"if {name}.__class__ is not {kind}:", f"    {name} = CONVERT({name}, {kind}, {field.default!r})"]
    return _unless_absent(field, layout, [f"{name} = 0"], lines)


def _reference_lines(field: Field, layout: TableLayout) -> list[str]:
    name = field.name
    absent = [f"{name} = NOTHING", f"_at_{name} = 0"]
    match field.type:
        case Union():
            absent.append(f"_tag_{name} = 0")
            lines = [
                *_refuse_other_class(name, "TUPLE"),
                f"_member, {name} = {name}",
                f"_tag_{name}, _encode = MEMBER_{name}[_member]",
                f"{name} = _encode(**{name})",
            ]
        case String() if not field.vector:
            lines = [f"{name} = STRING[{name}]"]
        case Table() if field.vector:
            lines = [
                *_refuse_other_class(name, "LIST"),
                f"{name} = VECTOR([ENCODE_{name}(**_item) for _item in {name}])",
            ]
        case Table():
            lines = [f"{name} = ENCODE_{name}(**{name})"]
        case _:
            lines = [f"{name} = ENCODE_{name}({name})"]
    lines += [f"_at_{name} = _end - {layout.places[f'_at_{name}']}", f"_end += LEN({name})"]
    return _unless_absent(field, layout, absent, lines)


def _refuse_other_class(name: str, wanted: str) -> list[str]:
    return [f"if {name}.__class__ is not {wanted}:", "    raise TypeError"]


def _unless_absent(field: Field, layout: TableLayout, absent: list[str], lines: list[str]) -> list[str]:
    if field.name not in layout.bits:
        return lines
    lines = [*lines, f"_present += {layout.bits[field.name]}"]
    return [
        f"if {field.name} is None:",
        *(f"    {line}" for line in absent),
        "else:",
        *(f"    {line}" for line in lines),
    ]


def _convert(value: Any, wanted: type, default: Any) -> Any:
    """Returns the scalar for a value of another type than the wanted one. Raises `TypeError` if there is none."""
    if value is None:
        return default
    if wanted is float and value.__class__ is int:
        return float(value)
    raise TypeError


class _Strings(dict[str, bytes]):
    """The blocks of strings by their text; short ones are kept, because most of them return in every message."""

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        block = _padded(_LENGTH.pack(len(data)) + data + b"\0")
        if len(data) <= _KEPT_STRING_BYTES:
            if len(self) >= _KEPT_STRINGS:
                self.clear()
            self[text] = block
        return block


def _padded(block: bytes) -> bytes:
    return block + bytes(-len(block) % 8)


def _list(items: Any) -> list[Any]:
    if items.__class__ is not list:
        raise TypeError
    return items


def _typed(items: Any, types: set[type]) -> Any:
    if not types.issuperset(map(type, _list(items))):
        raise TypeError
    return items


def _encode_bytes(items: Any) -> bytes:
    if items.__class__ is not bytes:
        items = bytes(_typed(items, {int}))
    return _padded(_LENGTH.pack(len(items)) + items)


def _scalar_vector(scalar: Scalar) -> _Encode:
    types = {float, int} if scalar.python_type is float else {scalar.python_type}
    return lambda items: _pack_vector(_typed(items, types), scalar)


def _enum_vector(enum: Enum) -> _Encode:
    return lambda items: _pack_vector([enum.numbers[item] for item in _list(items)], enum.scalar)


def _pack_vector(items: list[Any], scalar: Scalar) -> bytes:
    return _padded(struct.pack(f"<I{len(items)}{scalar.char}", len(items), *items))


def _string_vector(strings: _Strings) -> _Encode:
    return lambda items: _join_vector([strings[item] for item in _list(items)])


@lru_cache(maxsize=64)
def _vector_head(count: int) -> Struct:
    return Struct(f"<I{count}I" + ("" if count % 2 else "4x"))


def _join_vector(blocks: list[bytes]) -> bytes:
    """Returns the vector of the offsets of blocks, and the blocks."""
    count = len(blocks)
    if count == 0:
        return _EMPTY_VECTOR
    if count == 1:
        return _HEAD_OF_ONE + blocks[0]
    head = _vector_head(count)
    offset = head.size - 4
    parts: list[Any] = [count]
    for block in blocks:
        parts.append(offset)
        offset += len(block) - 4
    return head.pack(*parts) + b"".join(blocks)


_HELPERS: Final = {
    "BOOL": bool,
    "INT": int,
    "FLOAT": float,
    "LIST": list,
    "TUPLE": tuple,
    "LEN": len,
    "JOIN": b"".join,
    "NOTHING": b"",
    "CONVERT": _convert,
    "VECTOR": _join_vector,
}
"""What the functions of all tables use."""
