"""One room in a worker's hands: loading, committing, what is redone, and its end."""

from typing import Any

import pytest

from roomworker.core import dispatch
from roomworker.runtime.executor import Runner
from roomworker.runtime.room_actor import Slot
from roomworker.runtime.session_queue import Job
from roomworker.storage.store import Stored
from shared.protocol import bus, client
from tests.unit.roomworker.desk import Desk, Shelf
from tests.unit.roomworker.kit import CAPABILITIES, Client, World


class Line:
    """A client whose items go into a slot."""

    def __init__(self, desk: Desk, slot: Slot, peer: str = "alice", n: int = 1) -> None:
        self.desk = desk
        self.slot = slot
        self.client = Client(World("room"), peer, f"gateway.{n}", n)
        self.done: list[bus.SessionItem] = []

    def put(self, item: bus.SessionItem, slot: Slot | None = None) -> bus.SessionItem:
        (slot or self.slot).receive(Job(item, "gateway", lambda: self.done.append(item)))
        return item

    def connect(self) -> bus.SessionItem:
        return self.put(self.client.connect_item())

    def join(self) -> bus.SessionItem:
        return self.put(self.client.request_item("join", peerName=self.client.peer, rtpCapabilities=CAPABILITIES))

    def query(self) -> bus.SessionItem:
        return self.put(self.client.request_item("queryRoom"))

    def disconnect(self) -> bus.SessionItem:
        return self.put(self.client.disconnect_item())

    @property
    def answers(self) -> list[int]:
        return [sent.frame["id"] for sent in self.desk.shelf.stream.get(self.client.session, [])]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def slot(desk: Desk) -> Slot:
    return Slot("room", 0, desk, desk.forget)


@pytest.fixture
def alice(desk: Desk, slot: Slot) -> Line:
    return Line(desk, slot)


def test_jobs_wait_for_the_room_and_run_in_order(desk: Desk, alice: Line) -> None:
    alice.connect()
    alice.join()
    alice.query()
    assert len(desk.loads) == 1

    desk.load()
    assert desk.commit() == ["OK"]

    assert alice.answers == [1, 2]


def test_a_job_is_done_when_its_effect_is_committed_and_published(desk: Desk, alice: Line) -> None:
    item = alice.connect()
    desk.load()
    assert alice.done == []
    desk.commit()
    assert alice.done == []

    desk.publish_all()

    assert alice.done == [item]


def test_a_job_without_effect_is_done_at_once(desk: Desk, alice: Line) -> None:
    item = alice.query()  # of a session that nobody knows

    desk.load()

    assert alice.done == [item]
    assert [report.n for report in desk.reports] == [-1]
    assert desk.forgotten, "there is no such room"


