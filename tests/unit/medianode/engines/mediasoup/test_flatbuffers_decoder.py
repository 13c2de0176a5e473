"""Decoding believes nothing: malformed buffers end in DecodeError, soon, and never become much more than they are."""

import random
import time
from pathlib import Path
from struct import pack
from textwrap import indent
from typing import Any

import pytest

from medianode.engines.mediasoup import flatbuffers_decoder
from medianode.engines.mediasoup.flatbuffers_codec import DecodeError, Schema, load_schema
from medianode.engines.mediasoup.flatbuffers_decoder import function_source
from tests.support.sampling import examples

CASES = 20_000
"""Changed buffers of each value."""
LEAF = {"name": "leaf", "weight": 7}
TREE = {"children": [{"label": "a", "children": [{}, {}]}, {"choice": ("Leaf", LEAF)}], "label": "root"}
FUZZED: dict[str, dict[str, Any]] = {
    "Node": TREE,
    "Numbers": {"flag": True, "u8": 1, "i16": -1, "u32": 1 << 31, "f64": 0.5, "colour": "BLUE"},
    "Vectors": {
        "flags": [True],
        "bytes": b"abc",
        "shorts": [1, 2],
        "colours": ["RED"],
        "texts": ["", "é"],
        "leaves": [LEAF],
    },
    "Required": {"text": "text", "leaf": LEAF, "choice": ("Node", TREE), "leaves": [LEAF, LEAF]},
}

BASE_STATS = {
    "timestamp": 1,
    "ssrc": 2,
    "kind": "VIDEO",
    "mime_type": "video/VP8",
    "rid": "r0",
    "round_trip_time": 1.5,
}
RECEIVED_STATS = {
    "base": {"data": ("BaseStats", BASE_STATS)},
    "packet_count": 1000,
    "bitrate_by_layer": [{"layer": "0.0", "bitrate": 1}, {"layer": "0.1", "bitrate": 2}],
}
ENGINE_BODIES: dict[str, dict[str, Any]] = {
    "Transport_ConsumeResponse": {
        "score": {"score": 10, "producer_score": 9, "producer_scores": [10, 0]},
        "preferred_layers": {"spatial_layer": 2, "temporal_layer": 0},
    },
    "Producer_GetStatsResponse": {"stats": [{"data": ("RecvStats", RECEIVED_STATS)}] * 2},
}


def buffer_of(places: list[int], content: bytes, size: int | None = None, length: int | None = None) -> bytes:
    """Returns a buffer with a root table: the table follows its vtable, and `content` the first 4 bytes of the table.

    `places` are the fields of the vtable; `size` and `length` are the sizes of table and vtable that it states.
    """
    real = 4 + 2 * len(places)
    head = pack("<HH", real if length is None else length, 4 + len(content) if size is None else size)
    return pack("<I", 4 + real) + head + pack(f"<{len(places)}H", *places) + pack("<i", real) + content


def string(text: bytes) -> bytes:
    return pack("<I", len(text)) + text + b"\0"


def test_crafted_buffer_without_faults_is_decoded(kinds: Schema) -> None:
    """The buffers of the test below differ from these in one thing each."""
    assert kinds.decode("Test.Inner.Leaf", buffer_of([4], pack("<I", 4) + string(b"a"), size=8)) == {
        "name": "a",
        "weight": 0,
    }
    choice = pack("<I4xB3xi", 12, 3, -4) + pack("<HH", 4, 4)
    assert kinds.decode("Test.Node", buffer_of([0, 12, 4], choice, size=13)) == {"choice": ("Empty", {})}
    assert kinds.decode("Test.Vectors", buffer_of([0, 4], pack("<II", 4, 2) + b"ab", size=8)) == {"bytes": b"ab"}
    assert kinds.decode("Test.Vectors", buffer_of([0, 0, 4], pack("<IIh", 4, 1, -2), size=8)) == {"shorts": [-2]}


