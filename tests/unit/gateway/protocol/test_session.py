"""The numbers of both directions, under loss, repetition and reordering."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.events import Close, Events, Forgotten, Publish
from gateway.protocol.repeat_timer import FIRST_INTERVAL, LONGEST_INTERVAL
from gateway.protocol.session import (
    EARLY_OUTPUTS,
    InputLimits,
    Session,
    UnappliedBytes,
)
from shared import errors
from shared.protocol.bus import (
    AnyItem,
    Applied,
    Connect,
    Disconnect,
    Input,
    Message,
    Recipient,
    RejectedInput,
    Replay,
    decode_item,
    encode_item,
)
from shared.protocol.protoo import Frame
from tests.support.lossy_bus import LossyBus
from tests.support.sampling import examples

ID = "gateway-1.7"


def opened() -> Session:
    session = Session("room", ID, 7)
    session.connect("alice", 1000)
    return session


def frame(id_: int | None = 1) -> Frame:
    return Frame(request=id_ is not None, notification=id_ is None, id=id_, method="m")


def drain(session: Session) -> list[AnyItem]:
    items = []
    while (item := session.take()) is not None:
        items.append(decode_item(item))
    return items


def numbers(items: list[AnyItem]) -> list[int]:
    numbered = (Connect, Input, RejectedInput, Disconnect)
    return [0 if isinstance(item, Connect) else item.n for item in items if isinstance(item, numbered)]


def applied(n: int, out: int = 0, *, again: bool = False) -> Applied:
    return Applied(7, ID, n, out, again)


def message(out: int) -> Message:
    return Message(b"%d" % out, [Recipient(7, ID, out)])


def written(session: Session, *outs: int) -> list[int]:
    events = [event for out in outs for event in session.receive(out, message(out))]
    return [int(event.body) for event in events if isinstance(event, Message)]


def sweep_until_repeated(session: Session) -> int:
    for sweeps in range(1, 2 * LONGEST_INTERVAL):
        if session.sweep():
            return sweeps
    raise AssertionError("never repeated")


# --- inputs -------------------------------------------------------------------------------------------------


def test_inputs_are_numbered_from_connect_to_disconnect() -> None:
    session = opened()
    session.input(frame(5))
    session.reject(6, 413, "too large")
    session.input(frame(None))
    items = drain(session)
    session.disconnect()
    items += drain(session)
    assert items == [
        Connect("room", ID, 7, "alice", 1000),
        Input("room", ID, 7, 1, "m", 5, b"{}"),
        RejectedInput("room", ID, 7, 2, 6, 413, "too large"),
        Input("room", ID, 7, 3, "m", None, b"{}"),
        Disconnect("room", ID, 7, 4),
    ]


def test_applied_inputs_are_freed_and_numbers_continue() -> None:
    session = opened()
    session.input(frame())
    drain(session)
    session.applied(applied(1))
    assert (session.unapplied, session.size) == (0, 0)
    session.input(frame())
    assert numbers(drain(session)) == [2]


def test_unapplied_inputs_are_taken_again_in_order_after_a_loss() -> None:
    session = opened()
    for _ in range(4):
        session.input(frame())
    drain(session)
    session.applied(applied(1))
    session.rewind()
    assert numbers(drain(session)) == [2, 3, 4]
    assert not session.has_items


def test_inputs_applied_after_a_loss_are_not_taken_again() -> None:
    session = opened()
    for _ in range(3):
        session.input(frame())
    drain(session)
    session.rewind()
    session.applied(applied(2))
    assert numbers(drain(session)) == [3]


def test_a_report_of_a_gap_rewinds_once_until_progress() -> None:
    session = opened()
    for _ in range(3):
        session.input(frame())
    drain(session)
    session.applied(applied(0, again=True))
    assert numbers(drain(session)) == [1, 2, 3]
    session.applied(applied(0, again=True))
    assert drain(session) == []
    session.applied(applied(1, again=True))
    assert numbers(drain(session)) == [2, 3]


def test_an_unknown_session_with_unapplied_connect_starts_again() -> None:
    session = opened()
    session.input(frame())
    drain(session)
    assert session.applied(applied(-1)) == (Publish(),)
    assert numbers(drain(session)) == [0, 1]


def test_an_unknown_session_with_applied_connect_is_closed() -> None:
    session = opened()
    drain(session)
    session.applied(applied(0))
    session.input(frame())
    assert session.applied(applied(-1)) == (Close(errors.SESSION_UNKNOWN),)
    assert drain(session) == []
    assert session.disconnect() == (Forgotten(),)


def test_a_closed_session_is_forgotten_when_disconnect_is_applied() -> None:
    session = opened()
    drain(session)
    assert session.disconnect() == (Publish(),)
    assert Forgotten() not in session.applied(applied(0))
    assert session.applied(applied(1)) == (Forgotten(),)


def test_an_unpublished_session_is_forgotten_without_a_disconnect() -> None:
    session = opened()
    assert session.disconnect() == (Forgotten(),)
    assert drain(session) == []


def test_input_limits_count_items_and_bytes() -> None:
    session = opened()
    assert not session.exceeds(InputLimits(items=2, size=10**6))
    session.input(frame())
    assert session.exceeds(InputLimits(items=2, size=10**6))
    assert session.exceeds(InputLimits(items=10, size=session.size))
    assert not session.below_half(InputLimits(items=2, size=10**6))
    session.applied(applied(0))
    assert session.below_half(InputLimits(items=2, size=10**6))


def test_silence_repeats_inputs_at_growing_intervals_until_progress() -> None:
    session = opened()
    drain(session)
    intervals = [sweep_until_repeated(session) for _ in range(4)]
    assert intervals == [FIRST_INTERVAL, 2 * FIRST_INTERVAL, LONGEST_INTERVAL, LONGEST_INTERVAL]
    assert numbers(drain(session)) == [0]
    session.input(frame())
    session.applied(applied(0))
    assert sweep_until_repeated(session) == FIRST_INTERVAL


def test_an_idle_session_does_not_await_the_worker() -> None:
    session = opened()
    drain(session)
    assert session.awaits_worker
    session.applied(applied(0))
    assert not session.awaits_worker


def test_each_method_of_a_session_returns_the_events_that_follow() -> None:
    session = Session("room", ID, 7)
    assert session.connect("alice", 1000) == (Publish(),)
    assert session.input(frame()) == (Publish(),)
    assert session.reject(2, 413, "too large") == (Publish(),)
    drain(session)
    assert session.applied(applied(0)) == ()
    assert session.applied(applied(0, again=True)) == (Publish(),)
    drain(session)
    assert session.receive(1, message(1)) == (message(1),)
    assert session.receive(3, message(3)) == (Publish(),)
    assert session.receive(4, message(4)) == ()
    assert list(session.receive(2, message(2))) == [message(2), message(3), message(4)]


def test_silence_returns_a_repeated_publish() -> None:
    session = opened()
    drain(session)
    assert [session.sweep() for _ in range(FIRST_INTERVAL)] == [()] * (FIRST_INTERVAL - 1) + [
        (Publish(repeated=True),)
    ]


def test_sessions_share_one_count_of_unapplied_bytes() -> None:
    total = UnappliedBytes()
    sessions = [Session("room", f"gw.{number}", number, total) for number in (1, 2)]
    for session in sessions:
        session.connect("peer", 1000)
        session.input(frame(1))
        session.reject(2, 413, "too large")
    assert total.total == sum(session.size for session in sessions) > 0
    sessions[0].cancel_unpublished()
    assert total.total == sum(session.size for session in sessions)
    drain(sessions[1])
    sessions[1].applied(applied(2))
    assert total.total == sessions[0].size > sessions[1].size == 0
    sessions[0].disconnect()
    assert total.total == 0


# --- outputs ------------------------------------------------------------------------------------------------


def test_outputs_in_order_are_written_and_duplicates_dropped() -> None:
    assert written(opened(), 1, 2, 2, 1, 3) == [1, 2, 3]


def test_an_early_output_waits_and_one_replay_is_requested() -> None:
    session = opened()
    drain(session)
    assert written(session, 1, 4, 3) == [1]
    assert drain(session) == [Replay("room", ID, 7, 1)]
    assert written(session, 2) == [2, 3, 4]
    assert not session.has_gap


def test_a_report_of_an_unseen_output_requests_a_replay() -> None:
    session = opened()
    drain(session)
    session.applied(applied(0, out=2))
    assert drain(session) == [Replay("room", ID, 7, 0)]
    assert written(session, 1, 2) == [1, 2]
    session.applied(applied(0, out=2))
    assert drain(session) == []


def test_an_unanswered_replay_is_requested_again() -> None:
    session = opened()
    drain(session)
    session.applied(applied(0))
    session.request_replay()
    drain(session)
    sweep_until_repeated(session)
    assert drain(session) == [Replay("room", ID, 7, 0)]
    session.applied(applied(0))
    assert not session.awaits_worker


def test_early_outputs_beyond_the_limit_are_dropped_and_replayed() -> None:
    session = opened()
    drain(session)
    last = EARLY_OUTPUTS + 10
    assert written(session, *range(2, last + 1)) == []
    assert written(session, 1) == list(range(1, EARLY_OUTPUTS + 2))
    assert session.has_gap
    drain(session)
    sweep_until_repeated(session)
    assert Replay("room", ID, 7, EARLY_OUTPUTS + 1) in drain(session)
    assert written(session, *range(1, last + 1)) == list(range(EARLY_OUTPUTS + 2, last + 1))


def test_an_unnumbered_message_is_written_at_once() -> None:
    session = opened()
    assert written(session, 3, 0) == [0]


def test_a_closed_session_writes_nothing() -> None:
    session = opened()
    drain(session)
    session.disconnect()
    assert written(session, 1, 0) == []


# --- the whole ----------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A room worker by the rules of `shared.protocol.bus`, whose stream of outputs is never lost."""

    last: int = -1
    seen: list[int] = field(default_factory=list)
    stream: list[Message] = field(default_factory=list)

    def take(self, item: AnyItem) -> list[Message | Applied]:
        match item:
            case Replay():
                return [*self.stream[item.after :], self.report()]
            case Connect() | Input() | RejectedInput() | Disconnect():
                n = 0 if isinstance(item, Connect) else item.n
            case _:
                raise AssertionError(item)
        if n > self.last + 1:
            return [self.report(again=self.last >= 0)]
        if n <= self.last:
            return [self.report()]
        self.last = n
        self.seen.append(n)
        new = [message(len(self.stream) + 1 + more) for more in range(1 + n % 3)]
        self.stream += new
        return [*new, self.report()]

    def report(self, *, again: bool = False) -> Applied:
        return applied(self.last, len(self.stream), again=again)


