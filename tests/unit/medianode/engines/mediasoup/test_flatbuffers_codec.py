"""What is encoded by schema is decoded to the same value, for every table, and lies in the buffer as it must."""

import subprocess
import sys
from pathlib import Path
from struct import unpack_from
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medianode.engines.mediasoup.flatbuffers_codec import Schema
from medianode.engines.mediasoup.flatbuffers_types import Field, Table, Union
from tests.support.flatbuffers_values import comparable, expected, values
from tests.support.sampling import examples
from tests.unit.medianode.engines.mediasoup.conftest import engine_tables

ROOT: Final = Path(__file__).resolve().parents[5]
KINDS_OF_TABLES = ["Empty", "Node", "Numbers", "Defaults", "Nulls", "Vectors", "Required"]
few_examples = settings(
    max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def assert_same_when_decoded(schema: Schema, table: str, value: dict[str, Any]) -> None:
    frame = schema.encode(table, value)
    assert unpack_from("<I", frame) == (len(frame) - 4,)
    assert comparable(schema.decode(table, frame[4:])) == comparable(expected(schema.tables[table], value))


@pytest.mark.parametrize("table", engine_tables())
@given(data=st.data())
@few_examples
def test_value_of_each_engine_table_survives_encoding(engine_schema: Schema, table: str, data: st.DataObject) -> None:
    assert_same_when_decoded(engine_schema, table, data.draw(values(engine_schema.tables[table])))


@pytest.mark.parametrize("table", KINDS_OF_TABLES)
@given(data=st.data())
@settings(max_examples=examples(50), deadline=None)
def test_value_of_each_kind_survives_encoding(kinds: Schema, table: str, data: st.DataObject) -> None:
    assert_same_when_decoded(kinds, f"Test.{table}", data.draw(values(kinds.tables[f"Test.{table}"])))


def misaligned(schema: Schema, table: Table, frame: bytes, at: int) -> list[str]:
    """Returns what in a table at `at` is not at a multiple of its size, counted from the start of the frame."""
    found = [table.name] if at % 4 else []
    vtable = at - unpack_from("<i", frame, at)[0]
    places = unpack_from(f"<{unpack_from('<H', frame, vtable)[0] // 2}H", frame, vtable)[2:]
    for field in table.fields.values():
        place = places[field.slot]
        if not place:
            continue
        if (at + place) % (field.inline.size if field.inline else 4):
            found.append(f"{table.name}.{field.name}")
        if not field.inline:
            target = at + place + unpack_from("<I", frame, at + place)[0]
            found += misaligned_block(schema, field, frame, target, frame[at + places[field.slot - 1]])
    return [*found, *([f"vtable of {table.name}"] if vtable % 2 else [])]


def misaligned_block(schema: Schema, field: Field, frame: bytes, at: int, tag: int) -> list[str]:
    if isinstance(field.type, Union):
        return misaligned(schema, list(field.type.members.values())[tag - 1], frame, at)
    if isinstance(field.type, Table) and field.vector:
        tables = range(at + 4, at + 4 + 4 * unpack_from("<I", frame, at)[0], 4)
        return [
            name
            for place in tables
            for name in misaligned(schema, field.type, frame, place + unpack_from("<I", frame, place)[0])
        ]
    if isinstance(field.type, Table):
        return misaligned(schema, field.type, frame, at)
    return [field.name] if at % 4 else []


@pytest.mark.parametrize("table", KINDS_OF_TABLES)
@given(data=st.data())
@settings(max_examples=examples(20), deadline=None)
def test_encoded_numbers_are_aligned_from_the_start_of_the_frame(
    kinds: Schema, table: str, data: st.DataObject
) -> None:
    type_ = kinds.tables[f"Test.{table}"]
    frame = kinds.encode(type_.name, data.draw(values(type_)))
    assert len(frame) % 8 == 0  # the next frame of the stream is aligned, too
    assert misaligned(kinds, type_, frame, 4 + unpack_from("<I", frame, 4)[0]) == []


def test_unknown_root_table_is_no_fault_of_the_value(kinds: Schema) -> None:
    with pytest.raises(KeyError):
        kinds.encode("Test.Unknown", {})
    with pytest.raises(KeyError):
        kinds.decode("Test.Unknown", b"")


def test_codec_imports_nothing_but_the_standard_library() -> None:
    """The build of the engine imports it with Debian's python3, without the packages that Plenary needs."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import medianode.engines.mediasoup.flatbuffers_codec
print(*sorted({{name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names}}))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    package = "medianode.engines.mediasoup"
    modules = [
        f"{package}.flatbuffers_{name}" for name in ("codec", "decoder", "encoder", "schema", "types", "validation")
    ]
    assert done.stdout.split() == ["__main__", "medianode", "medianode.engines", package, *modules]
