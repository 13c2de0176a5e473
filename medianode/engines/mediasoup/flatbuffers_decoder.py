"""Decodes FlatBuffers by their schema; `flatbuffers_codec` explains the layout of a buffer.

The tables of one type have few different vtables. When a vtable is first seen, what it says is checked (the places
of the fields, and whether required ones are absent), and a function is made that reads the tables with this vtable.
For a table `Score` with the fields `encoding_idx: uint32`, `ssrc: uint32`, `rid: string` and `score: uint8`, of
which the last is absent, it is:

    def decode(_buffer, _at, _levels):
        SPEND(_buffer, 12)
        rid, ssrc, encoding_idx, = UNPACK(_buffer.content, _at)
        return {
            'encoding_idx': encoding_idx,
            'ssrc': ssrc,
            'rid': READ_rid(_buffer, _at + 4 + rid, _levels),
            'score': 0,
        }

What reads a field is called with its position, and with how many tables it may contain within one another. For what
lies beyond the end of the buffer it raises `struct.error` or `IndexError`, otherwise `DecodeError`.
"""

import struct
from collections.abc import Callable
from functools import cached_property
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from medianode.engines.mediasoup.flatbuffers_types import (
    DEEPEST,
    OFFSET,
    TAG,
    Enum,
    Field,
    Scalar,
    String,
    Table,
    Union,
)

# The work is bounded by values that are made, the fields of tables and the elements of vectors. A block that is
# referred to once becomes fewer values than it has bytes. The rest is for defaults of absent fields, and for equal
# strings that were written once.
_VALUES_PER_BYTE: Final = 2
_FREE_VALUES: Final = 256
_VALUES_PER_TABLE: Final = 8
"""Values that a dict counts as, beside those in it."""
_BYTES_PER_VALUE: Final = 16
"""Bytes of a string that count as one value."""
_NEW_VTABLES: Final = 256
"""Vtables in one buffer that were not seen before; each takes a third of a millisecond."""
_KEPT_VTABLES: Final = 256
"""Vtables of one table that are remembered. An engine leaves fields out that are 0, so that there are dozens."""

_UINT16: Final = Struct("<H").unpack_from
_INT32: Final = Struct("<i").unpack_from
_UINT32: Final = Struct("<I").unpack_from


class DecodeError(ValueError):
    """A buffer is malformed or does not fit the schema."""


class _Buffer:
    """The bytes, and how much may still be made of them."""

    __slots__ = ("content", "new_vtables_left", "values_left")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.values_left = _FREE_VALUES + _VALUES_PER_BYTE * len(content)
        self.new_vtables_left = _NEW_VTABLES


_Read: TypeAlias = Callable[[_Buffer, int, int], Any]


class Decoder:
    """Decodes tables; keeps the functions it has made for them."""

    def __init__(self) -> None:
        self._readers: dict[Table, _TableReader] = {}

    def decode(self, table: Table, content: bytes) -> dict[str, Any]:
        """Returns the root table of a buffer. Raises `DecodeError`."""
        try:
            value: dict[str, Any] = self.reader(table).read(_Buffer(content), _UINT32(content, 0)[0], DEEPEST)
        except (struct.error, IndexError) as error:
            raise DecodeError(f"{table.name}: something lies beyond the end of the buffer: {error}") from error
        return value

    def reader(self, table: Table) -> "_TableReader":
        """Returns what reads a table."""
        if table not in self._readers:
            self._readers[table] = _TableReader(self, table)
        return self._readers[table]

    def helpers(self, field: Field) -> dict[str, Any]:
        """Returns what the function of a table calls for a field, by its name there."""
        read: Callable[..., Any] | None = None
        match field.type:
            case Scalar(char="B") if field.vector:
                read = _read_bytes
            case Scalar() as scalar if field.vector:
                read = _scalar_vector(scalar)
            case Enum() as enum if field.vector:
                read = _enum_vector(_Names(enum), enum.scalar.char)
            case String():
                read = _vector(_read_string) if field.vector else _read_string
            case Table() as table:
                read = self.reader(table).read
                read = _vector(read) if field.vector else read
            case Union() as union:
                read = self._union(union)
            case Enum() as enum:
                return {f"NAME_{field.name}": _Names(enum)}
            case _:
                return {}
        return {f"READ_{field.name}": read}

    def _union(self, union: Union) -> Callable[[_Buffer, int, int, int], tuple[str, dict[str, Any]]]:
        members = {
            tag: (name, self.reader(table).read) for tag, (name, table) in enumerate(union.members.items(), start=1)
        }

        def read_union(buffer: _Buffer, at: int, levels: int, tag: int) -> tuple[str, dict[str, Any]]:
            if tag not in members:
                raise DecodeError(f"{union.name} at {at}: there is no member {tag}")
            name, read = members[tag]
            return name, read(buffer, at, levels)

        return read_union


