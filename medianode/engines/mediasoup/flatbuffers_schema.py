"""Reads FlatBuffers schemas (`.fbs`): the tables, unions and enums that `flatbuffers_codec` encodes and decodes.

What the schemas of the engine use is understood: `namespace`, `include`, `root_type`, enums over integers, unions of
tables, and tables with scalars, strings, enums, tables, unions and vectors of all these but unions. Everything else
(structs, attributes other than `required`, vectors of 8-byte scalars …) is refused: a later version of the engine
that uses it is noticed when its schemas are read, and not by an engine that misunderstands.

The names of fields become names in generated Python, and only those that are fit for that are accepted.
"""

import keyword
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from medianode.engines.mediasoup.flatbuffers_types import (
    SCALARS,
    STRING,
    TAG,
    Enum,
    Field,
    Scalar,
    Table,
    Type,
    Types,
    Union,
)


class SchemaError(ValueError):
    """A schema contains what is not understood; the text names the file and the line."""


_TOKEN: Final = re.compile(
    r"""(?P<skipped>\s+|//[^\n]*|/\*.*?\*/)|"[^"\n]*"|[A-Za-z_][\w.]*|[-+]?[0-9][\w.]*|[{}()\[\]:;,=]""", re.DOTALL
)
_NAME: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class _Token:
    text: str
    place: str
    """File and line."""

    def refuse(self, problem: str) -> NoReturn:
        raise SchemaError(f"{self.place}: {problem}: {self.text!r}")


@dataclass(frozen=True)
class _Item:
    """What stands between two separators of a declaration: a field, a member of a union, or a value of an enum."""

    name: _Token
    type: _Token | None = None
    vector: bool = False
    required: bool = False
    default: _Token | None = None


@dataclass(frozen=True)
class _Declaration:
    kind: str
    namespace: str
    name: _Token
    underlying: _Token | None
    items: list[_Item]

    @property
    def full_name(self) -> str:
        return f"{self.namespace}.{self.name.text}" if self.namespace else self.name.text


class _Parser:
    """Divides one file into declarations; names of types are resolved later, when all files are read."""

    def __init__(self, path: Path) -> None:
        self._tokens = self._tokenize(path)
        self._next = next(self._tokens)
        self._namespace = ""

    @staticmethod
    def _tokenize(path: Path) -> Iterator[_Token]:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise SchemaError(f"{path.name}: {error}") from error
        at, line = 0, 1
        while at < len(text):
            place = f"{path.name}:{line}"
            match = _TOKEN.match(text, at) or _Token(text[at], place).refuse("unexpected character")
            if not match["skipped"]:
                yield _Token(match[0], place)
            at, line = match.end(), line + match[0].count("\n")
        yield _Token("", f"{path.name}:{line}")  # the end

    def _take(self, *expected: str) -> _Token:
        token = self._next
        if expected and token.text not in expected:
            token.refuse(f"expected {' or '.join(expected)}, found")
        self._next = next(self._tokens, token)
        return token

    def _take_if(self, text: str) -> bool:
        found = self._next.text == text
        if found:
            self._take()
        return found

    def _take_name(self, pattern: re.Pattern[str] = _NAME) -> _Token:
        token = self._take()
        if not pattern.fullmatch(token.text):
            token.refuse("not usable as a name")
        return token

    def declarations(self) -> Iterator[_Declaration]:
        while self._next.text:
            match self._take("include", "root_type", "namespace", "table", "enum", "union").text:
                case "include" | "root_type":
                    self._take()
                    self._take(";")
                case "namespace":
                    self._namespace = self._take().text
                    self._take(";")
                case kind:
                    yield self._declaration(kind)

    def _declaration(self, kind: str) -> _Declaration:
        name = self._take_name()
        underlying = None
        if kind == "enum":
            self._take(":")
            underlying = self._take()
        self._take("{")
        parse = {"table": self._field, "enum": self._enum_value, "union": self._member}[kind]
        items: list[_Item] = []
        while not self._take_if("}"):
            items.append(parse())
            if kind == "table":
                self._take(";")
            elif self._next.text != "}":
                self._take(",")
        seen: set[str] = set()
        for item in items:
            if item.name.text in seen:
                item.name.refuse("declared twice")
            seen.add(item.name.text)
        return _Declaration(kind, self._namespace, name, underlying, items)

    def _enum_value(self) -> _Item:
        return _Item(self._take_name(), default=self._take() if self._take_if("=") else None)

    def _member(self) -> _Item:
        name = self._take_name()
        return _Item(name, self._take() if self._take_if(":") else name)

    def _field(self) -> _Item:
        name = self._take_name(_FIELD_NAME)
        if keyword.iskeyword(name.text):
            name.refuse("not usable as a name")  # of a parameter, as the encoder does
        self._take(":")
        vector = self._take_if("[")
        type_ = self._take()
        if vector:
            self._take("]")
        default = self._take() if self._take_if("=") else None
        required = self._take_if("(")
        if required:
            self._take("required")
            self._take(")")
        return _Item(name, type_, vector, required, default)