@dataclass
class FaultyBus(LossyBus):
    """A session, a room worker, and the messages in flight between them."""

    session: Session = field(default_factory=opened)
    worker: Worker = field(default_factory=Worker)
    up: list[AnyItem] = field(default_factory=list)
    down: list[Message | Applied] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    sent: int = 1
    known: bool = False
    forgotten: bool = False

    def perform(self, events: Events) -> None:
        """Records what is to be written; `publish` takes items by itself."""
        for event in events:
            if isinstance(event, Message):
                self.written.append(int(event.body))
            assert not isinstance(event, Close)
            self.forgotten |= isinstance(event, Forgotten)

    def client_sends(self, _: int) -> None:
        self.session.input(frame())
        self.sent += 1

    def publish(self, count: int) -> None:
        for _ in range(count):
            if (item := self.session.take()) is not None:
                self.up.append(decode_item(item))

    def work(self, at: int) -> None:
        if self.up:
            self.down += self.worker.take(self.up.pop(at % len(self.up)))

    def deliver(self, at: int) -> None:
        if self.down:
            match self.down.pop(at % len(self.down)):
                case Message() as one:
                    self.perform(self.session.receive(one.to[0].out, one))
                case Applied(n=-1) if self.known:
                    pass  # come late, it ends the session: the client connects again, which is no loss
                case Applied() as report:
                    self.known |= report.n >= 0
                    self.perform(self.session.applied(report))

    def reconnect(self, _: int) -> None:
        self.session.rewind()

    def lose_queue(self, _: int) -> None:
        self.down.clear()
        self.session.request_replay()

    def sweep(self, count: int) -> None:
        for _ in range(count):
            self.session.sweep()

    def calm(self) -> None:
        """Delivers everything from here on, and lets time pass."""
        for _ in range(100):
            while self.session.has_items or self.up or self.down:
                self.publish(1)
                self.work(0)
                self.deliver(0)
            if not self.session.awaits_worker:
                return
            self.session.sweep()
        raise AssertionError("no end")


