"""The FlatBuffers schemas that tests use: those of the engine, and one with everything that the codec knows."""

from pathlib import Path
from typing import Any

import pytest

from medianode.engines.mediasoup.flatbuffers_codec import Schema, load_schema
from medianode.toolchain import engine_folder
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.install import find_engine

KINDS = """
namespace Test.Inner;

enum Colour: uint8 { RED = 1, GREEN, BLUE = 7 }
table Leaf { name: string (required); weight: uint32; }

namespace Test;

union Choice { Leaf: Test.Inner.Leaf, Node, Empty }
table Empty {}
table Node { children: [Node]; choice: Choice; label: string; icon: [ubyte]; }
table Numbers {
    flag: bool; u8: uint8; i8: int8; u16: uint16; i16: int16; u32: uint32; i32: int32; u64: uint64; i64: int64;
    f32: float; f64: double; colour: Inner.Colour = GREEN;
}
table Defaults { flag: bool = true; number: int16 = -3; ratio: double = 0.5; colour: Inner.Colour = BLUE; }
table Nulls {
    flag: bool = null; u8: uint8 = null; i64: int64 = null; f64: double = null; colour: Inner.Colour = null;
}
table Vectors {
    flags: [bool]; bytes: [ubyte]; shorts: [int16]; floats: [float]; colours: [Inner.Colour]; texts: [string];
    leaves: [Inner.Leaf];
}
table Required {
    text: string (required); leaf: Inner.Leaf (required); choice: Choice (required); leaves: [Inner.Leaf] (required);
}
"""
NO_SCHEMAS = "no media engine, and so no schemas: make engine"


def schema_folder() -> Path | None:
    """Returns the folder of the engine's schemas, or None if there is no engine here."""
    try:
        binary = find_engine()
    except EngineUnavailable:
        return None
    return engine_folder.schema_folder(binary) if binary else None


def engine_tables() -> list[Any]:
    """Returns the names of all tables of the engine, as parameters of a test; without schemas the test is skipped."""
    folder = schema_folder()
    if folder is None:
        return [pytest.param("", marks=pytest.mark.skip(reason=NO_SCHEMAS))]
    return sorted(load_schema(folder).tables)


@pytest.fixture(scope="session")
def schemas() -> Path:
    """The folder of the engine's schemas."""
    folder = schema_folder()
    if folder is None:
        pytest.skip(NO_SCHEMAS)
    return folder


@pytest.fixture(scope="session")
def engine_schema(schemas: Path) -> Schema:
    return load_schema(schemas)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """A schema with all kinds of fields, `KINDS`."""
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "kinds.fbs").write_text(KINDS)
    return load_schema(folder)
