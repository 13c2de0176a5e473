"""Calls of the server API: notifications, orders to the media node, and idempotency."""

from typing import Any

import pytest

from roomworker.core import api_calls
from roomworker.core.limits import Limits
from roomworker.core.room import Room
from shared.protocol import media
from tests.unit.roomworker.backend import OK, Backend
from tests.unit.roomworker.call_of_three import CallOfThree
from tests.unit.roomworker.payloads import Json
from tests.unit.roomworker.room_harness import RoomHarness

ANY_JSON = ["null", "false", "0", '""', '{"a":[1,null,"é"]}', "1e400", "[ 1 ,2]", "12345678901234567890123"]
"""appData that a parser would change: it is passed on byte for byte."""


# --- producers ----------------------------------------------------------------------------------------------------


def test_producer_paused_by_server_notifies_sender_and_enabled_receivers() -> None:
    call = CallOfThree()

    call.backend.do("pauseProducer", peer="alice", id=10, appData="why")
    assert call.notified == {"alice": ["producerPaused"], "bob": ["consumerPaused"]}
    assert call.alice.notifications_of("producerPaused") == [{"id": 10, "appData": "why"}]
    assert call.bob.notifications_of("consumerPaused") == [{"id": call.consumer, "peerName": "alice"}]
    assert call.ordered == [(media.Pause, call.producer_engine)]

    call.clear_sent()
    call.backend.do("resumeProducer", peer="alice", id=10)
    assert call.alice.notifications_of("producerResumed") == [{"id": 10}]
    assert call.bob.notifications_of("consumerResumed") == [{"id": call.consumer, "peerName": "alice"}]
    assert call.ordered == [(media.Resume, call.producer_engine)]


def test_pausing_a_paused_producer_by_the_server_notifies_only_its_sender() -> None:
    call = CallOfThree()
    call.alice.notify("pauseProducer", id=10)
    call.clear_sent()

    call.backend.do("pauseProducer", peer="alice", id=10)
    call.alice.notify("resumeProducer", id=10)

    assert call.notified == {"alice": ["producerPaused"]}
    assert call.ordered == []
    call.backend.do("resumeProducer", peer="alice", id=10)
    assert call.notified == {"alice": ["producerPaused", "producerResumed"], "bob": ["consumerResumed"]}
    assert call.ordered == [(media.Resume, call.producer_engine)]


def test_producer_closed_by_the_server_notifies_sender_and_all_others() -> None:
    call = CallOfThree()
    source = call.producer_engine

    call.backend.do("closeProducer", peer="alice", id=10, appData={"rule": 7})

    closed = {"id": call.consumer, "peerName": "alice"}
    assert call.alice.notifications_of("producerClosed") == [{"id": 10, "appData": {"rule": 7}}]
    assert call.bob.notifications_of("consumerClosed") == call.carol.notifications_of("consumerClosed") == [closed]
    assert call.notified == {"alice": ["producerClosed"], "bob": ["consumerClosed"], "carol": ["consumerClosed"]}
    assert call.ordered == [(media.Close, source)]
    assert call.backend.call("closeProducer", peer="alice", id=10) == (404, "id: no producer 10")


# --- consumers ----------------------------------------------------------------------------------------------------


def test_consumer_paused_by_the_server_notifies_only_its_peer() -> None:
    call = CallOfThree()

    call.backend.do("pauseConsumer", peer="bob", id=call.consumer, appData=[1])
    assert call.notified == {"bob": ["consumerPaused"]}
    assert call.bob.notifications_of("consumerPaused") == [{"id": call.consumer, "peerName": "alice", "appData": [1]}]
    assert call.ordered == [(media.Pause, call.consumer_engine)]

    call.clear_sent()
    call.backend.do("resumeConsumer", peer="bob", id=call.consumer)
    assert call.bob.notifications_of("consumerResumed") == [{"id": call.consumer, "peerName": "alice"}]
    assert call.ordered == [(media.Resume, call.consumer_engine)]


def test_disabled_consumer_is_paused_silently_and_starts_paused() -> None:
    call = CallOfThree()

    call.backend.do("pauseConsumer", peer="carol", id=call.consumer)
    assert (call.notified, call.ordered) == ({}, [])

    assert call.carol.enable(call.consumer)["data"]["paused"] is True
    consumed = call.harness.requests[-1]
    assert isinstance(consumed, media.Consume)
    assert consumed.paused


