"""Google's FlatBuffers runtime, with the code that its compiler generates, reads and writes the same as the codec."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devtools.google_flatbuffers import GoogleRuntime, google_runtime
from devtools.starting import Unavailable
from medianode.engines.mediasoup.flatbuffers_codec import Schema
from medianode.engines.mediasoup.flatbuffers_types import Table
from tests.support.flatbuffers_values import comparable, expected, smallest, values
from tests.support.sampling import examples
from tests.unit.medianode.engines.mediasoup.conftest import engine_tables

few_examples = settings(
    max_examples=examples(5), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@pytest.fixture(scope="module")
def google(schemas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleRuntime]:
    try:
        with google_runtime(schemas, tmp_path_factory.mktemp("generated")) as runtime:
            yield runtime
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("table", engine_tables())
@given(data=st.data())
@few_examples
def test_google_runtime_reads_each_table_as_it_was_encoded(
    google: GoogleRuntime, engine_schema: Schema, table: str, data: st.DataObject
) -> None:
    type_ = engine_schema.tables[table]
    value = data.draw(values(type_))
    found = google.value_of(type_, google.read(type_, engine_schema.encode(table, value)[4:]))
    assert comparable(found) == comparable(expected(type_, value))


@pytest.mark.parametrize("table", engine_tables())
@given(data=st.data())
@few_examples
def test_each_table_that_google_runtime_writes_is_decoded(
    google: GoogleRuntime, engine_schema: Schema, table: str, data: st.DataObject
) -> None:
    type_ = engine_schema.tables[table]
    value = expected(type_, data.draw(values(type_)))
    frame = google.write(google.object_of(type_, value))
    assert comparable(engine_schema.decode(table, frame[4:])) == comparable(value)


def test_vector_of_smallest_tables_is_within_the_bounds_of_decoding(
    google: GoogleRuntime, engine_schema: Schema
) -> None:
    """Google's runtime shares vtables and leaves out defaults: decoding makes most of the least bytes."""
    found = 0
    for table in engine_schema.tables.values():
        for field in table.fields.values():
            if field.vector and isinstance(field.type, Table):
                value = {**smallest(table), field.name: [smallest(field.type)] * 300}
                frame = google.write(google.object_of(table, value))
                assert engine_schema.decode(table.name, frame[4:]) == expected(table, value)
                found += 1
    assert found > 20