class _Names(dict[int, str]):
    """The names of an enum by their numbers."""

    def __init__(self, enum: Enum) -> None:
        super().__init__(enum.names)
        self._enum = enum.name

    def __missing__(self, number: int) -> NoReturn:
        raise DecodeError(f"{self._enum} has no {number}")


class _TableReader:
    """Reads the tables of one type."""

    def __init__(self, decoder: Decoder, table: Table) -> None:
        self._decoder = decoder
        self._table = table
        self._functions: dict[bytes, _Read] = {}

    @cached_property
    def _helpers(self) -> dict[str, Any]:
        """What the functions call, by its name there."""
        helpers: dict[str, Any] = {"SPEND": _spend}
        for field in self._table.fields.values():
            helpers |= self._decoder.helpers(field)
        return helpers

    def read(self, buffer: _Buffer, at: int, levels: int) -> Any:
        """Returns the table at a position, as a dict."""
        if not levels:
            self._refuse(at, f"tables are nested deeper than {DEEPEST}")
        content = buffer.content
        start = at - _INT32(content, at)[0]
        if start < 0:
            self._refuse(at, "its vtable lies before the buffer")
        vtable = content[start : start + _UINT16(content, start)[0]]
        decode = self._functions.get(vtable)
        if decode is None:
            decode = self._add_function(buffer, at, vtable)
        return decode(buffer, at, levels - 1)

    def _refuse(self, at: int, problem: str) -> NoReturn:
        raise DecodeError(f"{self._table.name} at {at}: {problem}")

    def _add_function(self, buffer: _Buffer, at: int, vtable: bytes) -> _Read:
        buffer.new_vtables_left -= 1
        if buffer.new_vtables_left < 0:
            self._refuse(at, "there are too many vtables of which none was seen before")
        size, places = self._places(at, vtable)
        cells, entries = self._contents(at, places)
        names = {**self._helpers, "UNPACK": Struct(self._format(at, cells, size)).unpack_from}
        exec(function_source(cells, entries), names)  # noqa: S102 - all names in it are checked by the schema's parser
        if len(self._functions) >= _KEPT_VTABLES:
            self._functions.clear()
        function: _Read = names["decode"]
        self._functions[vtable] = function
        return function

    def _places(self, at: int, vtable: bytes) -> tuple[int, dict[int, int]]:
        """Returns the size of a table, and where in it the fields lie, by their slots."""
        if len(vtable) < 4 or len(vtable) % 2:
            self._refuse(at, "its vtable has an impossible length")
        length, size, *places = struct.unpack(f"<{len(vtable) // 2}H", vtable)
        if length != len(vtable):
            self._refuse(at, "its vtable lies beyond the end of the buffer")
        return size, {slot: place for slot, place in enumerate(places) if place}

    def _contents(self, at: int, places: dict[int, int]) -> tuple[list["_Cell"], dict[str, str]]:
        """Returns the cells of a table, and the expressions for the fields of the decoded dict."""
        cells: list[_Cell] = []
        entries: dict[str, str] = {}
        for field in self._table.fields.values():
            name, place = field.name, places.pop(field.slot, 0)
            is_union = isinstance(field.type, Union)
            tag_place = places.pop(field.slot - 1, 0) if is_union else 0
            if tag_place:
                cells.append(_Cell(tag_place, TAG.char, f"_tag_{name}"))
            if place:
                cells.append(_Cell(place, (field.inline or OFFSET).char, name))
            if is_union and bool(place) != bool(tag_place):
                self._refuse(at, f"{name} has a tag without a value or a value without a tag")
            if field.required and not place:
                self._refuse(at, f"{name} is required, but absent")
            if not place and field.default is not None:
                entries[name] = repr(field.default)
            elif place and field.inline:
                entries[name] = f"NAME_{name}[{name}]" if isinstance(field.type, Enum) else name
            elif place:
                tag = f", _tag_{name}" if is_union else ""
                entries[name] = f"READ_{name}(_buffer, _at + {place} + {name}, _levels{tag})"
        if places:
            self._refuse(at, "its vtable has fields that the schema does not know")
        return cells, entries

    def _format(self, at: int, cells: list["_Cell"], size: int) -> str:
        """Sorts the cells by their places, and returns the format for `struct` of the whole table."""
        cells.sort()
        chars, end = "<4x", 4
        for place, char, variable in cells:
            if place < end:
                self._refuse(at, f"{variable} overlaps what lies before it")
            chars += f"{place - end}x{char}"
            end = place + struct.calcsize("<" + char)
        if end > size:
            self._refuse(at, "a field lies beyond its end")
        return f"{chars}{size - end}x"