def test_consumer_of_a_paused_producer_is_paused_silently() -> None:
    """Nothing changes for the receiver (as in the published Consumer)."""
    call = CallOfThree()
    call.alice.notify("pauseProducer", id=10)
    call.clear_sent()

    call.backend.do("pauseConsumer", peer="bob", id=call.consumer)
    assert (call.notified, call.ordered) == ({}, [(media.Pause, call.consumer_engine)])

    call.alice.notify("resumeProducer", id=10)
    assert call.notified == {}, "the consumer is paused by the server anyway"


def test_consumer_paused_by_its_peer_stays_paused_if_the_server_resumes_it() -> None:
    call = CallOfThree()
    call.bob.notify("pauseConsumer", id=call.consumer)
    call.clear_sent()

    call.backend.do("pauseConsumer", peer="bob", id=call.consumer)
    call.backend.do("resumeConsumer", peer="bob", id=call.consumer)

    assert call.notified == {"bob": ["consumerPaused", "consumerResumed"]}
    assert call.ordered == []


def test_profile_set_by_the_server_notifies_the_peer_enabled_or_not() -> None:
    call = CallOfThree("video")

    for peer in ("bob", "carol"):
        call.backend.do("setConsumerProfile", peer=peer, id=call.consumer, profile="low")

    expected = [{"id": call.consumer, "peerName": "alice", "profile": "low"}]
    assert call.bob.notifications_of("consumerPreferredProfileSet") == expected
    assert call.carol.notifications_of("consumerPreferredProfileSet") == expected
    assert call.ordered == [(media.SetPreferredProfile, call.consumer_engine)]
    assert call.carol.enable(call.consumer)["data"]["preferredProfile"] == "low"


def test_key_frame_is_requested_only_for_flowing_video() -> None:
    call = CallOfThree("video")

    call.backend.do("requestKeyFrame", peer="bob", id=call.consumer)
    assert call.ordered == [(media.RequestKeyFrame, call.consumer_engine)]

    refused = (409, f"id: consumer {call.consumer} is sending no video")
    assert call.backend.call("requestKeyFrame", peer="carol", id=call.consumer) == refused
    call.bob.notify("pauseConsumer", id=call.consumer)
    assert call.backend.call("requestKeyFrame", peer="bob", id=call.consumer) == refused
    sound = CallOfThree()
    assert sound.backend.call("requestKeyFrame", peer="bob", id=sound.consumer) == refused


# --- transports ---------------------------------------------------------------------------------------------------


def test_transport_closed_by_the_server_notifies_and_closes_producers() -> None:
    call = CallOfThree()
    engine = call.harness.room.peers["alice"].transports[1].engine

    call.backend.do("closeTransport", peer="alice", id=1, appData=None)

    assert call.alice.notifications_of("transportClosed") == [{"id": 1, "appData": None}]
    assert call.notified == {"alice": ["transportClosed"], "bob": ["consumerClosed"], "carol": ["consumerClosed"]}
    assert call.ordered == [(media.Close, engine)]


def test_consumers_of_a_closed_receiving_transport_may_be_enabled_again() -> None:
    call = CallOfThree()

    call.backend.do("closeTransport", peer="bob", id=2)

    assert call.notified == {"bob": ["transportClosed"]}
    call.bob.ask("createTransport", id=2, direction="recv")
    assert call.bob.enable(call.consumer)["ok"]


def test_sending_transport_may_be_given_a_maximum_bitrate() -> None:
    call = CallOfThree()
    engine = call.harness.room.peers["alice"].transports[1].engine

    call.backend.do("setMaxBitrate", peer="alice", id=1, bitrate=500_000)

    assert call.notified == {}
    (order,) = call.harness.orders
    assert isinstance(order, media.SetMaxIncomingBitrate)
    assert (order.object, order.bitrate) == (engine, 500_000)
    assert call.backend.call("setMaxBitrate", peer="bob", id=2, bitrate=1) == (
        409,
        "id: transport 2 is for receiving",
    )


# --- peers --------------------------------------------------------------------------------------------------------