BEYOND = "something lies beyond the end of the buffer"
MALFORMED = {
    "no root": ("Empty", b"", BEYOND),
    "half a root": ("Empty", b"\4\0\0", BEYOND),
    "root beyond end": ("Empty", pack("<I", 4), BEYOND),
    "root far beyond end": ("Empty", pack("<I", 0xFFFFFFFF), BEYOND),
    "vtable before start": ("Empty", pack("<Ii", 4, 5), "vtable lies before the buffer"),
    "vtable beyond end": ("Empty", pack("<Ii", 4, -4), BEYOND),
    "vtable cut by end": ("Empty", pack("<IiHH", 4, -4, 6, 4), "vtable lies beyond the end of the buffer"),
    "vtable without length": ("Empty", buffer_of([], b"", length=0), "vtable has an impossible length"),
    "vtable without size": ("Empty", buffer_of([], b"", length=2), "vtable has an impossible length"),
    "vtable of odd length": ("Numbers", buffer_of([0], b"\0", length=5), "vtable has an impossible length"),
    "table beyond end": ("Empty", buffer_of([], b"", size=5), BEYOND),
    "field beyond table": ("Numbers", buffer_of([0, 4], b"\0", size=4), "a field lies beyond its end"),
    "field before table's content": ("Numbers", buffer_of([3], b"\0"), "flag overlaps what lies before it"),
    "fields overlap": ("Numbers", buffer_of([0, 4, 0, 4], b"\0\0"), "u16 overlaps what lies before it"),
    "field of another schema": ("Empty", buffer_of([4], b"\0"), "fields that the schema does not know"),
    "required string absent": ("Inner.Leaf", buffer_of([], b""), "Leaf at 8: name is required, but absent"),
    "string beyond end": ("Inner.Leaf", buffer_of([4], pack("<I", 4)), BEYOND),
    "string longer than buffer": ("Inner.Leaf", buffer_of([4], pack("<II", 4, 1) + b"a", size=8), BEYOND),
    "string far longer than buffer": ("Inner.Leaf", buffer_of([4], pack("<II", 4, 0xFFFFFFFF), size=8), BEYOND),
    "string without zero byte": (
        "Inner.Leaf",
        buffer_of([4], pack("<II", 4, 1) + b"ab", size=8),
        "string at 18 does not end with a zero byte",
    ),
    "enum with unknown number": ("Numbers", buffer_of([0] * 11 + [4], b"\3"), "Test.Inner.Colour has no 3"),
    "enums with unknown number": (
        "Vectors",
        buffer_of([0, 0, 0, 0, 4], pack("<II", 4, 1) + b"\3", size=8),
        "Test.Inner.Colour has no 3",
    ),
    "tag without union": ("Node", buffer_of([0, 4], b"\3"), "choice has a tag without a value"),
    "union without tag": ("Node", buffer_of([0, 0, 4], pack("<I", 0)), "choice has a tag without a value or a value"),
    "union with tag of none": ("Node", buffer_of([0, 8, 4], pack("<IB", 0, 0)), "Test.Choice at .*: .* no member 0"),
    "union with unknown tag": ("Node", buffer_of([0, 8, 4], pack("<IB", 0, 4)), "Test.Choice at .*: .* no member 4"),
    "table in union beyond end": ("Node", buffer_of([0, 8, 4], pack("<IB", 5, 3)), BEYOND),
    "bytes longer than buffer": (
        "Vectors",
        buffer_of([0, 4], pack("<II", 4, 3) + b"ab", size=8),
        "vector at 20 ends beyond the buffer",
    ),
    "scalars longer than buffer": ("Vectors", buffer_of([0, 0, 4], pack("<IIh", 4, 2, 1), size=8), BEYOND),
    "far more scalars than buffer": (
        "Vectors",
        buffer_of([0, 0, 4], pack("<IIh", 4, 0xFFFFFFFF, 1), size=8),
        "refers to the same blocks too often",
    ),
    "table in vector beyond end": ("Node", buffer_of([4], pack("<III", 4, 1, 4), size=8), BEYOND),
    "offset around all memory": ("Node", buffer_of([4], pack("<I", 0xFFFFFFF0)), BEYOND),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_buffer_is_refused(kinds: Schema, case: str) -> None:
    table, content, problem = MALFORMED[case]
    with pytest.raises(DecodeError, match=problem):
        kinds.decode(f"Test.{table}", content)


def test_invalid_text_is_decoded_with_replacement_characters(kinds: Schema) -> None:
    content = buffer_of([4], pack("<I", 4) + string(b"a\xffb"), size=8)
    assert kinds.decode("Test.Inner.Leaf", content)["name"] == "a\ufffdb"


def test_buffer_is_decoded_from_a_memoryview(kinds: Schema) -> None:
    frame = kinds.encode("Test.Inner.Leaf", LEAF)
    assert kinds.decode("Test.Inner.Leaf", memoryview(frame)[4:]) == LEAF


def test_documented_function_is_the_one_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "table Score { encoding_idx: uint32; ssrc: uint32; rid: string; score: uint8; }"
    (tmp_path / "example.fbs").write_text(text)
    sources: list[str] = []

    def recorded(*arguments: Any) -> str:
        sources.append(function_source(*arguments))
        return sources[-1]

    monkeypatch.setattr(flatbuffers_decoder, "function_source", recorded)
    content = buffer_of([12, 8, 4], pack("<III", 12, 2, 1) + string(b"r"), size=16)
    assert load_schema(tmp_path).decode("Score", content) == {"encoding_idx": 1, "ssrc": 2, "rid": "r", "score": 0}
    assert indent(sources[0], "    ") in (flatbuffers_decoder.__doc__ or "")


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"children": [value]}
    return value


def test_tables_are_decoded_to_a_depth_of_64(kinds: Schema) -> None:
    assert kinds.decode("Test.Node", kinds.encode("Test.Node", nested(64))[4:]) == nested(64)
    with pytest.raises(DecodeError, match="nested deeper than 64"):
        kinds.decode("Test.Node", kinds.encode("Test.Node", nested(65))[4:])


