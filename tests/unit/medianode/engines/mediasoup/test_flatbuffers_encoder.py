"""Encoding refuses what does not fit the schema, and names the field by its path."""

import re
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medianode.engines.mediasoup import flatbuffers_encoder
from medianode.engines.mediasoup.flatbuffers_codec import EncodeError, Schema, load_schema
from medianode.engines.mediasoup.flatbuffers_encoder import TableLayout, function_source
from medianode.engines.mediasoup.flatbuffers_types import Table
from medianode.engines.mediasoup.flatbuffers_validation import refuse_misfit
from tests.support.flatbuffers_values import comparable, expected, values
from tests.support.sampling import examples

LEAF = {"name": "a"}
REQUIRED: dict[str, Any] = {"text": "", "leaf": LEAF, "choice": ("Empty", {}), "leaves": []}
CYCLE: dict[str, Any] = {}
CYCLE["children"] = [CYCLE]

REFUSED = [
    ("Numbers", {"u8": 256}, "Test.Numbers.u8: 256 does not fit uint8"),
    ("Numbers", {"u8": -1}, "Test.Numbers.u8: -1 does not fit uint8"),
    ("Numbers", {"i8": 128}, "Test.Numbers.i8: 128 does not fit int8"),
    ("Numbers", {"i8": -129}, "Test.Numbers.i8: -129 does not fit int8"),
    ("Numbers", {"u16": 65536}, "Test.Numbers.u16: 65536 does not fit uint16"),
    ("Numbers", {"i16": 32768}, "Test.Numbers.i16: 32768 does not fit int16"),
    ("Numbers", {"u32": 1 << 32}, "Test.Numbers.u32: 4294967296 does not fit uint32"),
    ("Numbers", {"i32": -(1 << 31) - 1}, "Test.Numbers.i32: -2147483649 does not fit int32"),
    ("Numbers", {"u64": 1 << 64}, "Test.Numbers.u64: 18446744073709551616 does not fit uint64"),
    ("Numbers", {"i64": 1 << 63}, "Test.Numbers.i64: 9223372036854775808 does not fit int64"),
    ("Numbers", {"u8": 10**5000}, "Test.Numbers.u8: this int does not fit uint8"),
    ("Numbers", {"f32": 1e39}, r"Test.Numbers.f32: 1e\+39 does not fit float32"),
    ("Numbers", {"f64": 10**400}, "Test.Numbers.f64: 10000.*0000 does not fit float64"),
    ("Numbers", {"u8": True}, "Test.Numbers.u8: a value of the type int is needed, not bool"),
    ("Numbers", {"u8": 1.0}, "Test.Numbers.u8: a value of the type int is needed, not float"),
    ("Numbers", {"u8": "1"}, "Test.Numbers.u8: a value of the type int is needed, not str"),
    ("Numbers", {"flag": 1}, "Test.Numbers.flag: a value of the type bool is needed, not int"),
    ("Numbers", {"flag": "true"}, "Test.Numbers.flag: a value of the type bool is needed, not str"),
    ("Numbers", {"f64": "1"}, "Test.Numbers.f64: a value of the type float is needed, not str"),
    ("Numbers", {"f64": False}, "Test.Numbers.f64: a value of the type float is needed, not bool"),
    ("Numbers", {"colour": "PINK"}, "Test.Numbers.colour: Test.Inner.Colour has no 'PINK'"),
    ("Numbers", {"colour": 1}, "Test.Numbers.colour: Test.Inner.Colour has no 1"),
    ("Numbers", {"colour": []}, r"Test.Numbers.colour: Test.Inner.Colour has no \[\]"),
    ("Nulls", {"u8": 256}, "Test.Nulls.u8: 256 does not fit uint8"),
    ("Nulls", {"u8": False}, "Test.Nulls.u8: a value of the type int is needed, not bool"),
    ("Nulls", {"flag": 0}, "Test.Nulls.flag: a value of the type bool is needed, not int"),
    ("Nulls", {"f64": "1"}, "Test.Nulls.f64: a value of the type float is needed, not str"),
    ("Nulls", {"colour": "PINK"}, "Test.Nulls.colour: Test.Inner.Colour has no 'PINK'"),
    ("Numbers", {"other": 1}, "Test.Numbers: there is no field 'other'"),
    ("Numbers", {"other": None}, "Test.Numbers: there is no field 'other'"),
    ("Numbers", {1: 1}, "Test.Numbers: there is no field 1"),
    ("Numbers", [], "Test.Numbers: a dict is needed, not list"),
    ("Numbers", None, "Test.Numbers: a dict is needed, not NoneType"),
    ("Node", {"label": 1}, "Test.Node.label: a str is needed, not int"),
    ("Node", {"label": b"a"}, "Test.Node.label: a str is needed, not bytes"),
    ("Node", {"label": "a\ud800"}, "Test.Node.label: not encodable: surrogates not allowed"),
    ("Node", {"children": {}}, "Test.Node.children: a list is needed, not dict"),
    ("Node", {"children": ({},)}, "Test.Node.children: a list is needed, not tuple"),
    ("Node", {"children": "ab"}, "Test.Node.children: a list is needed, not str"),
    ("Node", {"children": [{}, None]}, r"Test.Node.children\[1\]: a dict is needed, not NoneType"),
    ("Node", {"children": [{"children": [{}, {"label": 1}]}]}, r"Test.Node.children\[0\].children\[1\].label: a str"),
    ("Node", {"choice": {}}, "Test.Node.choice: a pair of the member's name and a dict is needed, not {}"),
    ("Node", {"choice": ["Empty", {}]}, r"Test.Node.choice: a pair .* is needed, not \['Empty', {}\]"),
    ("Node", {"choice": ("Empty",)}, "Test.Node.choice: a pair"),
    ("Node", {"choice": ([], {})}, "Test.Node.choice: a pair"),
    ("Node", {"choice": ("None", {})}, "Test.Node.choice: Test.Choice has no member 'None'"),
    ("Node", {"choice": ("Empty", None)}, "Test.Empty: a dict is needed, not NoneType"),
    ("Node", {"choice": ("Leaf", {"name": 5})}, "Test.Inner.Leaf.name: a str is needed, not int"),
    ("Node", CYCLE, r"Test.Node.children\[0\].*: tables are nested deeper than 64"),
    ("Vectors", {"bytes": [256]}, r"Test.Vectors.bytes\[0\]: 256 does not fit uint8"),
    ("Vectors", {"bytes": [True]}, r"Test.Vectors.bytes\[0\]: a value of the type int is needed, not bool"),
    ("Vectors", {"bytes": "ab"}, "Test.Vectors.bytes: a list is needed, not str"),
    ("Vectors", {"bytes": 3}, "Test.Vectors.bytes: a list is needed, not int"),
    ("Vectors", {"bytes": bytearray(3)}, "Test.Vectors.bytes: a list is needed, not bytearray"),
    ("Vectors", {"shorts": b"ab"}, "Test.Vectors.shorts: a list is needed, not bytes"),
    ("Vectors", {"shorts": [0, 1 << 15]}, r"Test.Vectors.shorts\[1\]: 32768 does not fit int16"),
    ("Vectors", {"flags": [1]}, r"Test.Vectors.flags\[0\]: a value of the type bool is needed, not int"),
    ("Vectors", {"flags": (True,)}, "Test.Vectors.flags: a list is needed, not tuple"),
    ("Vectors", {"floats": [1e39]}, r"Test.Vectors.floats\[0\]: 1e\+39 does not fit float32"),
    ("Vectors", {"floats": [True]}, r"Test.Vectors.floats\[0\]: a value of the type float is needed, not bool"),
    ("Vectors", {"colours": ["RED", "PINK"]}, r"Test.Vectors.colours\[1\]: Test.Inner.Colour has no 'PINK'"),
    ("Vectors", {"colours": [None]}, r"Test.Vectors.colours\[0\]: Test.Inner.Colour has no None"),
    ("Vectors", {"colours": "RED"}, "Test.Vectors.colours: a list is needed, not str"),
    ("Vectors", {"colours": ("RED",)}, "Test.Vectors.colours: a list is needed, not tuple"),
    ("Vectors", {"texts": "ab"}, "Test.Vectors.texts: a list is needed, not str"),
    ("Vectors", {"texts": ["a", 1]}, r"Test.Vectors.texts\[1\]: a str is needed, not int"),
    ("Vectors", {"leaves": [LEAF, {}]}, r"Test.Vectors.leaves\[1\].name: required, but absent"),
    ("Required", {**REQUIRED, "text": None}, "Test.Required.text: required, but absent"),
    ("Required", {**REQUIRED, "leaf": None}, "Test.Required.leaf: required, but absent"),
    ("Required", {**REQUIRED, "choice": None}, "Test.Required.choice: required, but absent"),
    ("Required", {**REQUIRED, "leaves": None}, "Test.Required.leaves: required, but absent"),
    ("Required", {"text": "", "leaf": LEAF, "leaves": []}, "Test.Required.choice: required, but absent"),
]


