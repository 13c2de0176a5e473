"""The order of a room's messages, what is reported to gateways, and what a crash or a defect leaves."""

from typing import Any

import pytest

from roomworker.core import dispatch
from roomworker.core.room import Room
from roomworker.runtime.executor import Executor
from shared.protocol import bus, client, media
from tests.unit.roomworker.kit import CAPABILITIES, DTLS, GATEWAY, OPUS, Client, World, error_of, indexes, snapshot


def reports(world: World) -> list[tuple[str, int, int, bool]]:
    """(session, n, out, again) reported since the last call."""
    found = [(report.session, report.n, report.out, report.again) for _, report in world.reports]
    world.reports.clear()
    return found


# --- order --------------------------------------------------------------------------------------------------------


def test_a_sessions_requests_are_answered_in_order_while_the_media_node_takes_its_time() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    alice.hush()

    first = alice.request("createTransport", id=1, direction="send")
    second = alice.request("queryRoom")
    world.commit()
    assert alice.frames == []
    world.answer()
    world.commit()

    assert [frame["id"] for frame in alice.frames] == [first, second]


def test_sessions_do_not_wait_for_each_other() -> None:
    world = World(prompt=False)
    alice, bob = world.joined_slowly("alice"), world.joined_slowly("bob")

    slow = alice.request("createTransport", id=1, direction="send")
    quick = bob.request("createTransport", id=1, direction="send")
    world.answer(at=1)
    world.commit()

    assert bob.answer(quick) is not None
    assert alice.answer(slow) is None


def test_a_refused_frame_is_answered_in_its_turn() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    alice.hush()

    alice.request("createTransport", id=1, direction="send")
    alice.n += 1
    world.receive(bus.RejectedInput(world.name, alice.session, alice.connection, alice.n, 99, 413, "too large"))
    world.answer()
    world.commit()

    assert [frame["id"] for frame in alice.frames][-1] == 99
    assert error_of(alice.frames[-1]) == (413, "too large")


def test_a_failed_notification_is_applied_and_answered_with_nothing() -> None:
    world = World()
    alice = world.joined("alice")
    alice.hush()

    alice.notify("closeTransport", id=5)

    assert alice.frames == []
    assert world.room.sessions[alice.session].n_in == alice.n


# --- numbers ------------------------------------------------------------------------------------------------------


def test_a_gap_is_reported_so_that_the_gateway_sends_again_from_there() -> None:
    world = World()
    alice = world.joined("alice")
    alice.request_item("queryRoom")
    after_the_gap = alice.request_item("queryRoom")

    world.receive(after_the_gap)

    assert reports(world) == [(alice.session, 1, 1, True)]
    assert not world.jobs
    for item in alice.items[-2:]:
        world.receive(item)
    assert [frame["id"] for frame in alice.frames] == [1, 2, 3]


def test_what_is_reported_is_committed() -> None:
    world = World(prompt=False)
    alice = world.connected("alice")
    item = alice.request_item("queryRoom")
    world.receive(item)

    world.receive(item)
    assert reports(world) == []

    world.commit()
    world.receive(item)
    assert reports(world) == [(alice.session, 1, 1, False)]
    assert len(alice.frames) == 1


def test_the_end_of_a_session_is_reported_only_when_it_is_committed() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    alice.disconnect()

    world.receive(alice.items[-1])
    world.receive(alice.items[0])
    assert reports(world) == []
    world.crash()
    assert world.room.empty, "the disconnect is done again"
    world.commit()

    world.receive(alice.items[-1])
    assert reports(world) == [(alice.session, alice.n, 1, False)]


def test_inputs_of_an_unknown_session_are_reported_unknown() -> None:
    world = World()
    stranger = world.client("stranger")

    world.receive(stranger.request_item("queryRoom"))

    assert reports(world) == [(stranger.session, -1, 0, False)]
    assert not world.jobs


def test_after_a_takeover_every_gateway_hears_what_is_committed() -> None:
    world = World()
    alice, bob = world.joined("alice"), world.joined("bob")
    world.crash()

    world.act(Executor.announce)

    assert sorted(reports(world)) == sorted([(alice.session, 1, 2, False), (bob.session, 1, 1, False)])


