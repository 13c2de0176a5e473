"""Google's FlatBuffers runtime, with the code that its compiler generates, reads and writes the same as the codec."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medianode.engines.mediasoup.flatbuffers_codec import Schema
from medianode.engines.mediasoup.flatbuffers_types import SCALARS, Enum, Field, String, Table, Type, Union
from tests.support.flatbuffers_values import comparable, expected, values
from tests.support.sampling import examples
from tests.unit.medianode.engines.mediasoup.conftest import engine_tables

few_examples = settings(
    max_examples=examples(5),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    database=None,
)


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc] - the package has no types
    """Writes equal strings once; vtables of equal tables are shared anyway."""

    def __init__(self) -> None:
        super().__init__(256)
        self._written: dict[str, int] = {}

    def CreateString(self, text: str) -> int:  # noqa: N802 - the generated code calls it
        if text not in self._written:
            self._written[text] = super().CreateString(text)
        return self._written[text]


class Generated:
    """The classes that `flatc` generates, and their conversion to and from the values of the codec."""

    def class_of(self, table: Table) -> Any:
        """Returns the class whose attributes are the fields of a table."""
        return self._import(table, "T")

    def read(self, table: Table, frame: bytes) -> dict[str, Any]:
        """Reads a frame with Google's runtime."""
        return self._value(table, self.class_of(table).InitFromObj(self._import(table).GetRootAs(frame[4:], 0)))

    def write(self, table: Table, value: dict[str, Any]) -> bytes:
        """Writes a frame with Google's runtime."""
        builder = SharingBuilder()
        builder.FinishSizePrefixed(self._object(table, value).Pack(builder))
        return bytes(builder.Output())

    @staticmethod
    def _import(table: Table, suffix: str = "") -> Any:
        module = importlib.import_module(table.name)
        return getattr(module, table.name.rpartition(".")[2] + suffix)

    def _value(self, table: Table, found: Any) -> dict[str, Any]:
        value = {}
        for name, field in table.fields.items():
            item = getattr(found, camel(name))
            if isinstance(field.type, Union):
                member = getattr(found, camel(f"{name}_type"))
                item = (member, item) if member else None
            if item is not None:
                value[name] = self._field(field, item, self._read_one)
        return value

    def _object(self, table: Table, value: dict[str, Any]) -> Any:
        made = self.class_of(table)()
        for name, item in value.items():
            field = table.fields[name]
            found = self._field(field, item, self._written_one)
            if isinstance(field.type, Union):
                member, found = found
                setattr(made, camel(f"{name}_type"), member)
            setattr(made, camel(name), found)
        return made

    @staticmethod
    def _field(field: Field, item: Any, convert: Callable[[Type, Any], Any]) -> Any:
        if field.vector and field.type == SCALARS["uint8"]:
            return bytes(item)
        return [convert(field.type, element) for element in item] if field.vector else convert(field.type, item)

    def _read_one(self, type_: Type, item: Any) -> Any:
        match type_:
            case Enum():
                return type_.names[item]
            case String():
                return item.decode()
            case Table():
                return self._value(type_, item)
            case Union():
                name, table = list(type_.members.items())[item[0] - 1]
                return name, self._value(table, item[1])
        return item

    def _written_one(self, type_: Type, item: Any) -> Any:
        match type_:
            case Enum():
                return type_.numbers[item]
            case Table():
                return self._object(type_, item)
            case Union():
                name, value = item
                return list(type_.members).index(name) + 1, self._object(type_.members[name], value)
        return item


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@pytest.fixture(scope="session")
def google(schemas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    flatc = shutil.which("flatc")
    if flatc is None:
        pytest.skip("flatc is not installed (Debian: flatbuffers-compiler)")
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([flatc, "--python", "--gen-object-api", "-o", folder, *sorted(schemas.glob("*.fbs"))], check=True)
    sys.path.insert(0, str(folder))
    yield Generated()
    sys.path.remove(str(folder))
    for module in [name for name in sys.modules if name.partition(".")[0] == "FBS"]:
        del sys.modules[module]


@pytest.mark.parametrize("table", engine_tables())
@given(data=st.data())
@few_examples
def test_google_runtime_reads_each_table_as_it_was_encoded(
    google: Generated, engine_schema: Schema, table: str, data: st.DataObject
) -> None:
    type_ = engine_schema.tables[table]
    value = data.draw(values(type_))
    assert comparable(google.read(type_, engine_schema.encode(table, value))) == comparable(expected(type_, value))


@pytest.mark.parametrize("table", engine_tables())
@given(data=st.data())
@few_examples
def test_each_table_that_google_runtime_writes_is_decoded(
    google: Generated, engine_schema: Schema, table: str, data: st.DataObject
) -> None:
    type_ = engine_schema.tables[table]
    value = expected(type_, data.draw(values(type_)))
    assert comparable(engine_schema.decode(table, google.write(type_, value)[4:])) == comparable(value)
