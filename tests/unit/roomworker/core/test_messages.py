"""Messages between peers, and from the application's server."""

import json
from typing import Any

import pytest

from roomworker.core.limits import Limits
from shared.protocol import client
from tests.unit.roomworker.call_of_three import CallOfThree
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def say(sender: Client, data: str, to: str = "") -> Json:
    """Sends `data`, written as JSON, and returns the answer."""
    sender.ids += 1
    addressed = f',"to":{json.dumps(to)}' if to else ""
    sender.harness.receive(
        sender.input(client.MESSAGE, sender.ids, f'{{"data":{data}{addressed}}}'.encode()), sender.gateway
    )
    answer = sender.answer(sender.ids)
    assert answer is not None
    return answer


def messages_to(receiver: Client) -> list[Json]:
    return [frame["data"] for frame in receiver.frames if frame.get("method") == "message"]


def test_message_reaches_all_others_and_its_sender_gets_an_answer() -> None:
    call = CallOfThree()

    assert say(call.alice, '"hello"') == {"response": True, "id": call.alice.ids, "ok": True, "data": {}}

    assert messages_to(call.bob) == messages_to(call.carol) == [{"from": "alice", "data": "hello"}]
    assert messages_to(call.alice) == []


def test_message_to_one_peer_reaches_only_that_peer() -> None:
    call = CallOfThree()

    assert say(call.alice, "1", to="bob")["ok"]

    assert messages_to(call.bob) == [{"from": "alice", "data": 1}]
    assert (messages_to(call.alice), messages_to(call.carol)) == ([], [])


def test_message_sent_as_a_notification_is_relayed_without_answer() -> None:
    call = CallOfThree()

    call.harness.receive(call.alice.input(client.MESSAGE, None, b'{"data":1}'))

    assert messages_to(call.bob) == [{"from": "alice", "data": 1}]
    assert call.alice.frames == []


def test_message_in_a_room_of_one_reaches_no_peer() -> None:
    harness = RoomHarness()

    assert say(harness.joined("alice"), "1")["ok"]


def test_message_to_an_unknown_peer_is_rejected_and_reaches_no_peer() -> None:
    call = CallOfThree()
    call.harness.connected("dave")

    for to in ("zoe", "dave"):
        assert error_of(say(call.alice, "1", to=to)) == (404, f"to: no peer '{to}'")
    assert (messages_to(call.bob), messages_to(call.carol)) == ([], [])


def test_session_that_has_not_joined_neither_sends_nor_gets_messages() -> None:
    call = CallOfThree()
    dave = call.harness.connected("dave")

    assert error_of(say(dave, "1")) == (409, "peer: join first")
    say(call.alice, "1")

    assert messages_to(call.bob)
    assert messages_to(dave) == []


def test_spy_gets_messages_and_sends_under_its_name() -> None:
    call = CallOfThree()
    spy = call.harness.joined("eve", spy=True)

    say(call.alice, '"secret"')
    say(spy, '"boo"')
    say(call.bob, '"you there"', to="eve")

    assert messages_to(spy) == [{"from": "alice", "data": "secret"}, {"from": "bob", "data": "you there"}]
    assert messages_to(call.bob)[-1] == {"from": "eve", "data": "boo"}


def test_message_that_is_too_large_is_rejected() -> None:
    harness = RoomHarness()
    harness.limits = Limits(message_bytes=10)
    harness.crash()
    alice, bob = harness.joined("alice"), harness.joined("bob")

    assert say(alice, '"12345678"')["ok"]
    assert error_of(say(alice, '"123456789"')) == (413, "data: larger than 10 bytes")

    assert messages_to(bob) == [{"from": "alice", "data": "12345678"}]


@pytest.mark.parametrize(
    "value",
    ['"\\u00e9 é 😀"', "1e400", "-0.0", "123456789012345678901234567890", '{ "a" : [ ] }', "null"],
)
def test_data_of_a_message_is_relayed_byte_for_byte(value: str) -> None:
    """The worker does not parse `data`: the gateway has checked that it is valid JSON."""
    call = CallOfThree()
    bodies: list[bytes] = []
    call.harness.observers.append(lambda changes: bodies.extend(message.body for message in changes.messages))

    assert say(call.alice, value)["ok"]

    said = f'{{"notification":true,"method":"message","data":{{"from":"alice","data":{value}}}}}'
    assert said.encode() in bodies


