"""One room in a worker's hands: loading, committing, what is redone, and its end."""

from typing import Any

import pytest

from roomworker.core import transports
from roomworker.runtime.executor import Executor
from roomworker.runtime.room_actor import EVENTS_KEPT, RETRY_UNREADABLE_AFTER, RoomActor
from roomworker.runtime.session_queue import Job
from shared.protocol import bus, media
from tests.unit.roomworker.fake_worker import FakeWorker, foreign_commit
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES
from tests.unit.roomworker.room_harness import RoomHarness


class ActorClient:
    """A client whose items go into an actor."""

    def __init__(self, worker: FakeWorker, actor: RoomActor, peer: str = "alice", n: int = 1) -> None:
        self.worker = worker
        self.actor = actor
        self.client = Client(RoomHarness("room"), peer, f"gateway.{n}", n)
        self.done: list[bus.SessionItem] = []

    def put(self, item: bus.SessionItem, actor: RoomActor | None = None) -> bus.SessionItem:
        (actor or self.actor).receive(Job(item, "gateway", lambda: self.done.append(item)))
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
        return [sent.frame["id"] for sent in self.worker.stream.get(self.client.session, [])]


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def actor(worker: FakeWorker) -> RoomActor:
    return worker.actor()


@pytest.fixture
def alice(worker: FakeWorker, actor: RoomActor) -> ActorClient:
    return ActorClient(worker, actor)


def test_jobs_wait_for_the_room_and_run_in_order(worker: FakeWorker, alice: ActorClient) -> None:
    alice.connect()
    alice.join()
    alice.query()
    assert len(worker.loads) == 1

    worker.load()
    assert worker.commit() == ["OK"]

    assert alice.answers == [1, 2]


def test_a_job_is_done_when_its_effect_is_committed_and_published(worker: FakeWorker, alice: ActorClient) -> None:
    item = alice.connect()
    worker.load()
    assert alice.done == []
    worker.commit()
    assert alice.done == []

    worker.publish_all()

    assert alice.done == [item]


def test_a_job_without_effect_is_done_at_once(worker: FakeWorker, alice: ActorClient) -> None:
    item = alice.query()  # of a session that nobody knows

    worker.load()

    assert alice.done == [item]
    assert [report.n for report in worker.reports] == [-1]
    assert worker.forgotten, "there is no such room"