FAULTS: list[Callable[[FaultyBus, int], None]] = [
    FaultyBus.client_sends,
    FaultyBus.publish,
    FaultyBus.publish,
    FaultyBus.work,
    FaultyBus.work,
    FaultyBus.deliver,
    FaultyBus.deliver,
    FaultyBus.lose_up,
    FaultyBus.lose_down,
    FaultyBus.repeat_up,
    FaultyBus.repeat_down,
    FaultyBus.reconnect,
    FaultyBus.lose_queue,
    FaultyBus.sweep,
]


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 9)), min_size=10, max_size=100),
    st.booleans(),
)
def test_all_messages_arrive_once_and_in_order_under_faults(
    steps: list[tuple[Callable[[FaultyBus, int], None], int]], leave: bool
) -> None:
    wires = FaultyBus()
    for _ in range(5):
        wires.client_sends(0)
    for step, argument in steps:
        step(wires, argument)
    wires.calm()
    assert wires.worker.seen == list(range(wires.sent))
    assert wires.written == list(range(1, len(wires.worker.stream) + 1))
    assert wires.session.size == 0
    if leave:
        wires.perform(wires.session.disconnect())
        wires.calm()
        assert wires.forgotten
        assert wires.worker.seen == list(range(wires.sent + 1))


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 2, 3, 1, 1]])
def test_a_close_is_written_in_order_among_the_outputs(order: list[int]) -> None:
    session = opened()
    messages = {1: message(1), 2: message(2), 3: Message(b"3", [Recipient(7, ID, 3)], close=4000)}
    ready = [one for out in order for one in session.receive(out, messages[out]) if isinstance(one, Message)]
    assert [(one.body, one.close) for one in ready] == [(b"1", 0), (b"2", 0), (b"3", 4000)]


# --- the broker is away ----------------------------------------------------------------------------------------


def test_unpublished_requests_are_cancelled_once_and_keep_their_numbers() -> None:
    session = opened()
    session.input(frame(1))
    drain(session)
    session.input(frame(2))
    session.input(frame(None))
    session.reject(3, 429, "too many")
    session.input(frame(4))

    assert session.cancel_unpublished() == [2, 4]
    assert session.cancel_unpublished() == []
    session.input(frame(5))
    assert session.cancel_unpublished() == [5]

    session.rewind()
    items = drain(session)
    assert numbers(items) == [0, 1, 2, 3, 4, 5, 6]
    assert [item.id for item in items if isinstance(item, Input)] == [1, None]
    assert [(item.id, item.code) for item in items if isinstance(item, RejectedInput)] == [
        (None, 503),
        (3, 429),
        (None, 503),
        (None, 503),
    ]
    assert session.size == sum(len(encode_item(item)) for item in items)


def test_published_requests_are_not_cancelled() -> None:
    session = opened()
    session.input(frame(1))
    drain(session)
    session.applied(applied(0))
    session.rewind()
    assert session.cancel_unpublished() == []