def read_types(folder: Path) -> Types:
    """Reads every `.fbs` file of a folder.

    Raises `SchemaError` for what is not understood, and if there is no such file; `OSError` if one is unreadable.
    """
    declarations = [
        declaration for path in sorted(folder.glob("*.fbs")) for declaration in _Parser(path).declarations()
    ]
    if not declarations:
        raise SchemaError(f"no FlatBuffers schema in {folder}")
    return _Resolver(declarations).types


class _Resolver:
    """Makes the types of declarations that refer to one another by name."""

    def __init__(self, declarations: list[_Declaration]) -> None:
        self._known: dict[str, Table | Union | Enum] = {}
        for declaration in declarations:
            if declaration.full_name in self._known:
                declaration.name.refuse("declared twice")
            self._known[declaration.full_name] = self._declared(declaration)
        for declaration in declarations:
            type_ = self._known[declaration.full_name]
            if isinstance(type_, Table):
                self._fill_table(type_, declaration)
            elif isinstance(type_, Union):
                self._fill_union(type_, declaration)
        known = self._known.items()
        self.types = Types(
            {name: type_ for name, type_ in known if isinstance(type_, Table)},
            {name: type_ for name, type_ in known if isinstance(type_, Union)},
            {name: type_ for name, type_ in known if isinstance(type_, Enum)},
        )

    @staticmethod
    def _declared(declaration: _Declaration) -> Table | Union | Enum:
        """Returns the whole of an enum, or a table or union still without content."""
        full_name = declaration.full_name
        if declaration.kind == "table":
            return Table(full_name)
        if declaration.kind == "union":
            return Union(full_name)
        assert declaration.underlying is not None
        scalar = SCALARS.get(declaration.underlying.text)
        if scalar is None or scalar.python_type is not int:
            declaration.underlying.refuse("enums are over integers, not")
        numbers: dict[str, int] = {}
        following = 0
        for item in declaration.items:
            number = _integer(item.default, scalar) if item.default else following
            if number not in scalar.range or number in numbers.values():
                item.name.refuse(f"the number {number} is taken or does not fit {scalar.name}")
            numbers[item.name.text] = number
            following = number + 1
        return Enum(full_name, scalar, numbers, {number: name for name, number in numbers.items()})

    def _find(self, name: _Token, namespace: str) -> Type:
        """Looks a type up by its name, in a namespace and then in those around it."""
        if name.text in SCALARS:
            return SCALARS[name.text]
        if name.text == "string":
            return STRING
        parts = namespace.split(".") if namespace else []
        for count in range(len(parts), -1, -1):
            if found := self._known.get(".".join([*parts[:count], name.text])):
                return found
        return name.refuse("unknown type")

    def _fill_union(self, union: Union, declaration: _Declaration) -> None:
        for item in declaration.items:
            assert item.type is not None
            table = self._find(item.type, declaration.namespace)
            if not isinstance(table, Table):
                item.type.refuse("members of a union are tables, not")
            union.members[item.name.text] = table
        if len(union.members) not in TAG.range:
            declaration.name.refuse("too many members of union")

    def _fill_table(self, table: Table, declaration: _Declaration) -> None:
        slot = 0
        for item in declaration.items:
            assert item.type is not None
            type_ = self._find(item.type, declaration.namespace)
            if isinstance(type_, Union):
                slot += 1  # for the tag
            table.fields[item.name.text] = _field(item, type_, slot)
            slot += 1


def _field(item: _Item, type_: Type, slot: int) -> Field:
    scalar = type_.scalar if isinstance(type_, Enum) else type_
    if item.vector and (isinstance(type_, Union) or (isinstance(scalar, Scalar) and scalar.size == 8)):
        item.name.refuse("vectors of unions and of 8-byte scalars are not supported")
    if item.vector or not isinstance(scalar, Scalar):
        if item.default:
            item.default.refuse("only scalars and enums have a default")
        return Field(item.name.text, type_, slot, item.vector, item.required)
    if item.required:
        item.name.refuse("a scalar cannot be required")
    assert isinstance(type_, Scalar | Enum)
    return Field(item.name.text, type_, slot, default=_default(item, type_))


def _default(item: _Item, type_: Scalar | Enum) -> bool | int | float | str | None:
    token = item.default
    if token and token.text == "null":
        return None
    if isinstance(type_, Enum):
        name = token.text if token else type_.names.get(0)
        if name not in type_.numbers:
            (token or item.name).refuse(f"no default that {type_.name} contains")
        return name
    if type_.python_type is bool:
        if token and token.text not in ("true", "false"):
            token.refuse("neither true nor false")
        return token is not None and token.text == "true"
    if type_.python_type is int:
        return _integer(token, type_) if token else 0
    try:
        number = float(token.text) if token else 0.0
    except ValueError:
        number = math.nan
    if token and not math.isfinite(number):
        token.refuse("not a finite number")
    return number


def _integer(token: _Token, scalar: Scalar) -> int:
    try:
        number = int(token.text, 0)
    except ValueError:
        token.refuse("not an integer")
    if number not in scalar.range:
        token.refuse(f"does not fit {scalar.name}")
    return number
