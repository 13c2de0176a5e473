"""The order of a room's messages, what is reported to gateways, and what a crash or a defect leaves."""

from typing import Any

import pytest

from roomworker.core import transports
from roomworker.core.room import Room
from roomworker.runtime.executor import Executor
from shared.protocol import bus, media
from tests.unit.roomworker.harness_client import GATEWAY, Client
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, OPUS, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import indexes, snapshot


def reports(harness: RoomHarness) -> list[tuple[str, int, int, bool]]:
    """(session, n, out, again) reported since the last call."""
    found = [(report.session, report.n, report.out, report.again) for _, report in harness.reports]
    harness.reports.clear()
    return found


# --- order --------------------------------------------------------------------------------------------------------


def test_requests_of_a_session_are_answered_in_order_despite_a_slow_node() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    alice.clear_sent()

    first = alice.request("createTransport", id=1, direction="send")
    second = alice.request("queryRoom")
    harness.commit()
    assert alice.frames == []
    harness.answer()
    harness.commit()

    assert [frame["id"] for frame in alice.frames] == [first, second]


def test_sessions_are_handled_independently_of_each_other() -> None:
    harness = RoomHarness(prompt=False)
    alice, bob = harness.joined_slowly("alice"), harness.joined_slowly("bob")

    slow = alice.request("createTransport", id=1, direction="send")
    quick = bob.request("createTransport", id=1, direction="send")
    harness.answer(at=1)
    harness.commit()

    assert bob.answer(quick) is not None
    assert alice.answer(slow) is None


def test_rejected_frame_is_answered_in_its_turn() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    alice.clear_sent()

    alice.request("createTransport", id=1, direction="send")
    alice.n += 1
    harness.receive(bus.RejectedInput(harness.name, alice.session, alice.connection, alice.n, 99, 413, "too large"))
    harness.answer()
    harness.commit()

    assert [frame["id"] for frame in alice.frames][-1] == 99
    assert error_of(alice.frames[-1]) == (413, "too large")


def test_failed_notification_is_applied_without_an_answer() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    alice.clear_sent()

    alice.notify("closeTransport", id=5)

    assert alice.frames == []
    assert harness.room.sessions[alice.session].n_in == alice.n


# --- numbers ------------------------------------------------------------------------------------------------------


def test_a_gap_is_reported_so_that_the_gateway_sends_again_from_there() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    alice.request_item("queryRoom")
    after_the_gap = alice.request_item("queryRoom")

    harness.receive(after_the_gap)

    assert reports(harness) == [(alice.session, 1, 1, True)]
    assert not harness.jobs
    for item in alice.items[-2:]:
        harness.receive(item)
    assert [frame["id"] for frame in alice.frames] == [1, 2, 3]


def test_only_committed_inputs_are_reported() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.connected("alice")
    item = alice.request_item("queryRoom")
    harness.receive(item)

    harness.receive(item)
    assert reports(harness) == []

    harness.commit()
    harness.receive(item)
    assert reports(harness) == [(alice.session, 1, 1, False)]
    assert len(alice.frames) == 1


def test_the_end_of_a_session_is_reported_only_when_it_is_committed() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    alice.disconnect()

    harness.receive(alice.items[-1])
    harness.receive(alice.items[0])
    assert reports(harness) == []
    harness.crash()
    assert not harness.room.exists, "the disconnect is done again"
    harness.commit()

    harness.receive(alice.items[-1])
    assert reports(harness) == [(alice.session, alice.n, 1, False)]


def test_inputs_of_an_unknown_session_are_reported_unknown() -> None:
    harness = RoomHarness()
    stranger = harness.client("stranger")

    harness.receive(stranger.request_item("queryRoom"))

    assert reports(harness) == [(stranger.session, -1, 0, False)]
    assert not harness.jobs


def test_after_a_takeover_gateways_are_sent_the_committed_numbers() -> None:
    harness = RoomHarness()
    alice, bob = harness.joined("alice"), harness.joined("bob")
    harness.crash()

    harness.act(Executor.announce)

    assert sorted(reports(harness)) == sorted([(alice.session, 1, 2, False), (bob.session, 1, 1, False)])