def test_the_position_of_a_session_is_what_is_committed_of_it() -> None:
    world = World(prompt=False)
    alice = world.connected("alice")
    assert world.executor.position(alice.session) is None
    world.commit()
    alice.request("queryRoom")
    assert world.executor.position(alice.session) == (0, 0)
    alice.disconnect()
    assert world.executor.position(alice.session) == (0, 0)
    world.commit()
    assert world.executor.position(alice.session) == (alice.n, 1)


# --- ends ---------------------------------------------------------------------------------------------------------


def test_what_is_under_way_when_the_socket_closes_is_given_up_and_released() -> None:
    world = World(prompt=False)
    world.joined_slowly("bob")
    alice = world.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    alice.request("queryRoom")

    alice.disconnect()
    late = world.answer()
    world.commit()

    assert isinstance(late, media.CreateTransport)
    assert late.transport in [order.object for order in world.orders]
    assert "alice" not in world.room.peers
    assert not world.jobs


def test_what_is_under_way_when_the_connection_is_replaced_is_given_up_and_released() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    (asked,) = world.requests

    again = world.connected("alice")
    world.commit()
    world.answer()

    assert [order.object for order in world.orders] == [asked.router.id], "the router, and with it all"
    assert again.closed is None
    assert not world.jobs


def test_when_a_gateway_dies_its_sessions_end_and_no_others() -> None:
    world = World()
    bob = world.joined("bob")
    lost = world.client("alice", gateway="lost")
    lost.connect()
    assert lost.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]

    world.act(lambda executor: executor.gateway_died("lost"))

    assert bob.told("peerClosed") == [{"name": "alice"}]
    assert list(world.room.session_of) == ["bob"]
    assert lost.session in world.gone


# --- crashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_a_worker_that_dies_in_a_commit_leaves_it_whole_or_undone(stored: bool) -> None:
    world = World(prompt=False)
    world.joined_slowly("bob")
    alice = world.connected("alice")
    alice.request("join", peerName="alice", rtpCapabilities=CAPABILITIES)
    assert world.take()
    if stored:
        world.store()

    world.crash()
    world.commit()

    assert [sent.out for sent in alice.sent] == [1]
    assert not world.jobs
    assert snapshot(world.reloaded()) == snapshot(world.room)
    assert indexes(world.reloaded()) == indexes(world.room)


def test_a_message_done_again_asks_for_the_same_engine_object() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    # the placement is known to all once something has been committed after it
    alice.request("createTransport", id=1, direction="send", dtlsParameters=DTLS)
    world.commit()
    world.answer()
    world.commit()
    alice.request("createProducer", id=10, kind="audio", transportId=1, rtpParameters=OPUS)
    before = world.requests[-1]

    world.crash()

    assert world.requests[-1] == before
    world.answer()
    world.commit()
    assert alice.frames[-1]["ok"]


def test_results_for_a_runner_that_was_stopped_change_nothing() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    alice.request("createTransport", id=1, direction="send")
    (late,) = world.asked
    old = world.executor

    world.crash()
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
def test_a_message_that_meets_a_defect_is_answered_500_and_changes_nothing(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    alice, bob = world.sending("alice"), world.joined("bob")
    numbers = world.room.meta.numbers
    monkeypatch.setitem(dispatch.PEER_HANDLERS, client.RestartTransport, handler)

    answer = alice.ask("restartTransport", id=1)
    bob_asks = bob.ask("queryRoom")

    assert answer["errorCode"] == 500
    assert bob_asks["ok"]
    assert world.room.meta.numbers == numbers
    assert [type(defect) for defect in world.defects] == [ZeroDivisionError]
    assert not world.poisoned


def test_an_answer_of_the_wrong_kind_is_the_media_nodes_fault_not_the_rooms() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    id_ = alice.request("createTransport", id=1, direction="send")

    world.answer(media.Produced())
    world.commit()

    assert alice.answers(id_)[0]["errorCode"] == 500
    assert not world.defects


def test_everything_that_came_is_done_in_the_end() -> None:
    world = World(prompt=False)
    alice: Client = world.connected("alice")
    alice.request("join", peerName="alice", rtpCapabilities=CAPABILITIES)
    world.receive(bus.MediaEvent(world.name, "x", 1, "n", 1, b"{}"), GATEWAY)
    alice.request("createTransport", id=1, direction="send")
    alice.notify("leave")
    alice.disconnect()
    world.answer()
    world.commit()

    assert len(world.done_items) == 6
    assert not world.jobs