def test_same_string_many_times_is_refused(kinds: Schema) -> None:
    count, size = 1000, 100_000
    offsets = pack(f"<{count}I", *(4 * (count - index) for index in range(count)))
    content = buffer_of([0] * 5 + [4], pack("<II", 4, count) + offsets + string(b"a" * size), size=8)
    with pytest.raises(DecodeError, match="refers to the same blocks too often"):
        kinds.decode("Test.Vectors", content)


def test_identifier_many_times_is_decoded(kinds: Schema) -> None:
    """Google's runtime may write equal strings once."""
    count = 1000
    offsets = pack(f"<{count}I", *(4 * (count - index) for index in range(count)))
    content = buffer_of([0] * 5 + [4], pack("<II", 4, count) + offsets + string(b"a" * 36), size=8)
    assert kinds.decode("Test.Vectors", content) == {"texts": ["a" * 36] * count}


def test_same_bytes_many_times_are_refused(kinds: Schema) -> None:
    count, size = 1000, 100_000
    node = pack("<HHHHHHH", 14, 8, 0, 0, 0, 0, 4) + bytes(2) + pack("<iI", 16, 4) + pack("<I", size) + bytes(size)
    offsets = pack(f"<{count}I", *(4 * (count - index) + 16 for index in range(count)))
    content = buffer_of([4], pack("<II", 4, count) + offsets + node, size=8)
    with pytest.raises(DecodeError, match="refers to the same blocks too often"):
        kinds.decode("Test.Node", content)


def multiplied(levels: int, width: int) -> bytes:
    """Returns a `Node` whose children are the same `Node` `width` times, and so on, `levels` times."""
    vtable = pack("<HHH", 6, 8, 4)
    blocks = pack("<I", 4 + len(vtable) + 2) + vtable + bytes(2)
    for _ in range(levels):
        blocks += pack("<iII", len(blocks) - 4, 4, width)
        blocks += pack(f"<{width}I", *(4 * (width - index) for index in range(width)))
    return blocks + pack("<iII", len(blocks) - 4, 4, 0)


def test_same_tables_many_times_within_one_another_are_refused(kinds: Schema) -> None:
    assert len(kinds.decode("Test.Node", multiplied(1, 3))["children"]) == 3
    started = time.process_time()
    with pytest.raises(DecodeError, match="refers to the same blocks too often"):
        kinds.decode("Test.Node", multiplied(20, 100))
    assert time.process_time() - started < 2


def test_buffer_with_too_many_new_vtables_is_refused(kinds: Schema) -> None:
    """Each vtable that was not seen before costs time; these differ in the size of their tables."""
    count = 2 * flatbuffers_decoder._NEW_VTABLES
    tables = b""
    offsets = []
    for index in range(count):
        offsets.append(4 * (count - index) + len(tables) + 4)
        tables += pack("<HHi", 4, 4 + index, 4)
    content = buffer_of([4], pack("<II", 4, count) + pack(f"<{count}I", *offsets) + tables + bytes(count), size=8)
    with pytest.raises(DecodeError, match="too many vtables"):
        kinds.decode("Test.Node", content)


def size_of(value: Any) -> int:
    """The number of values, where 16 characters or bytes count as one, and a dict as 8."""
    match value:
        case dict():
            return 8 + sum(size_of(item) for item in value.values())
        case list() | tuple():
            return 1 + sum(size_of(item) for item in value)
        case str() | bytes():
            return 1 + len(value) // 16
    return 1


def changed(content: bytes, source: random.Random) -> bytes:
    """Returns a buffer with some bytes replaced, cut out or inserted, or random bytes."""
    if source.random() < 0.1:
        return source.randbytes(source.randrange(64))
    found = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        at = source.randrange(len(found) + 1)
        match source.randrange(5):
            case 0:
                del found[at : at + source.randrange(1, 9)]
            case 1:
                found[at:at] = source.randbytes(source.randrange(1, 9))
            case 2:
                del found[at:]
            case _:
                found[at : at + 1] = source.choice((b"\0", b"\1", b"\4", b"\xff", source.randbytes(1)))
    return bytes(found)


def fuzz(schema: Schema, table: str, value: dict[str, Any], seed: int) -> None:
    source = random.Random(seed)
    content = schema.encode(table, value)[4:]
    refused = 0
    for _ in range(examples(CASES)):
        buffer = changed(content, source)
        try:
            assert size_of(schema.decode(table, buffer)) <= 256 + 2 * len(buffer)
        except DecodeError:
            refused += 1
    assert 0 < refused < examples(CASES)


@pytest.mark.parametrize("table", FUZZED)
def test_changed_buffer_is_decoded_or_refused(kinds: Schema, table: str, pytestconfig: pytest.Config) -> None:
    fuzz(kinds, f"Test.{table}", FUZZED[table], pytestconfig.option.seed)


@pytest.mark.parametrize("body", ENGINE_BODIES)
def test_changed_message_of_engine_is_decoded_or_refused(
    engine_schema: Schema, body: str, pytestconfig: pytest.Config
) -> None:
    response = {"id": 1, "accepted": True, "body": (body, ENGINE_BODIES[body])}
    fuzz(engine_schema, "FBS.Message.Message", {"data": ("Response", response)}, pytestconfig.option.seed)