def test_peer_closed_by_the_server_is_told_and_its_socket_closed_for_good() -> None:
    call = CallOfThree()

    call.backend.do("closePeer", peer="alice", appData={"why": "noise"})

    assert call.alice.notifications_of("closed") == [{"appData": {"why": "noise"}}]
    assert (call.alice.close_code, call.alice.sent[-1].close) == (4000, 4000)
    assert call.notified == {"alice": ["closed"], "bob": ["peerClosed"], "carol": ["peerClosed"]}
    assert call.bob.notifications_of("peerClosed") == [{"name": "alice", "appData": {"why": "noise"}}]
    assert list(call.harness.room.session_of) == ["bob", "carol"]
    assert call.harness.room.peers["bob"].consumers == {}


def test_peer_closed_before_joining_loses_its_socket_silently() -> None:
    call = CallOfThree()
    dave = call.harness.connected("dave")

    call.backend.do("closePeer", peer="dave")

    assert dave.close_code == 4000
    assert dave.notifications == []
    assert call.notified == {}
    assert call.backend.call("closePeer", peer="dave") == (404, "peer: no peer 'dave'")


def test_pending_requests_of_a_closed_peer_are_abandoned_and_released() -> None:
    call = CallOfThree()
    call.harness.prompt = False
    call.alice.request("createTransport", id=3, direction="send")
    (asked,) = call.harness.pending_requests

    call.backend.send(call.backend.item("closePeer", peer="alice"))
    call.harness.answer()
    call.harness.commit()

    assert isinstance(asked.request, media.CreateTransport)
    assert asked.request.transport in [order.object for order in call.harness.orders]
    assert not call.harness.jobs


# --- nothing, and what is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("twice", "fields"),
    [
        ("pauseProducer", {"peer": "alice", "id": 10}),
        ("resumeProducer", {"peer": "alice", "id": 10}),
        ("pauseConsumer", {"peer": "bob", "id": None}),
        ("resumeConsumer", {"peer": "bob", "id": None}),
        ("setConsumerProfile", {"peer": "bob", "id": None, "profile": "low"}),
        ("setConsumerProfile", {"peer": "bob", "id": None, "profile": "default"}),
    ],
)
def test_call_that_changes_nothing_sends_no_notification(twice: str, fields: Json) -> None:
    call = CallOfThree("video")
    fields = {**fields, "id": fields["id"] or call.consumer}
    call.backend.do(twice, **fields)
    call.clear_sent()

    call.backend.do(twice, **fields)

    assert (call.notified, call.ordered) == ({}, [])


NAMING_A_PEER: list[tuple[str, Json]] = [
    ("inspectPeer", {}),
    ("closePeer", {}),
    ("closeTransport", {"id": 1}),
    ("setMaxBitrate", {"id": 1, "bitrate": 1}),
    ("pauseProducer", {"id": 10}),
    ("resumeProducer", {"id": 10}),
    ("closeProducer", {"id": 10}),
    ("pauseConsumer", {"id": 1}),
    ("resumeConsumer", {"id": 1}),
    ("setConsumerProfile", {"id": 1, "profile": "low"}),
    ("requestKeyFrame", {"id": 1}),
    ("sendMessage", {"data": 1}),
]


@pytest.mark.parametrize(("do", "fields"), NAMING_A_PEER)
def test_unknown_peer_is_named_in_the_error(do: str, fields: Json) -> None:
    assert CallOfThree().backend.call(do, peer="zoe", **fields) == (404, "peer: no peer 'zoe'")


@pytest.mark.parametrize(("do", "fields"), [(do, fields) for do, fields in NAMING_A_PEER if "id" in fields])
def test_unknown_object_is_named_in_the_error(do: str, fields: Json) -> None:
    code, reason = CallOfThree().backend.call(do, peer="alice", **{**fields, "id": 77})

    assert code == 404
    assert reason.startswith("id: no ")
    assert reason.endswith(" 77")


@pytest.mark.parametrize(("do", "fields"), [*NAMING_A_PEER, ("inspectRoom", {}), ("closeRoom", {})])
def test_unknown_room_is_named_in_the_error_and_not_created(do: str, fields: Json) -> None:
    harness = RoomHarness()

    assert Backend(harness).call(do, **{"peer": "alice", **fields}) == (404, "room: no room 'room'")
    assert (harness.fields, harness.n, harness.jobs) == ({}, 0, {})