def test_one_commit_at_a_time_and_the_next_has_all_that_came_meanwhile(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    desk.load()
    ((_, first),) = desk.take()

    alice.join()
    alice.query()
    assert desk.take() == []
    slot.settled(first, desk.shelf.commit(first))
    desk.commit()

    assert alice.answers == [1, 2]
    assert desk.shelf.rooms["room"].version.endswith(":2")


@pytest.mark.parametrize("status", ["OK", "APPLIED"])
def test_a_commit_whose_answer_was_lost_counts(desk: Desk, slot: Slot, alice: Line, status: Any) -> None:
    alice.connect()
    desk.load()
    ((_, commit),) = desk.take()
    desk.shelf.commit(commit)
    if status == "APPLIED":
        assert desk.shelf.commit(commit) == "APPLIED"

    slot.settled(commit, status)
    alice.query()
    desk.work()

    assert alice.answers == [1]


def test_a_stale_room_is_read_again_and_the_work_redone_once() -> None:
    shelf = Shelf()
    one, other = Desk(shelf, "one"), Desk(shelf, "other")
    slots = [Slot("room", 0, desk, desk.forget) for desk in (one, other)]
    alice, bob = Line(one, slots[0]), Line(other, slots[1], "bob", 2)
    alice.connect()
    bob.connect()
    one.load()
    other.load()

    assert one.commit() == ["OK"]
    assert other.commit() == ["STALE"]
    other.load()
    assert other.commit() == ["OK"]
    alice.query()
    bob.query()
    assert one.commit() == ["STALE"]
    for desk in (one, other, one, other):
        desk.work()

    assert (alice.answers, bob.answers) == ([1], [1])
    assert {"session|alice", "session|bob"} <= set(shelf.rooms["room"].fields)


def test_two_workers_given_the_same_messages_apply_them_once() -> None:
    shelf = Shelf()
    one, other = Desk(shelf, "one"), Desk(shelf, "other")
    slots = [Slot("room", 0, desk, desk.forget) for desk in (one, other)]
    alice = Line(one, slots[0])
    for item in (alice.connect(), alice.join(), alice.query()):
        alice.put(item, slots[1])

    one.load()
    other.load()
    for desk in (one, other, one, other):
        desk.work()

    assert alice.answers == [1, 2]
    assert len(alice.done) == 6


def test_an_empty_room_is_deleted_and_its_slot_forgotten(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    alice.disconnect()

    desk.work()

    assert desk.shelf.rooms["room"].version == ""
    assert desk.gone("room") == {"gateway.1": (1, 0)}
    assert desk.forgotten == [slot]
    assert len(alice.done) == 2


def test_who_comes_while_the_room_is_being_deleted_finds_a_new_one(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    desk.work()
    old = desk.shelf.rooms["room"].version
    alice.disconnect()
    desk.load()
    desk.commit()
    desk.publish_all()
    ((_, deletion),) = desk.take()
    assert deletion.version == ""

    bob = Line(desk, slot, "bob", 2)
    bob.connect()
    bob.query()
    assert desk.loads == []
    slot.settled(deletion, desk.shelf.commit(deletion))
    desk.work()

    assert bob.answers == [1]
    assert desk.shelf.rooms["room"].version.partition(":")[0] not in old
    assert desk.forgotten == []


def test_who_comes_before_the_deletion_is_taken_keeps_the_room(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    desk.work()
    incarnation = desk.shelf.rooms["room"].version.partition(":")[0]
    alice.disconnect()
    desk.commit()
    desk.publish_all()
    assert desk.commits == [slot]

    Line(desk, slot, "bob", 2).connect()
    desk.work()

    assert desk.shelf.rooms["room"].version.partition(":")[0] == incarnation


def test_a_deletion_that_is_stale_leaves_the_room_to_who_changed_it(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    alice.disconnect()
    desk.load()
    desk.commit()
    desk.publish_all()
    ((_, deletion),) = desk.take()
    desk.shelf.rooms["room"] = Stored("theirs:1", {}, {})

    slot.settled(deletion, desk.shelf.commit(deletion))

    assert desk.shelf.rooms["room"].version == "theirs:1"
    assert desk.forgotten == [slot]


def broken(room: Any, peer: Any, message: Any) -> None:
    raise ZeroDivisionError


def test_a_defect_during_a_commit_waits_for_it_and_loses_nothing(
    desk: Desk, slot: Slot, alice: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dispatch.PEER_HANDLERS, client.RestartTransport, broken)
    alice.connect()
    alice.join()
    desk.load()
    ((_, first),) = desk.take()
    alice.put(alice.client.request_item("restartTransport", id=1))
    alice.query()
    assert desk.loads == []

    slot.settled(first, desk.shelf.commit(first))
    desk.work()

    assert alice.answers == [1, 2, 3]
    codes = [sent.frame.get("errorCode") for sent in desk.shelf.stream["gateway.1"]]
    assert codes == [None, 500, None]
    assert len(alice.done) == 4


def test_a_defect_of_what_comes_from_time_reads_the_room_again(desk: Desk, slot: Slot, alice: Line) -> None:
    def explode(runner: Runner) -> None:
        runner.room.take_number()
        raise ZeroDivisionError

    alice.connect()
    desk.work()
    slot.when_live(explode)
    alice.query()
    desk.work()

    assert alice.answers == [1]
    assert b'"numbers":0' in desk.shelf.rooms["room"].fields["meta"]


def test_a_room_that_cannot_be_read_keeps_its_messages(desk: Desk, alice: Line) -> None:
    desk.shelf.rooms["room"] = Stored("x:1", {"meta": b"{broken"}, {})
    alice.connect()
    desk.work()
    assert alice.done == []

    del desk.shelf.rooms["room"]
    alice.query()
    desk.work()

    assert alice.answers == [1]


def test_a_result_for_a_copy_that_was_dropped_is_ignored(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    alice.join()
    alice.put(alice.client.request_item("createTransport", id=1, direction="send"))
    desk.load()
    ((_, commit),) = desk.take()
    late = desk.asked.pop()
    desk.shelf.rooms["room"] = Stored("theirs:1", {}, {})
    slot.settled(commit, desk.shelf.commit(commit))
    late[1](desk_result())
    desk.work()

    assert alice.answers == [1, 2]


def desk_result() -> Any:
    from shared.protocol import media

    return media.Failed(500, "late")


def test_after_the_partition_is_lost_a_commit_under_way_still_counts(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    desk.load()
    ((_, commit),) = desk.take()

    slot.drop()
    slot.settled(commit, desk.shelf.commit(commit))
    desk.publish_all()

    assert desk.forgotten == [slot]
    assert desk.loads == desk.commits == []
    assert len(desk.shelf.rooms["room"].fields) == 2


def test_what_waits_when_the_partition_is_lost_is_left_to_the_next(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    slot.drop()
    desk.work()

    assert alice.done == []
    assert desk.shelf.rooms == {}


def test_what_comes_from_time_loads_a_room_that_is_there(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    desk.work()
    fresh = Slot("room", 0, desk, desk.forget)

    fresh.when_live(Runner.announce)
    desk.work()

    assert desk.reports[-1] == bus.Applied(1, "gateway.1", 0, 0)
    assert fresh.gateways() == {"gateway"}
    assert fresh.placement is None


# --- calls of the server API --------------------------------------------------------------------------------------


def put_call(slot: Slot, action: str, *, key: str = "key", n: int = 1) -> None:
    call = bus.Call("room", key, "gateway", n, action.encode())
    slot.receive(Job(call, "gateway", lambda: None))


def answers(desk: Desk) -> list[tuple[int, int]]:
    """(number, code) of what gateways were answered, with a commit or without."""
    replies = [*desk.replies, *(reply for changes, _ in desk.published for _, reply in changes.replies)]
    return [(reply.n, reply.code) for reply in replies if isinstance(reply, bus.CallAnswer)]


def test_what_is_read_while_a_commit_is_under_way_is_answered_when_it_is_in(
    desk: Desk, slot: Slot, alice: Line
) -> None:
    """Or the answer would tell of what may never have happened."""
    alice.connect()
    desk.load()
    ((_, commit),) = desk.take()

    put_call(slot, '{"do":"inspectRoom"}')
    assert answers(desk) == []
    slot.settled(commit, desk.shelf.commit(commit))

    assert answers(desk) == [(1, 200)]


def test_a_call_repeated_while_its_commit_is_under_way_is_answered_when_it_is_in(desk: Desk, slot: Slot) -> None:
    put_call(slot, '{"do":"createRoom"}', n=1)
    desk.load()
    ((_, commit),) = desk.take()

    put_call(slot, '{"do":"createRoom"}', n=2)
    assert answers(desk) == []
    slot.settled(commit, desk.shelf.commit(commit))

    assert sorted(answers(desk)) == [(1, 200), (2, 200)]


@pytest.mark.parametrize("action", ['{"do":"inspectRoom"}', '{"do":"closePeer","peer":"alice"}'])
def test_what_was_answered_over_a_stale_room_is_answered_anew(desk: Desk, slot: Slot, action: str) -> None:
    alice = Line(desk, slot)
    other = Desk(desk.shelf, "other")
    elsewhere = Slot("room", 0, other, other.forget)
    alice.connect()
    desk.load()
    ((_, commit),) = desk.take()
    put_call(slot, action)
    Line(other, elsewhere, "bob", 2).connect()
    other.load()
    assert other.commit() == ["OK"]

    slot.settled(commit, desk.shelf.commit(commit))
    assert answers(desk) == []
    desk.load()
    desk.commit()

    assert answers(desk) == [(1, 200)]


def test_a_call_about_a_room_that_is_not_there_is_answered_and_leaves_nothing(desk: Desk, slot: Slot) -> None:
    put_call(slot, '{"do":"inspectRoom"}')
    desk.work()

    assert answers(desk) == [(1, 404)]
    assert desk.forgotten == [slot]
    assert desk.shelf.rooms == {}


def test_a_closed_room_is_deleted_and_its_call_still_known(desk: Desk, slot: Slot, alice: Line) -> None:
    alice.connect()
    put_call(slot, '{"do":"closeRoom"}', key="close")
    desk.work()
    assert desk.shelf.rooms["room"].version == ""

    again = Slot("room", 0, desk, desk.forget)
    put_call(again, '{"do":"closeRoom"}', key="close", n=2)
    desk.work()

    assert answers(desk) == [(2, 200)]