def test_the_position_of_a_session_is_what_is_committed_of_it() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.connected("alice")
    assert harness.executor.position(alice.session) is None
    harness.commit()
    alice.request("queryRoom")
    assert harness.executor.position(alice.session) == (0, 0)
    alice.disconnect()
    assert harness.executor.position(alice.session) == (0, 0)
    harness.commit()
    assert harness.executor.position(alice.session) == (alice.n, 1)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_pending_requests_are_released_when_the_socket_closes() -> None:
    harness = RoomHarness(prompt=False)
    harness.joined_slowly("bob")
    alice = harness.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    alice.request("queryRoom")

    alice.disconnect()
    late = harness.answer()
    harness.commit()

    assert isinstance(late, media.CreateTransport)
    assert late.transport in [order.object for order in harness.orders]
    assert "alice" not in harness.room.peers
    assert not harness.jobs


def test_pending_requests_are_released_when_the_connection_is_replaced() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    (asked,) = harness.requests

    again = harness.connected("alice")
    harness.commit()
    harness.answer()

    assert [order.object for order in harness.orders] == [asked.router.id], "the router, and with it all"
    assert again.close_code is None
    assert not harness.jobs


def test_death_of_a_gateway_closes_only_its_sessions() -> None:
    harness = RoomHarness()
    bob = harness.joined("bob")
    lost = harness.client("alice", gateway="lost")
    lost.connect()
    assert lost.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]

    harness.act(lambda executor: executor.gateway_died("lost"))

    assert bob.notifications_of("peerClosed") == [{"name": "alice"}]
    assert list(harness.room.session_of) == ["bob"]
    assert lost.session in harness.closed_sessions


# --- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_worker_crash_during_a_commit_leaves_it_whole_or_undone(stored: bool) -> None:
    harness = RoomHarness(prompt=False)
    harness.joined_slowly("bob")
    alice = harness.connected("alice")
    alice.request("join", peerName="alice", rtpCapabilities=CAPABILITIES)
    assert harness.take()
    if stored:
        harness.store()

    harness.crash()
    harness.commit()

    assert [sent.out for sent in alice.sent] == [1]
    assert not harness.jobs
    assert snapshot(harness.reloaded()) == snapshot(harness.room)
    assert indexes(harness.reloaded()) == indexes(harness.room)


def test_redone_message_asks_for_the_same_engine_object() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    # the placement is known to all once something has been committed after it
    alice.request("createTransport", id=1, direction="send", dtlsParameters=DTLS)
    harness.commit()
    harness.answer()
    harness.commit()
    alice.request("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
    before = harness.requests[-1]

    harness.crash()

    assert harness.requests[-1] == before
    harness.answer()
    harness.commit()
    assert alice.frames[-1]["ok"]


def test_result_for_a_stopped_executor_changes_nothing() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    (late,) = harness.pending_requests
    old = harness.executor

    harness.crash()
    before = snapshot(old.room)
    late.on_result(media.Failed(500, "late"))

    assert snapshot(old.room) == before


# --- defects ------------------------------------------------------------------------------------------------------


def broken(room: Room, peer: Any, message: Any) -> None:
    room.take_number()
    raise ZeroDivisionError


def broken_late(room: Room, peer: Any, message: Any) -> Any:
    yield media.RestartIce(router=room.router, transport="t", generation=1)
    room.take_number()
    raise ZeroDivisionError


@pytest.mark.parametrize("handler", [broken, broken_late])
def test_message_that_meets_a_defect_is_answered_500_and_changes_nothing(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.joined("bob")
    numbers = harness.room.meta.numbers
    monkeypatch.setattr(transports, "restart", handler)

    answer = alice.ask("restartTransport", id=1)
    bob_asks = bob.ask("queryRoom")

    assert answer["errorCode"] == 500
    assert bob_asks["ok"]
    assert harness.room.meta.numbers == numbers
    assert [type(defect) for defect in harness.defects] == [ZeroDivisionError]
    assert not harness.poisoned


def test_result_of_the_wrong_kind_is_answered_500_without_a_defect() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    id_ = alice.request("createTransport", id=1, direction="send")

    harness.answer(media.Produced())
    harness.commit()

    assert alice.answers(id_)[0]["errorCode"] == 500
    assert not harness.defects


def test_every_received_job_is_done_in_the_end() -> None:
    harness = RoomHarness(prompt=False)
    alice: Client = harness.connected("alice")
    alice.request("join", peerName="alice", rtpCapabilities=CAPABILITIES)
    harness.receive(bus.MediaEvent(harness.name, "x", 1, "n", 1, b"{}"), GATEWAY)
    alice.request("createTransport", id=1, direction="send")
    alice.notify("leave")
    alice.disconnect()
    harness.answer()
    harness.commit()

    assert len(harness.done_items) == 6
    assert not harness.jobs
