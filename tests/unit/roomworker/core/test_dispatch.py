"""Arbitrary JSON at every method is answered with an error that names a field and leaves the room unchanged."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.protocol import client
from shared.protocol.decoding import DEPTH_LIMIT, WRAPPING
from tests.support.sampling import examples
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, OPUS, VP8, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import snapshot

REQUESTS: dict[str, dict[str, Any]] = {
    "queryRoom": {},
    "join": {"peerName": "alice", "rtpCapabilities": CAPABILITIES},
    "createTransport": {"id": 5, "direction": "send", "options": {"udp": True}, "dtlsParameters": DTLS},
    "restartTransport": {"id": 1},
    "createProducer": {"id": 5, "kind": "video", "transportId": 1, "rtpParameters": VP8, "paused": False},
    "enableConsumer": {"id": 2, "transportId": 1, "paused": False, "preferredProfile": "low"},
}
NOTIFICATIONS: dict[str, dict[str, Any]] = {
    "leave": {},
    "updateTransport": {"id": 1, "dtlsParameters": DTLS},
    "closeTransport": {"id": 1},
    "pauseProducer": {"id": 10},
    "resumeProducer": {"id": 10},
    "closeProducer": {"id": 10},
    "pauseConsumer": {"id": 2},
    "resumeConsumer": {"id": 2},
    "setConsumerPreferredProfile": {"id": 2, "profile": "low"},
    "updateProducer": {"id": 10, "rtpParameters": OPUS},
    **{
        f"{do}{what}Stats": {"id": 1}
        for do in ("enable", "disable")
        for what in ("Transport", "Producer", "Consumer")
    },
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def room() -> tuple[RoomHarness, Client]:
    """A call of alice and bob; returns alice."""
    harness = RoomHarness()
    bob = harness.sending("bob")
    alice = harness.sending("alice")
    bob.produce(10)
    alice.produce(10)
    return harness, alice


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in paths(child, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


def check(harness: RoomHarness, alice: Client, answer: dict[str, Any], before: dict[str, Any]) -> None:
    if answer.get("ok"):
        return
    code, reason = error_of(answer)
    assert code in (400, 403, 404, 409), answer
    field, _, what = reason.partition(":")
    assert all((field.strip(), what.strip())), f"names no field: {reason}"
    after = snapshot(harness.room)
    for records in (before, after):
        records.pop(f"session|{alice.peer}")
    assert after == before


@settings(max_examples=examples(250), deadline=None)
@given(method=st.sampled_from(sorted(REQUESTS)), data=st.data(), by=JSON)
def test_any_value_in_a_request_is_accepted_or_rejected_naming_its_field(
    method: str, data: st.DataObject, by: Any
) -> None:
    harness, alice = room()
    if method == "join":
        alice = harness.connected("alice")
    message = {"method": method, **REQUESTS[method]}
    path = data.draw(st.sampled_from(paths(message)))
    before = snapshot(harness.room)

    alice.ids += 1
    body = json.dumps(replaced(message, path, by)).encode()
    harness.receive(alice.input(client.REQUEST, alice.ids, body))

    (answer,) = alice.answers(alice.ids)
    check(harness, alice, answer, before)
    assert not harness.defects
    assert snapshot(harness.reloaded()) == snapshot(harness.room)


@settings(max_examples=examples(150), deadline=None)
@given(method=st.sampled_from(sorted(NOTIFICATIONS)), data=st.data(), by=JSON)
def test_any_value_in_a_notification_leaves_the_room_intact(method: str, data: st.DataObject, by: Any) -> None:
    harness, alice = room()
    message = {"method": method, "notification": True, **NOTIFICATIONS[method]}
    path = data.draw(st.sampled_from(paths(message)))

    harness.receive(alice.input(client.NOTIFICATION, None, json.dumps(replaced(message, path, by)).encode()))

    assert not harness.defects
    assert snapshot(harness.reloaded()) == snapshot(harness.room)
    assert harness.room.sessions[alice.session].n_in == alice.n


@settings(max_examples=examples(100), deadline=None)
@given(method=st.sampled_from([client.REQUEST, client.NOTIFICATION, "chat", ""]), body=st.binary(max_size=30))
def test_arbitrary_bytes_are_rejected(method: str, body: bytes) -> None:
    harness, alice = room()
    before = snapshot(harness.room)
    alice.ids += 1

    harness.receive(alice.input(method, alice.ids, body))

    (answer,) = alice.answers(alice.ids)
    check(harness, alice, answer, before)
    assert not harness.defects


@pytest.mark.parametrize(
    ("method", "body", "reason"),
    [
        (client.REQUEST, '{"method":"fly"}', "method: unknown method 'fly'"),
        (client.REQUEST, '{"method":"leave"}', "method: unknown method 'leave'"),
        (client.REQUEST, "{}", "method: missing"),
        (client.REQUEST, "[]", "data: expected object, got array"),
        (client.REQUEST, '{"method":"restartTransport"}', "id: missing"),
        (client.REQUEST, '{"method":"restartTransport","id":"1"}', "id: expected int, got str"),
        (client.REQUEST, '{"method":"restartTransport","id":-1}', "id: expected int >= 0"),
        ("chat", "{}", "method: unknown method 'chat'"),
    ],
)
def test_reason_of_an_error_names_the_field(method: str, body: str, reason: str) -> None:
    harness, alice = room()
    alice.ids += 1

    harness.receive(alice.input(method, alice.ids, body.encode()))

    (answer,) = alice.answers(alice.ids)
    assert error_of(answer) == (400, reason)


@pytest.mark.parametrize("levels", [DEPTH_LIMIT + WRAPPING, 500, 5000, 200_000])
def test_deeply_nested_data_is_rejected_as_bad_payload(levels: int) -> None:
    harness, alice = room()
    alice.ids += 1

    harness.receive(
        alice.input(client.REQUEST, alice.ids, b'{"method":"queryRoom","x":' + b"[" * levels + b"]" * levels + b"}")
    )

    (answer,) = alice.answers(alice.ids)
    assert error_of(answer)[0] == 400
    assert not harness.defects


def test_data_nested_as_deeply_as_a_gateway_accepts_is_handled() -> None:
    harness, alice = room()
    alice.ids += 1
    levels = DEPTH_LIMIT - 1

    harness.receive(
        alice.input(client.REQUEST, alice.ids, b'{"method":"queryRoom","x":' + b"[" * levels + b"]" * levels + b"}")
    )

    (answer,) = alice.answers(alice.ids)
    assert answer["ok"]


def test_request_sent_as_protoo_notification_is_not_applied() -> None:
    harness, alice = room()
    body = json.dumps({"method": "createTransport", "id": 77, "direction": "send"}).encode()

    harness.receive(alice.input(client.REQUEST, None, body))

    assert 77 not in harness.room.peers["alice"].transports


def test_notification_sent_as_protoo_request_is_answered() -> None:
    """Older clients send notifications so."""
    harness, alice = room()
    alice.ids += 1

    harness.receive(alice.input(client.NOTIFICATION, alice.ids, b'{"method":"pauseProducer","id":10}'))

    assert alice.answers(alice.ids) == [{"response": True, "id": alice.ids, "ok": True, "data": {}}]
    assert harness.room.peers["alice"].producers[10].paused


def test_every_message_of_the_protocol_is_tried_here() -> None:
    assert {*REQUESTS, *NOTIFICATIONS} == set(client.KIND_BY_METHOD)


def test_every_kind_of_message_is_a_request_or_a_notification() -> None:
    assert {*get_args(client.Request), *get_args(client.Notification)} == set(client.KIND_BY_METHOD.values())