@pytest.mark.parametrize(
    ("action", "field"),
    [
        ("{", "action"),
        ("[]", "data"),
        ('{"peer":"alice"}', "do"),
        ('{"do":"dance"}', "do"),
        ('{"do":"closeProducer","peer":"alice"}', "id"),
        ('{"do":"closeProducer","peer":"alice","id":"10"}', "id"),
        ('{"do":"closePeer","peer":""}', "peer"),
        ('{"do":"setConsumerProfile","peer":"bob","id":1,"profile":"best"}', "profile"),
        ('{"do":"setMaxBitrate","peer":"alice","id":1,"bitrate":-1}', "bitrate"),
        ('{"do":"createRoom","limits":{"peers":0}}', "limits.peers"),
        ('{"do":"closeRoom","appData":' + "[" * 100_000 + "}", "action"),
    ],
)
def test_malformed_action_is_rejected_naming_the_field(action: str, field: str) -> None:
    call = CallOfThree()

    code, reason = call.backend.raw(action)

    assert code == 400
    assert reason.startswith(f"{field}: ")
    assert call.notified == {}


# --- appData ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ANY_JSON)
@pytest.mark.parametrize(
    ("do", "fields", "to"),
    [
        ("pauseProducer", '"peer":"alice","id":10', "alice"),
        ("closeProducer", '"peer":"alice","id":10', "alice"),
        ("pauseConsumer", '"peer":"bob","id":%d', "bob"),
        ("closeTransport", '"peer":"alice","id":1', "alice"),
        ("closePeer", '"peer":"alice"', "alice"),
        ("closePeer", '"peer":"alice"', "bob"),
        ("closeRoom", "", "carol"),
    ],
)
def test_app_data_is_passed_on_byte_for_byte(do: str, fields: str, to: str, value: str) -> None:
    call = CallOfThree()
    fields = fields.replace("%d", str(call.consumer))

    code, _ = call.backend.raw(f'{{"do":"{do}",{fields}{"," if fields else ""}"appData":{value}}}')

    assert code == OK
    receiver = next(peer for peer in (call.alice, call.bob, call.carol) if peer.peer == to)
    bodies = [sent.body.decode() for sent in receiver.sent if not sent.close]
    assert [body for body in bodies if f'"appData":{value}}}' in body], bodies


@pytest.mark.parametrize(
    ("do", "fields"),
    [
        ("closeRoom", {}),
        ("closePeer", {"peer": "alice"}),
        ("closeTransport", {"peer": "alice", "id": 1}),
        ("pauseProducer", {"peer": "alice", "id": 10}),
        ("resumeProducer", {"peer": "alice", "id": 10}),
        ("closeProducer", {"peer": "alice", "id": 10}),
        ("pauseConsumer", {"peer": "bob", "id": 0}),
        ("resumeConsumer", {"peer": "bob", "id": 0}),
    ],
)
def test_app_data_above_the_limit_is_413_for_every_call(do: str, fields: Json) -> None:
    call = CallOfThree()
    call.harness.limits = Limits(app_data_bytes=10)
    call.harness.crash()
    call.clear_sent()

    assert call.backend.call(do, **fields, appData="x" * 9) == (413, "appData: larger than 10 bytes")
    assert call.notified == {}
    assert call.ordered == []


@pytest.mark.parametrize("do", ["closePeer", "closeRoom"])
def test_absent_app_data_stays_absent(do: str) -> None:
    call = CallOfThree()

    call.backend.do(do, **({"peer": "alice"} if do == "closePeer" else {}))

    assert call.alice.notifications_of("closed") == [{}]


# --- reading ------------------------------------------------------------------------------------------------------


def test_inspect_room_shows_its_state() -> None:
    call = CallOfThree()
    call.harness.connected("dave")
    call.harness.joined("eve", spy=True, appData={"role": "recorder"})

    assert call.backend.do("inspectRoom") == {
        "name": "room",
        "connections": 5,
        "peers": [
            {"name": "alice", "spy": False, "transports": 1, "producers": 1},
            {"name": "bob", "spy": False, "transports": 1, "producers": 0},
            {"name": "carol", "spy": False, "transports": 1, "producers": 0},
            {"name": "eve", "spy": True, "transports": 0, "producers": 0, "appData": {"role": "recorder"}},
        ],
        "mediaNode": "node",
        "codecs": ["opus", "VP8", "H264", "VP9"],
        "limits": {"peers": 500, "transportsPerPeer": 16, "producersPerPeer": 32, "maxIncomingBitrate": 0},
    }