def test_message_with_a_lone_surrogate_is_rejected() -> None:
    """Half of a surrogate pair can be written as an escape, but no receiver could decode it."""
    call = CallOfThree()

    assert error_of(say(call.alice, '"\\ud83d"'))[0] == 400

    assert messages_to(call.bob) == []


def test_sender_name_is_escaped_in_the_frame() -> None:
    harness = RoomHarness()
    bob, quoting = harness.joined("bob"), harness.joined('"},"x":{"')

    say(quoting, "1")

    assert messages_to(bob) == [{"from": '"},"x":{"', "data": 1}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "data"),
        (b'{"data":1,"to":7}', "to"),
        (b'{"data":1,"to":""}', "to"),
        (b"[]", "data"),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "data"),
    ],
    ids=["no data", "to a number", "to an empty name", "a list", "too deep"],
)
def test_malformed_message_is_rejected_naming_the_field(body: bytes, field: str) -> None:
    call = CallOfThree()

    call.harness.receive(call.alice.input(client.MESSAGE, 99, body))

    code, reason = error_of(call.alice.answers(99)[0])
    assert code == 400
    assert reason.startswith(f"{field}: ")
    assert not call.harness.defects


def test_messages_are_ordered_with_all_other_outputs() -> None:
    call = CallOfThree()
    call.harness.prompt = False

    call.alice.notify("closeProducer", id=10)
    call.harness.receive(call.alice.input(client.MESSAGE, None, b'{"data":"after closing"}'))
    call.alice.request("createProducer", id=11, kind="audio", transportId=1, rtpParameters=OPUS)
    call.harness.receive(call.alice.input(client.MESSAGE, None, b'{"data":"after producing"}'))
    call.harness.answer()
    call.harness.commit()

    order: list[Any] = [
        frame["data"]["data"] if frame["method"] == "message" else frame["data"]["method"]
        for frame in call.bob.frames
    ]
    assert order == ["consumerClosed", "after closing", "newConsumer", "after producing"]


# --- from the application's server --------------------------------------------------------------------------------


def test_server_message_to_all_has_no_sender() -> None:
    call = CallOfThree()

    call.backend.do("sendMessage", data={"a": "é"})

    for peer in (call.alice, call.bob, call.carol):
        assert messages_to(peer) == [{"data": {"a": "é"}}]


def test_server_message_to_one_peer_reaches_only_that_peer() -> None:
    call = CallOfThree()

    call.backend.do("sendMessage", data=None, peer="bob")

    assert messages_to(call.bob) == [{"data": None}]
    assert (messages_to(call.alice), messages_to(call.carol)) == ([], [])


def test_server_message_is_relayed_byte_for_byte_and_once() -> None:
    call = CallOfThree()
    bodies: list[bytes] = []
    call.harness.observers.append(lambda changes: bodies.extend(message.body for message in changes.messages))

    for _ in range(2):
        call.backend.raw('{"do":"sendMessage","data":[1e400, "é"]}', key="k")

    assert bodies == ['{"notification":true,"method":"message","data":{"data":[1e400, "é"]}}'.encode()]


def test_server_message_has_the_same_size_limit() -> None:
    harness = RoomHarness()
    harness.limits = Limits(message_bytes=3)
    harness.crash()
    call = CallOfThree(harness=harness)

    assert call.backend.call("sendMessage", data="xx") == (413, "data: larger than 3 bytes")
    assert call.backend.call("sendMessage") == (400, "data: missing")


def test_server_message_in_a_room_without_peers_reaches_no_session() -> None:
    call = CallOfThree(harness=RoomHarness())
    call.backend.do("closeRoom")
    dave = call.harness.connected("dave")

    call.backend.do("sendMessage", data=1)

    assert messages_to(dave) == []
    assert dave.ask("join", peerName="dave", rtpCapabilities=CAPABILITIES)["ok"]