@pytest.mark.parametrize(("table", "value", "problem"), REFUSED)
def test_misfit_is_refused_with_the_path_of_its_field(kinds: Schema, table: str, value: Any, problem: str) -> None:
    with pytest.raises(EncodeError, match=f"^{problem}"):
        kinds.encode(f"Test.{table}", value)


def test_error_in_a_request_names_table_field_and_index(engine_schema: Schema) -> None:
    codec = {"mime_type": "audio/opus", "payload_type": 300, "clock_rate": 48000}
    parameters = {"codecs": [codec], "header_extensions": [], "encodings": [], "rtcp": {}}
    consume = {"consumer_id": "", "producer_id": "", "rtp_parameters": parameters, "consumable_rtp_encodings": []}
    request = {"method": "TRANSPORT_CONSUME", "handler_id": "", "body": ("Transport_ConsumeRequest", consume)}
    with pytest.raises(EncodeError) as caught:
        engine_schema.encode("FBS.Message.Message", {"data": ("Request", request)})
    path = "FBS.Transport.ConsumeRequest.rtp_parameters.codecs[0].payload_type"
    assert str(caught.value) == f"{path}: 300 does not fit uint8"


def test_integer_is_accepted_where_the_schema_has_a_float(kinds: Schema) -> None:
    frame = kinds.encode("Test.Nulls", {"f64": 3})
    assert kinds.decode("Test.Nulls", frame[4:]) == {"f64": 3.0}
    frame = kinds.encode("Test.Vectors", {"floats": [1, 2.5]})
    assert kinds.decode("Test.Vectors", frame[4:]) == {"floats": [1.0, 2.5]}


