"""Reads and writes FlatBuffers with Google's runtime and the Python code that its compiler `flatc` generates."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flatbuffers

from devtools.starting import Unavailable
from medianode.engines.mediasoup.flatbuffers_types import SCALARS, Enum, Field, String, Table, Type, Union


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # the package has no types
    """Writes equal strings once; equal vtables are written once by every builder."""

    def __init__(self) -> None:
        super().__init__(256)
        self._written: dict[str, int] = {}

    def CreateString(self, text: str) -> int:  # noqa: N802 - the generated code calls it
        if text not in self._written:
            self._written[text] = super().CreateString(text)
        return self._written[text]


class GoogleRuntime:
    """Converts between the values of the codec and generated objects, and between these and frames."""

    def object_of(self, table: Table, value: dict[str, Any]) -> Any:
        """Returns the generated object that has the fields of `value`."""
        made = self._class(table, "T")()
        for name, item in value.items():
            if item is None:
                continue
            field = table.fields[name]
            found = self._field(field, item, self._written)
            if isinstance(field.type, Union):
                member, found = found
                setattr(made, _camel(f"{name}_type"), member)
            setattr(made, _camel(name), found)
        return made

    def value_of(self, table: Table, found: Any) -> dict[str, Any]:
        """Returns the value that a generated object has in its fields."""
        value = {}
        for name, field in table.fields.items():
            item = getattr(found, _camel(name))
            if isinstance(field.type, Union):
                member = getattr(found, _camel(f"{name}_type"))
                item = (member, item) if member else None
            if item is not None:
                value[name] = self._field(field, item, self._read)
        return value

    @staticmethod
    def write(item: Any) -> bytes:
        """Returns a generated object as a frame."""
        builder = SharingBuilder()
        builder.FinishSizePrefixed(item.Pack(builder))
        return bytes(builder.Output())

    def read(self, table: Table, buffer: bytes) -> Any:
        """Returns the generated object for a buffer without its length."""
        return self._class(table, "T").InitFromObj(self._class(table).GetRootAs(buffer, 0))

    @staticmethod
    def _class(table: Table, suffix: str = "") -> Any:
        return getattr(importlib.import_module(table.name), table.name.rpartition(".")[2] + suffix)

    @staticmethod
    def _field(field: Field, item: Any, convert: Callable[[Type, Any], Any]) -> Any:
        if field.vector and field.type == SCALARS["uint8"]:
            return bytes(item)
        return [convert(field.type, element) for element in item] if field.vector else convert(field.type, item)

    def _written(self, type_: Type, item: Any) -> Any:
        match type_:
            case Enum():
                return type_.numbers[item]
            case Table():
                return self.object_of(type_, item)
            case Union():
                name, value = item
                return list(type_.members).index(name) + 1, self.object_of(type_.members[name], value)
            case _:
                return item

    def _read(self, type_: Type, item: Any) -> Any:
        match type_:
            case Enum():
                return type_.names[item]
            case String():
                return item.decode()
            case Table():
                return self.value_of(type_, item)
            case Union():
                name, table = list(type_.members.items())[item[0] - 1]
                return name, self.value_of(table, item[1])
            case _:
                return item


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@contextmanager
def google_runtime(schemas: Path, folder: Path) -> Iterator[GoogleRuntime]:
    """Generates code for a folder of schemas in `folder`, and makes it importable. Raises `Unavailable`."""
    flatc = shutil.which("flatc")
    if flatc is None:
        raise Unavailable("flatc is not installed (Debian: flatbuffers-compiler)")
    subprocess.run([flatc, "--python", "--gen-object-api", "-o", folder, *sorted(schemas.glob("*.fbs"))], check=True)
    generated = {path.stem for path in folder.iterdir()}
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield GoogleRuntime()
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in generated:
                del sys.modules[name]