class _Cell(NamedTuple):
    """A place in a table, its format, and the local variable of the function that gets its content."""

    place: int
    char: str
    variable: str


def function_source(cells: list[_Cell], entries: dict[str, str]) -> str:
    """Returns the source of the function that decodes a table.

    The names of fields are in lower case and do not begin with an underscore, and so cannot hide the other names.
    """
    variables = "".join(f"{cell.variable}, " for cell in cells)
    return "\n".join(
        [
            "def decode(_buffer, _at, _levels):",
            f"    SPEND(_buffer, {_VALUES_PER_TABLE + len(entries)})",
            f"    {variables or '_ '}= UNPACK(_buffer.content, _at)",
            "    return {",
            *(f"        {name!r}: {expression}," for name, expression in entries.items()),
            "    }",
        ]
    )


def _spend(buffer: _Buffer, values: int) -> None:
    buffer.values_left -= values
    if buffer.values_left < 0:
        raise DecodeError("the buffer refers to the same blocks too often")


def _read_string(buffer: _Buffer, at: int, levels: int) -> str:
    content = buffer.content
    end = at + 4 + _UINT32(content, at)[0]
    if content[end]:
        raise DecodeError(f"the string at {at} does not end with a zero byte")
    _spend(buffer, 1 + (end - at) // _BYTES_PER_VALUE)
    text = content[at + 4 : end]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace")


def _read_bytes(buffer: _Buffer, at: int, levels: int) -> bytes:
    content = buffer.content
    end = at + 4 + _UINT32(content, at)[0]
    if end > len(content):
        raise DecodeError(f"the vector at {at} ends beyond the buffer")
    _spend(buffer, 1 + (end - at) // _BYTES_PER_VALUE)
    return content[at + 4 : end]


def _unpack_vector(buffer: _Buffer, at: int, char: str) -> tuple[Any, ...]:
    count = _UINT32(buffer.content, at)[0]
    _spend(buffer, 1 + count)  # before memory is allocated for them
    return struct.unpack_from(f"<{count}{char}", buffer.content, at + 4)


def _scalar_vector(scalar: Scalar) -> _Read:
    return lambda buffer, at, levels: list(_unpack_vector(buffer, at, scalar.char))


def _enum_vector(names: _Names, char: str) -> _Read:
    return lambda buffer, at, levels: [names[number] for number in _unpack_vector(buffer, at, char)]


def _vector(read: _Read) -> _Read:
    """Returns what reads a vector of offsets, and by `read` the blocks that they lead to."""

    def read_vector(buffer: _Buffer, at: int, levels: int) -> list[Any]:
        values = []
        for offset in _unpack_vector(buffer, at, OFFSET.char):
            at += 4
            values.append(read(buffer, at + offset, levels))
        return values

    return read_vector
