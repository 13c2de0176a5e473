"""Requests become actions, and the OpenAPI document describes all of them."""

from collections.abc import Iterator
from typing import get_args

import msgspec
import pytest
from msgspec import Raw
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api import openapi
from gateway.api.operations import OPERATIONS, Operation, check_name
from shared.errors import BadPayload
from shared.protocol import actions
from shared.protocol.actions import (
    ClosePeer,
    CloseProducer,
    CloseRoom,
    CreateRoom,
    InspectRoom,
    RoomLimits,
    SendMessage,
    SetConsumerProfile,
    SetMaxBitrate,
)

NAMED = {operation.name: operation for operation in OPERATIONS}
PATH = {"room": "salon", "peer": "123", "id": "7"}


def read(name: str, body: bytes = b"", **path: str) -> actions.AnyAction:
    return NAMED[name].read(PATH | path, body)


@pytest.mark.parametrize(
    ("name", "body", "action"),
    [
        ("inspectRoom", b"", InspectRoom()),
        ("createRoom", b"", CreateRoom()),
        ("createRoom", b'{"limits":{"peers":3},"idleSeconds":0}', CreateRoom(None, RoomLimits(3), 0)),
        ("closePeer", b"", ClosePeer("123")),
        ("setMaxBitrate", b'{"bitrate": 5}', SetMaxBitrate("123", 7, 5)),
        ("setConsumerProfile", b'{"profile":"low"}', SetConsumerProfile("123", 7, "low")),
        ("closeProducer", b" {} ", CloseProducer("123", 7)),
    ],
)
def test_path_and_body_make_the_action(name: str, body: bytes, action: actions.AnyAction) -> None:
    assert read(name, body) == action


def test_any_json_data_is_passed_on_unchanged() -> None:
    sent = read("sendToRoom", '{"data": {"a": [1, "ü☺"]}}'.encode())
    assert isinstance(sent, SendMessage)
    assert (sent.peer, bytes(sent.data)) == (None, '{"a": [1, "ü☺"]}'.encode())
    sent = read("sendToPeer", b'{"data": null}')
    assert isinstance(sent, SendMessage)
    assert (sent.peer, bytes(sent.data)) == ("123", b"null")


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("sendToRoom", b"", "data: missing"),
        ("sendToRoom", b"[1]", "body: expected object, got array"),
        ("sendToRoom", b'{"data": 1', "body: not valid JSON"),
        ("sendToRoom", b'{"data": "\xff"}', "body: not valid JSON"),
        ("sendToRoom", b'{"data": "\\ud800"}', "body: not valid JSON"),
        ("sendToRoom", b'{"data": ' + b"[" * 65 + b"]" * 65 + b"}", "body: more than 64 levels deep"),
        ("sendToRoom", b'{"data": ' + b"[" * 99999 + b"]" * 99999 + b"}", "body: "),
        ("sendToRoom", b'{"data": 1, "peer": "bob"}', "peer: unknown field; there are data"),
        ("setMaxBitrate", b'{"bitrate": "5"}', "bitrate: expected int, got str"),
        ("setMaxBitrate", b'{"bitrate": -1}', "bitrate: expected int >= 0"),
        ("setConsumerProfile", b'{"profile": "best"}', "profile: invalid enum value 'best'"),
        ("createRoom", b'{"limits": {"peers": 0}}', "limits.peers: expected int >= 1"),
        ("createRoom", b'{"codecs": []}', "codecs: expected array of length >= 1"),
        ("createRoom", b'{"do": "closeRoom"}', "do: unknown field"),
    ],
)
def test_an_invalid_body_is_rejected_with_the_fields_name(name: str, body: bytes, reason: str) -> None:
    with pytest.raises(BadPayload) as refused:
        read(name, body)
    assert refused.value.reason.startswith(reason)


@pytest.mark.parametrize("id_", ["x", "-1", "7.0", "٧", "9007199254740992", "9" * 99, ""])
def test_an_id_that_is_no_number_is_rejected(id_: str) -> None:
    with pytest.raises(BadPayload, match=r"^id: expected int"):
        read("closeProducer", id=id_)


def test_app_data_of_any_size_is_left_to_the_room_to_check() -> None:
    sent = read("closeRoom", msgspec.json.encode({"appData": "x" * 100_000}))
    assert isinstance(sent, CloseRoom)
    assert isinstance(sent.app_data, Raw)
    assert len(sent.app_data) == 100_002


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\udcff"])
def test_an_invalid_name_in_a_path_is_rejected(name: str) -> None:
    with pytest.raises(BadPayload, match=r"^peer: expected 1 to 128 bytes"):
        check_name("peer", name)


def test_every_action_has_an_operation() -> None:
    assert {operation.action for operation in OPERATIONS} - {None} == set(get_args(actions.AnyAction))


# --- the document ---------------------------------------------------------------------------------------------


def test_the_document_is_valid_openapi() -> None:
    document = msgspec.json.decode(msgspec.json.encode(openapi.document("1.2.3")))
    OpenAPIV31SpecValidator(document).validate()
    assert document["info"]["version"] == "1.2.3"


def described() -> Iterator[tuple[Operation, dict[str, object]]]:
    paths = openapi.document("1")["paths"]
    for operation in OPERATIONS:
        yield operation, paths[operation.path][operation.method.lower()]


def test_every_operation_is_described_with_all_its_parameters() -> None:
    for operation, description in described():
        assert description["operationId"] == operation.name
        taken = [parameter["name"] for parameter in description["parameters"]]  # type: ignore[attr-defined]
        idempotency = ["Idempotency-Key"] if operation.changes else []
        assert taken == [*operation.parameters, *operation.query, *idempotency]
        assert ("requestBody" in description) is bool(operation.body)


def test_every_reference_in_the_openapi_document_resolves() -> None:
    document = openapi.document("1")

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                if name == "$ref":
                    yield value
                yield from references(value)
        elif isinstance(node, list | tuple):
            for value in node:
                yield from references(value)

    for reference in references(document):
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_page_lists_all_operations_and_loads_nothing() -> None:
    page = openapi.page()
    assert all(f"{operation.method} {operation.path}" in page for operation in OPERATIONS)
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