def test_inspect_peer_shows_its_state() -> None:
    call = CallOfThree("video")
    call.backend.do("pauseProducer", peer="alice", id=10)
    call.bob.notify("pauseConsumer", id=call.consumer)
    call.backend.do("setConsumerProfile", peer="bob", id=call.consumer, profile="low")

    assert call.backend.do("inspectPeer", peer="alice") == {
        "name": "alice",
        "gateway": "gateway",
        "spy": False,
        "transports": [{"id": 1, "direction": "send", "connected": True}],
        "producers": [
            {
                "id": 10,
                "consumerId": call.consumer,
                "kind": "video",
                "transportId": 1,
                "locallyPaused": True,
                "remotelyPaused": False,
                "profiles": ["low", "high"],
            }
        ],
        "consumers": [],
    }
    consumer = {
        "id": call.consumer,
        "kind": "video",
        "sourcePeer": "alice",
        "transportId": 2,
        "locallyPaused": False,
        "remotelyPaused": True,
        "sourcePaused": True,
        "preferredProfile": "low",
        "effectiveProfile": "default",
    }
    assert call.backend.do("inspectPeer", peer="bob")["consumers"] == [consumer]
    untouched = call.backend.do("inspectPeer", peer="carol")["consumers"]
    assert [(consumer["id"], consumer["transportId"], consumer["effectiveProfile"]) for consumer in untouched] == [
        (call.consumer, None, None)
    ]


def test_reading_call_is_answered_without_commit_and_never_from_memory() -> None:
    call = CallOfThree()
    before = call.harness.n

    first = call.backend.call("inspectRoom", key="same")
    assert call.harness.n == before
    assert not call.harness.jobs
    call.bob.notify("leave")

    assert call.backend.call("inspectRoom", key="same") != first


# --- once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_call_with_the_same_key_is_done_once_and_answered_the_same(crash: bool) -> None:
    call = CallOfThree()
    first = call.backend.call("pauseProducer", key="k", peer="alice", id=10)
    call.backend.do("resumeProducer", peer="alice", id=10)
    call.clear_sent()
    if crash:
        call.harness.crash()

    assert call.backend.call("pauseProducer", key="k", peer="alice", id=10) == first == (OK, {})
    assert (call.notified, call.ordered) == ({}, [])
    assert call.backend.call("closeRoom", key="k") == first, "the key alone identifies a call"


def test_rejected_call_is_tried_again_with_the_same_key() -> None:
    call = CallOfThree()
    assert call.backend.call("pauseProducer", key="k", peer="alice", id=11)[0] == 404
    call.alice.produce(11)

    assert call.backend.call("pauseProducer", key="k", peer="alice", id=11) == (OK, {})
    assert call.alice.notifications_of("producerPaused") == [{"id": 11}]


def test_call_is_answered_after_its_effect_is_committed() -> None:
    call = CallOfThree()
    call.harness.prompt = False

    n = call.backend.send(call.backend.item("pauseProducer", peer="alice", id=10))
    assert call.harness.take()
    call.harness.store()
    assert call.backend.answers(n) == []
    call.harness.finish()

    assert call.backend.answer(n) == (OK, {})


@pytest.mark.parametrize("stored", [False, True])
def test_call_interrupted_by_a_crash_is_done_and_answered_once(stored: bool) -> None:
    call = CallOfThree()
    call.harness.prompt = False
    n = call.backend.send(call.backend.item("pauseProducer", peer="alice", id=10))
    assert call.harness.take()
    if stored:
        call.harness.store()

    call.harness.crash()
    call.harness.commit()

    assert call.backend.answer(n) == (OK, {})
    assert call.alice.methods == ["producerPaused"]
    assert not call.harness.jobs


def test_call_that_meets_a_defect_is_answered_500_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(room: Room, action: Any) -> None:
        room.take_number()
        raise ZeroDivisionError

    call = CallOfThree()
    numbers = call.harness.room.meta.numbers
    monkeypatch.setattr(api_calls, "inspect_room", broken)

    assert call.backend.call("inspectRoom")[0] == 500
    assert call.harness.room.meta.numbers == numbers
    assert not call.harness.jobs
    assert not call.harness.poisoned


def test_calls_and_client_messages_are_handled_in_order_of_arrival() -> None:
    call = CallOfThree()
    call.harness.prompt = False
    call.alice.notify("closeProducer", id=10)

    n = call.backend.send(call.backend.item("pauseProducer", peer="alice", id=10))
    call.harness.commit()

    assert call.backend.answer(n) == (404, "id: no producer 10")
