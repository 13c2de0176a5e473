"""Schemas as text become types; what is not understood is refused by file and line."""

from pathlib import Path

import pytest

from medianode.engines.mediasoup.flatbuffers_codec import Schema, SchemaError, load_schema
from medianode.engines.mediasoup.flatbuffers_types import SCALARS, STRING


def schema_of(folder: Path, text: str) -> Schema:
    (folder / "text.fbs").write_text(text)
    return load_schema(folder)


def test_fields_are_known_by_type_slot_and_default(kinds: Schema) -> None:
    numbers = kinds.tables["Test.Numbers"].fields
    assert [field.slot for field in numbers.values()] == list(range(12))
    assert numbers["u16"].type == SCALARS["uint16"]
    assert numbers["f32"].type == SCALARS["float"]
    assert (numbers["u16"].default, numbers["flag"].default, numbers["f64"].default) == (0, False, 0.0)
    defaults = kinds.tables["Test.Defaults"].fields
    assert [field.default for field in defaults.values()] == [True, -3, 0.5, "BLUE"]
    assert {field.default for field in kinds.tables["Test.Nulls"].fields.values()} == {None}
    vectors = kinds.tables["Test.Vectors"].fields
    assert all(field.vector for field in vectors.values())
    assert vectors["texts"].type is STRING
    assert vectors["leaves"].type is kinds.tables["Test.Inner.Leaf"]


def test_union_has_two_slots_of_its_table(kinds: Schema) -> None:
    fields = kinds.tables["Test.Required"].fields
    assert {name: field.slot for name, field in fields.items()} == {"text": 0, "leaf": 1, "choice": 3, "leaves": 4}
    assert all(field.required for field in fields.values())
    assert fields["choice"].type is kinds.unions["Test.Choice"]


def test_members_of_unions_and_enums_are_numbered_as_declared(kinds: Schema) -> None:
    assert kinds.enums["Test.Inner.Colour"].numbers == {"RED": 1, "GREEN": 2, "BLUE": 7}
    assert kinds.enums["Test.Inner.Colour"].names == {1: "RED", 2: "GREEN", 7: "BLUE"}
    members = kinds.unions["Test.Choice"].members
    assert [(name, table.name) for name, table in members.items()] == [
        ("Leaf", "Test.Inner.Leaf"),
        ("Node", "Test.Node"),
        ("Empty", "Test.Empty"),
    ]


def test_types_are_found_in_other_files_and_outer_namespaces(tmp_path: Path) -> None:
    (tmp_path / "a.fbs").write_text(
        'include "b.fbs"; // a comment\nnamespace A.B.C; table T { t: B.U; u: A.U; v: U; }'
    )
    (tmp_path / "b.fbs").write_text("/* a\ncomment */ namespace A.B; table U {} root_type U; namespace A; table U {}")
    fields = load_schema(tmp_path).tables["A.B.C.T"].fields
    names = [getattr(field.type, "name", None) for field in fields.values()]
    assert names == ["A.B.U", "A.U", "A.B.U"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("namespace A;\nstruct S { x: int; }", "text.fbs:2: expected include or .*: 'struct'"),
        ("table T {\n  x: int (deprecated);\n}", "text.fbs:2: expected required, found: 'deprecated'"),
        ("table T { x: int }", "text.fbs:1: expected ;, found: '}'"),
        ("table T { x: int;", "text.fbs:1: not usable as a name: ''"),
        ("/*\n*/ table T { x: Missing; }", "text.fbs:2: unknown type: 'Missing'"),
        ("table T { x: int; x: int; }", "text.fbs:1: declared twice: 'x'"),
        ("table T {}\ntable T {}", "text.fbs:2: declared twice: 'T'"),
        ("table T { Upper: int; }", "text.fbs:1: not usable as a name: 'Upper'"),
        ("table T { _x: int; }", "text.fbs:1: not usable as a name: '_x'"),
        ("table T { class: int; }", "text.fbs:1: not usable as a name: 'class'"),
        ("table T { x: int = 1.5; }", "text.fbs:1: not an integer: '1.5'"),
        ("table T { x: uint8 = 256; }", "text.fbs:1: does not fit uint8: '256'"),
        ("table T { x: bool = 1; }", "text.fbs:1: neither true nor false: '1'"),
        ("table T { x: double = wide; }", "text.fbs:1: not a finite number: 'wide'"),
        ("table T { x: double = inf; }", "text.fbs:1: not a finite number: 'inf'"),
        ("table T { x: string = text; }", "text.fbs:1: only scalars and enums have a default: 'text'"),
        ("table T { x: int (required); }", "text.fbs:1: a scalar cannot be required: 'x'"),
        ("table T { x: [uint64]; }", "text.fbs:1: vectors of unions and of 8-byte scalars are not supported: 'x'"),
        ("table M {} union U { M }\ntable T { x: [U]; }", "text.fbs:2: vectors of unions .* are not supported: 'x'"),
        ("table T { x: [[int]]; }", "text.fbs:1: expected ], found: 'int'"),
        ("enum E: uint8 { A = 1 }\ntable T { x: E; }", "text.fbs:2: no default that E contains: 'x'"),
        ("enum E: uint8 { A }\ntable T { x: E = B; }", "text.fbs:2: no default that E contains: 'B'"),
        ("enum E: float { A }", "text.fbs:1: enums are over integers, not: 'float'"),
        ("enum E: uint8 { A = 255, B }", "text.fbs:1: the number 256 is taken or does not fit uint8: 'B'"),
        ("enum E: uint8 { A = 1, B = 1 }", "text.fbs:1: the number 1 is taken or does not fit uint8: 'B'"),
        ("enum E { A }", "text.fbs:1: expected :, found: '{'"),
        ("enum E: uint8 { A }\nunion U { E }", "text.fbs:2: members of a union are tables, not: 'E'"),
        ("table T {}\n%", "text.fbs:2: unexpected character: '%'"),
        ("", "no FlatBuffers schema in "),
    ],
)
def test_schema_that_is_not_understood_is_refused_by_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        schema_of(tmp_path, text)


def test_union_with_more_members_than_tags_is_refused(tmp_path: Path) -> None:
    members = ", ".join(f"M{number}: T" for number in range(256))
    with pytest.raises(SchemaError, match=r"text\.fbs:1: too many members of union: 'U'"):
        schema_of(tmp_path, f"table T {{}} union U {{ {members} }}")


def test_schema_that_is_no_text_is_refused_by_file(tmp_path: Path) -> None:
    (tmp_path / "binary.fbs").write_bytes(b"\xff")
    with pytest.raises(SchemaError, match=r"binary\.fbs: "):
        load_schema(tmp_path)


def test_engine_schemas_are_understood_whole(engine_schema: Schema) -> None:
    assert {"FBS.Message.Message", "FBS.Transport.ConsumeRequest"} <= set(engine_schema.tables)
    assert engine_schema.enums["FBS.Request.Method"].numbers["WORKER_DUMP"] == 0
    assert list(engine_schema.unions["FBS.Message.Body"].members) == ["Request", "Response", "Notification", "Log"]