def test_next_commit_has_all_that_came_during_the_commit_before(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    worker.load()
    ((_, first),) = worker.take()

    alice.join()
    alice.query()
    assert worker.take() == []
    actor.commit_answered(first, worker.apply(first))
    worker.commit()

    assert alice.answers == [1, 2]
    assert worker.version().endswith(":2")


@pytest.mark.parametrize("status", ["OK", "APPLIED"])
def test_a_commit_whose_answer_was_lost_counts(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient, status: Any
) -> None:
    alice.connect()
    worker.load()
    ((_, commit),) = worker.take()
    worker.apply(commit)
    if status == "APPLIED":
        assert worker.apply(commit) == "APPLIED"

    actor.commit_answered(commit, status)
    alice.query()
    worker.work()

    assert alice.answers == [1]


def test_a_stale_room_is_read_again_and_the_work_redone_once() -> None:
    one = FakeWorker(name="one")
    other = FakeWorker(one.store, "other")
    actors = [worker.actor() for worker in (one, other)]
    alice, bob = ActorClient(one, actors[0]), ActorClient(other, actors[1], "bob", 2)
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
    for worker in (one, other, one, other):
        worker.work()

    assert (alice.answers, bob.answers) == ([1], [1])
    assert {"session|alice", "session|bob"} <= set(one.fields())


def test_two_workers_given_the_same_messages_apply_them_once() -> None:
    one = FakeWorker(name="one")
    other = FakeWorker(one.store, "other")
    actors = [worker.actor() for worker in (one, other)]
    alice = ActorClient(one, actors[0])
    for item in (alice.connect(), alice.join(), alice.query()):
        alice.put(item, actors[1])

    one.load()
    other.load()
    for worker in (one, other, one, other):
        worker.work()

    assert alice.answers == [1, 2]
    assert len(alice.done) == 6


def test_empty_room_is_deleted_and_its_actor_forgotten(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    alice.disconnect()

    worker.work()

    assert worker.version() == ""
    assert worker.closed_sessions() == {"gateway.1": (1, 0)}
    assert worker.forgotten == [actor]
    assert len(alice.done) == 2


def test_session_that_comes_during_a_deletion_gets_a_new_room(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    worker.work()
    old = worker.version()
    alice.disconnect()
    worker.load()
    worker.commit()
    worker.publish_all()
    ((_, deletion),) = worker.take()
    assert deletion.version == ""

    bob = ActorClient(worker, actor, "bob", 2)
    bob.connect()
    bob.query()
    assert worker.loads == []
    actor.commit_answered(deletion, worker.apply(deletion))
    worker.work()

    assert bob.answers == [1]
    assert worker.version().partition(":")[0] not in old
    assert worker.forgotten == []


def test_session_that_comes_before_a_deletion_keeps_the_room(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    worker.work()
    incarnation = worker.version().partition(":")[0]
    alice.disconnect()
    worker.commit()
    worker.publish_all()
    assert worker.commits == [actor]

    ActorClient(worker, actor, "bob", 2).connect()
    worker.work()

    assert worker.version().partition(":")[0] == incarnation


def test_stale_deletion_leaves_the_room_to_the_worker_that_changed_it(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    alice.disconnect()
    worker.load()
    worker.commit()
    worker.publish_all()
    ((_, deletion),) = worker.take()
    worker.store.apply(foreign_commit(expected=worker.version()))

    actor.commit_answered(deletion, worker.apply(deletion))

    assert worker.version() == "theirs:1"
    assert worker.forgotten == [actor]


def broken(room: Any, peer: Any, message: Any) -> None:
    raise ZeroDivisionError


def test_defect_during_a_commit_waits_for_it_and_loses_nothing(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "restart", broken)
    alice.connect()
    alice.join()
    worker.load()
    ((_, first),) = worker.take()
    alice.put(alice.client.request_item("restartTransport", id=1))
    alice.query()
    assert worker.loads == []

    actor.commit_answered(first, worker.apply(first))
    worker.work()

    assert alice.answers == [1, 2, 3]
    codes = [sent.frame.get("errorCode") for sent in worker.stream["gateway.1"]]
    assert codes == [None, 500, None]
    assert len(alice.done) == 4


def test_defect_in_a_timed_action_reloads_the_room(worker: FakeWorker, actor: RoomActor, alice: ActorClient) -> None:
    def explode(executor: Executor) -> None:
        executor.room.take_number()
        raise ZeroDivisionError

    alice.connect()
    worker.work()
    actor.when_live(explode)
    alice.query()
    worker.work()

    assert alice.answers == [1]
    assert b'"numbers":0' in worker.fields()["meta"]


def test_result_for_a_discarded_copy_of_the_room_is_ignored(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    alice.join()
    alice.put(alice.client.request_item("createTransport", id=1, direction="send"))
    worker.load()
    ((_, commit),) = worker.take()
    late = worker.asked.pop()
    worker.store.apply(foreign_commit())
    actor.commit_answered(commit, worker.apply(commit))
    late[1](media.Failed(500, "late"))
    worker.work()

    assert alice.answers == [1, 2]


def test_commit_under_way_counts_after_the_partition_was_lost(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    worker.load()
    ((_, commit),) = worker.take()

    actor.close()
    actor.commit_answered(commit, worker.apply(commit))
    worker.publish_all()

    assert worker.forgotten == [actor]
    assert worker.loads == worker.commits == []
    assert len(worker.fields()) == 2


def test_waiting_jobs_of_a_lost_partition_are_left_to_the_successor(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    actor.close()
    worker.work()

    assert alice.done == []
    assert (worker.version(), worker.fields()) == ("", {})


def test_timed_action_loads_an_existing_room(worker: FakeWorker, actor: RoomActor, alice: ActorClient) -> None:
    alice.connect()
    worker.work()
    fresh = worker.actor()

    fresh.when_live(Executor.announce)
    worker.work()

    assert worker.reports[-1] == bus.Applied(1, "gateway.1", 0, 0)
    assert fresh.gateways() == {"gateway"}
    assert fresh.placement is None


# --- rooms that cannot be read ------------------------------------------------------------------------------------

META = b'{"name":"room","numbers":0,"epochs":0,"placement":null,"events":0,"created":{"idleSeconds":60}}'


@pytest.fixture
def unreadable(worker: FakeWorker, actor: RoomActor, alice: ActorClient) -> ActorClient:
    """A client whose room cannot be read when its first message comes."""
    worker.store.apply(foreign_commit(version="theirs:1", meta=b"{broken"))
    alice.connect()
    worker.work()
    assert actor.unreadable
    return alice


def repair(worker: FakeWorker) -> None:
    """Makes the room readable, and lets the time pass after which it is read again."""
    worker.store.apply(foreign_commit(version="theirs:2", expected="theirs:1", meta=META))
    worker.now += RETRY_UNREADABLE_AFTER


def test_messages_of_an_unreadable_room_are_acknowledged(unreadable: ActorClient) -> None:
    first = unreadable.done[0]
    again = unreadable.put(first)  # its gateway keeps it, and sends it again
    assert unreadable.done == [first, again]


def test_an_unreadable_room_is_read_again_after_ten_seconds(
    worker: FakeWorker, actor: RoomActor, unreadable: ActorClient
) -> None:
    repair(worker)
    worker.now -= 1
    actor.retry()
    assert worker.loads == []
    worker.now += 1
    actor.retry()
    worker.work()
    assert actor.unreadable == ""

    for item in (unreadable.done[0], unreadable.query()):
        unreadable.put(item)
    worker.work()

    assert unreadable.answers == [1]


def test_room_that_stays_unreadable_is_read_every_ten_seconds(
    worker: FakeWorker, actor: RoomActor, unreadable: ActorClient
) -> None:
    for _ in range(3):
        worker.now += RETRY_UNREADABLE_AFTER
        actor.retry()
        assert worker.loads == [actor]
        worker.work()
        assert actor.unreadable
        actor.retry()
        assert worker.loads == []


def test_gateways_of_a_room_readable_again_are_sent_the_committed_numbers(
    worker: FakeWorker, alice: ActorClient
) -> None:
    alice.connect()
    worker.work()
    meta = worker.fields().get("meta", META)
    version = worker.version()
    worker.store.apply(foreign_commit(version="theirs:1", expected=version, meta=b"[]"))
    successor = worker.actor()
    successor.announce()
    worker.work()
    assert successor.unreadable
    assert worker.reports == []

    worker.store.apply(foreign_commit(version="theirs:2", expected="theirs:1", meta=meta))
    worker.now += RETRY_UNREADABLE_AFTER
    successor.retry()
    worker.work()

    assert worker.reports == [bus.Applied(1, "gateway.1", 0, 0)]


def test_a_call_to_an_unreadable_room_is_answered_503(
    worker: FakeWorker, actor: RoomActor, unreadable: ActorClient
) -> None:
    put_call(actor, '{"do":"inspectRoom"}')
    assert worker.answers() == [(1, 503)]


def test_events_of_media_nodes_wait_for_an_unreadable_room(
    worker: FakeWorker, actor: RoomActor, unreadable: ActorClient
) -> None:
    """No media node keeps them."""
    acknowledged: list[int] = []

    def put_event(n: int) -> None:
        item = bus.MediaEvent("room", "theirs", 1, "node", n, b"{}")
        actor.receive(Job(item, "node", lambda: acknowledged.append(n)))

    for n in range(EVENTS_KEPT + 10):
        put_event(n)
    assert acknowledged == list(range(EVENTS_KEPT + 10))
    assert len(actor._jobs) == EVENTS_KEPT

    repair(worker)
    actor.retry()
    worker.work()

    assert not actor._jobs


def test_timed_actions_do_not_accumulate_in_an_unreadable_room(
    worker: FakeWorker, actor: RoomActor, unreadable: ActorClient
) -> None:
    called: list[Executor] = []
    for _ in range(100):
        actor.when_live(called.append)
    assert worker.loads == []
    repair(worker)
    actor.retry()
    worker.work()
    assert called == []


def test_a_room_that_the_store_refuses_to_write_is_unreadable(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    worker.load()
    ((_, commit),) = worker.take()

    actor.commit_answered(commit, "FAILED")
    assert actor.unreadable
    assert len(alice.done) == 1

    worker.now += RETRY_UNREADABLE_AFTER
    actor.retry()
    worker.work()
    assert worker.forgotten == [actor], "nothing was committed"

    successor = worker.actor()
    alice.put(alice.done[0], successor)
    alice.put(alice.client.request_item("queryRoom"), successor)
    worker.work()
    assert alice.answers == [1]


# --- calls of the server API --------------------------------------------------------------------------------------


def put_call(actor: RoomActor, action: str, *, key: str = "key", n: int = 1) -> None:
    call = bus.Call("room", key, "gateway", n, action.encode())
    actor.receive(Job(call, "gateway", lambda: None))


def test_call_that_reads_during_a_commit_is_answered_after_it(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    """An answer before the commit could report a change that is never stored."""
    alice.connect()
    worker.load()
    ((_, commit),) = worker.take()

    put_call(actor, '{"do":"inspectRoom"}')
    assert worker.answers() == []
    actor.commit_answered(commit, worker.apply(commit))

    assert worker.answers() == [(1, 200)]


def test_call_repeated_during_its_commit_is_answered_after_it(worker: FakeWorker, actor: RoomActor) -> None:
    put_call(actor, '{"do":"createRoom"}', n=1)
    worker.load()
    ((_, commit),) = worker.take()

    put_call(actor, '{"do":"createRoom"}', n=2)
    assert worker.answers() == []
    actor.commit_answered(commit, worker.apply(commit))

    assert sorted(worker.answers()) == [(1, 200), (2, 200)]


@pytest.mark.parametrize("action", ['{"do":"inspectRoom"}', '{"do":"closePeer","peer":"alice"}'])
def test_call_handled_over_a_stale_room_is_handled_again(worker: FakeWorker, actor: RoomActor, action: str) -> None:
    alice = ActorClient(worker, actor)
    other = FakeWorker(worker.store, "other")
    elsewhere = other.actor()
    alice.connect()
    worker.load()
    ((_, commit),) = worker.take()
    put_call(actor, action)
    ActorClient(other, elsewhere, "bob", 2).connect()
    other.load()
    assert other.commit() == ["OK"]

    actor.commit_answered(commit, worker.apply(commit))
    assert worker.answers() == []
    worker.load()
    worker.commit()

    assert worker.answers() == [(1, 200)]


def test_call_about_a_missing_room_is_answered_and_leaves_nothing(worker: FakeWorker, actor: RoomActor) -> None:
    put_call(actor, '{"do":"inspectRoom"}')
    worker.work()

    assert worker.answers() == [(1, 404)]
    assert worker.forgotten == [actor]
    assert (worker.version(), worker.fields()) == ("", {})


def test_answer_to_a_call_is_known_after_the_room_was_deleted(
    worker: FakeWorker, actor: RoomActor, alice: ActorClient
) -> None:
    alice.connect()
    put_call(actor, '{"do":"closeRoom"}', key="close")
    worker.work()
    assert worker.version() == ""

    again = worker.actor()
    put_call(again, '{"do":"closeRoom"}', key="close", n=2)
    worker.work()

    assert worker.answers() == [(2, 200)]