def test_short_strings_are_kept_up_to_a_number() -> None:
    strings = flatbuffers_encoder._Strings()
    for text in [f"{number}" for number in range(3000)] + ["long" * 100]:
        assert strings[text] == strings[text]
    assert 0 < len(strings) <= 1024
    assert max(len(text) for text in strings) <= 64


def test_strings_are_encoded_alike_when_more_of_them_than_are_kept(kinds: Schema) -> None:
    texts = [f"{number}" for number in range(3000)] * 2 + ["long" * 100] * 2
    frame = kinds.encode("Test.Vectors", {"texts": texts})
    assert kinds.decode("Test.Vectors", frame[4:]) == {"texts": texts}


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the keys and indices that lead to each part of a value."""
    match value:
        case dict():
            items = list(value.items())
        case list() | tuple():
            items = list(enumerate(value))
        case _:
            items = []
    return [place, *(found for key, item in items for found in _places(item, (*place, key)))]


def _replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Returns a copy of `value` with something new at a place."""
    if not place:
        return new
    key, *rest = place
    if isinstance(value, dict):
        return {**value, key: _replaced(value[key], tuple(rest), new)}
    items = [_replaced(item, tuple(rest), new) if index == key else item for index, item in enumerate(value)]
    return tuple(items) if isinstance(value, tuple) else items


JUNK: list[Any] = [
    None,
    True,
    1,
    -1,
    1 << 70,
    0.5,
    "",
    "RED",
    "\ud800",
    b"",
    b"\xff",
    [],
    [None],
    {},
    {"name": "a"},
    ("Empty", {}),
]


def misfit(table: Table, value: Any) -> str:
    try:
        refuse_misfit(table, value)
    except EncodeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("table", ["Node", "Numbers", "Nulls", "Vectors", "Required"])
@given(data=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_value_is_either_refused_by_path_or_encoded_as_it_is(kinds: Schema, table: str, data: st.DataObject) -> None:
    type_ = kinds.tables[f"Test.{table}"]
    value = data.draw(values(type_))
    changed = _replaced(value, data.draw(st.sampled_from(_places(value))), data.draw(st.sampled_from(JUNK)))
    problem = misfit(type_, changed)
    if problem:
        with pytest.raises(EncodeError, match=f"^{re.escape(problem)}$"):
            kinds.encode(type_.name, changed)
    else:
        found = kinds.decode(type_.name, kinds.encode(type_.name, changed)[4:])
        assert comparable(found) == comparable(expected(type_, changed))


def test_documented_function_is_the_one_that_is_made(tmp_path: Any) -> None:
    (tmp_path / "example.fbs").write_text("table RtcpFeedback { type: string (required); parameter: string; }")
    source = function_source(TableLayout(load_schema(tmp_path).tables["RtcpFeedback"]))
    assert indent(source, "    ") in (flatbuffers_encoder.__doc__ or "")
