"""Describes the types of a FlatBuffers schema: tables with their fields, unions, enums, strings and scalars."""

from dataclasses import dataclass, field
from struct import calcsize
from typing import Final, TypeAlias


@dataclass(frozen=True)
class Scalar:
    """A number or a bool. `char` is its format for `struct`."""

    name: str
    char: str

    @property
    def size(self) -> int:
        """Bytes that a value takes in a buffer."""
        return calcsize("<" + self.char)

    @property
    def python_type(self) -> type[bool | int | float]:
        return bool if self.char == "?" else float if self.char in "fd" else int

    @property
    def range(self) -> range:
        """All values of an integer."""
        bits = 8 * self.size
        return range(-(1 << bits - 1), 1 << bits - 1) if self.char.islower() else range(1 << bits)


@dataclass(frozen=True)
class String:
    """Text in UTF-8."""


@dataclass(frozen=True, eq=False)
class Enum:
    """Names for numbers, which are stored as `scalar`. `numbers` maps a name to its number, `names` the reverse."""

    name: str
    scalar: Scalar
    numbers: dict[str, int]
    names: dict[int, str]


@dataclass(frozen=True, eq=False)
class Union:
    """One of several tables. `members` maps the name of a member to its table; the first has the tag 1."""

    name: str
    members: dict[str, "Table"] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Table:
    """An object whose fields may be absent. `fields` maps the name of a field to it, in the order of the schema."""

    name: str
    fields: dict[str, "Field"] = field(default_factory=dict, repr=False)


Type: TypeAlias = Scalar | String | Enum | Table | Union


@dataclass(frozen=True, eq=False)
class Field:
    """A field of a table; a vector of `type` if `vector` is set.

    `slot` is the index of the field in vtables. A union has the slot before it as well, for the tag of its member.
    `default` is the value of an absent scalar or enum; None if such a field is absent in the decoded value, too.
    """

    name: str
    type: Type
    slot: int
    vector: bool = False
    required: bool = False
    default: bool | int | float | str | None = None

    @property
    def inline(self) -> Scalar | None:
        """The scalar that the table itself contains; None if it contains the offset of the value instead."""
        scalar = self.type.scalar if isinstance(self.type, Enum) else self.type
        return scalar if isinstance(scalar, Scalar) and not self.vector else None


SCALARS: Final = {
    alias: Scalar(name, char)
    for char, name, *others in (
        ("?", "bool"), ("B", "uint8", "ubyte"), ("b", "int8", "byte"), ("H", "uint16", "ushort"),
        ("h", "int16", "short"), ("I", "uint32", "uint"), ("i", "int32", "int"), ("Q", "uint64", "ulong"),
        ("q", "int64", "long"), ("f", "float32", "float"), ("d", "float64", "double"),
    )
    for alias in (name, *others)
}  # fmt: skip
"""The scalars by all their names in schemas."""
OFFSET: Final = SCALARS["uint32"]
TAG: Final = SCALARS["uint8"]
STRING: Final = String()
DEEPEST: Final = 64
"""Tables within one another, as in Google's verifier."""


@dataclass(frozen=True)
class Types:
    """All types of a folder of schemas, by their full names, such as `FBS.Message.Message`."""

    tables: dict[str, Table]
    unions: dict[str, Union]
    enums: dict[str, Enum]
