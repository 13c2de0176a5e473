"""The time of a partition: what ticks add to it, whatever wall clocks are set to."""

from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roomworker.partitions.clock import TickPublisher
from roomworker.partitions.partition_clock import SLACK, PartitionClock
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.protocol import bus
from tests.support.sampling import examples

HOUR = 3_600_000
EPOCH = 1_700_000_000_000
"""A wall clock, ms."""


class Now:
    """A monotonic clock, seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def tick(now: int, boot: str = "", seconds: float = 0.0) -> bus.Tick:
    return bus.Tick(1, now, boot, seconds)


@pytest.fixture
def now() -> Now:
    return Now(500.0)


@pytest.fixture
def clock(now: Now) -> PartitionClock:
    return PartitionClock(now)


def test_first_tick_brings_the_clusters_time(clock: PartitionClock) -> None:
    assert clock.advance(tick(EPOCH, "a", 7.0)) == EPOCH


def test_ticks_of_one_sender_add_what_its_monotonic_clock_says(clock: PartitionClock) -> None:
    clock.advance(tick(EPOCH, "a", 7.0))
    assert clock.advance(tick(EPOCH + HOUR, "a", 8.0)) == EPOCH + 1000
    assert clock.advance(tick(EPOCH - HOUR, "a", 9.5)) == EPOCH + 2500


def test_ticks_that_had_to_wait_in_the_queue_count_in_full(clock: PartitionClock, now: Now) -> None:
    clock.advance(tick(EPOCH, "a", 7.0))
    now.now += 60.0
    assert [clock.advance(tick(0, "a", 7.0 + n)) for n in (1, 2, 60)] == [EPOCH + n * 1000 for n in (1, 2, 60)]


def test_next_leader_continues_the_time_of_the_last(clock: PartitionClock, now: Now) -> None:
    clock.advance(tick(EPOCH, "a", 7.0))
    now.now += 4.0
    assert clock.advance(tick(EPOCH + 3900, "b", 123.0)) == EPOCH + 3900
    assert clock.advance(tick(EPOCH + 4900, "b", 124.0)) == EPOCH + 4900


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_leader_with_another_time_adds_what_has_passed_here(clock: PartitionClock, now: Now, step: int) -> None:
    clock.advance(tick(EPOCH, "a", 7.0))
    now.now += 4.0
    assert clock.advance(tick(EPOCH + 4000 + step, "b", 123.0)) == EPOCH + 4000
    assert clock.advance(tick(EPOCH + 5000 + step, "b", 124.0)) == EPOCH + 5000


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_step_of_an_older_versions_wall_clock_changes_nothing(clock: PartitionClock, now: Now, step: int) -> None:
    """A tick without `boot` is of a worker of the version before, and its `now` a wall clock."""
    times = []
    for second in range(10):
        times.append(clock.advance(tick(EPOCH + 1000 * second + (step if second >= 5 else 0))))
        now.now += 1.0
    assert times == [EPOCH + 1000 * second for second in range(10)]


def test_tick_of_the_version_before_is_read() -> None:
    body = bus.encode_item(("tick", 5, EPOCH))
    assert bus.decode_item(body) == bus.Tick(5, EPOCH, "", 0.0)


def test_tick_is_read_by_the_version_before() -> None:
    class Tick(bus.Item, frozen=True, tag="tick"):
        n: int
        now: int

    decode = msgspec.msgpack.Decoder(Tick).decode
    assert decode(bus.encode_item(bus.Tick(5, EPOCH, "a", 1.5))) == Tick(5, EPOCH)


# --- the leaders ------------------------------------------------------------------------------------------------


class Ticks(MemoryBroker):
    """Keeps the ticks that are published."""

    def __init__(self) -> None:
        super().__init__(MemoryHub(1))
        self.ticks: list[bus.Tick] = []

    @property
    def connected(self) -> bool:
        return True

    def publish(self, exchange: Any, key: str, body: bytes, **_: Any) -> Any:
        origin, items = bus.split_batch(body)
        item = bus.decode_item(next(items))
        assert isinstance(item, bus.Tick)
        assert origin == item.boot
        self.ticks.append(item)
        return Sent()


class Sent:
    def add_done_callback(self, _: object) -> None:
        """Never confirms."""


def published(publisher: TickPublisher, broker: Ticks) -> bus.Tick:
    """The next tick of a leader."""
    publisher._unconfirmed_ticks.clear()
    publisher._publish(0)
    return broker.ticks[-1]


def test_leaders_ticks_are_advanced_by_its_monotonic_clock_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now, broker, wall = Now(50.0), Ticks(), Now(EPOCH / 1000)
    monkeypatch.setattr("time.time", wall)
    monkeypatch.setattr("time.time_ns", lambda: round(wall.now * 1e9))
    publisher = TickPublisher("worker-1", broker, 1, now)
    publisher.set_time(EPOCH)
    first = published(publisher, broker)
    now.now += 1.0
    wall.now += 3600.0
    second = published(publisher, broker)
    assert [(it.now, it.boot, it.seconds) for it in (first, second)] == [
        (EPOCH, "worker-1", 50.0),
        (EPOCH + 1000, "worker-1", 51.0),
    ]


def test_time_that_another_leader_brought_further_is_taken_over() -> None:
    now, broker = Now(50.0), Ticks()
    publisher = TickPublisher("worker-1", broker, 1, now)
    publisher.set_time(EPOCH)
    publisher.set_time(EPOCH + 5000)
    publisher.set_time(EPOCH + 1000)
    assert publisher.time == EPOCH + 5000


# --- all together -----------------------------------------------------------------------------------------------


class Worker:
    """A worker that may lead. One of the version before publishes its wall clock."""

    def __init__(self, number: int, *, old: bool, now: Now) -> None:
        self.name = f"worker{number}"
        self.old = old
        self.wall = EPOCH
        """Its wall clock at the beginning of time."""
        self.offset = 1000.0 * number
        """Its monotonic clock at the beginning of time, seconds."""
        self.broker = Ticks()
        self.publisher = TickPublisher(self.name, self.broker, 1, lambda: now.now + self.offset)

    def tick(self, now: float) -> bus.Tick:
        if self.old:
            return bus.Tick(1, self.wall + round(now * 1000))
        return published(self.publisher, self.broker)


class SteppedClocks(RuleBasedStateMachine):
    """Leaders of both versions change, wall clocks are set, ticks wait in the queue, the partition changes hands.

    Its time never falls and keeps to true time, but for what passes between two leaders.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = Now()
        self.workers = [Worker(n, old=n == 3, now=self.now) for n in (1, 2, 3)]
        self.leader = self.workers[0]
        self.held = 0
        """The cluster's time in Redis."""
        self.queue: list[tuple[float, bus.Tick]] = []
        self.clock = PartitionClock(self.now)
        self.times: list[tuple[float, int]] = []
        """True seconds at which each tick of this worker's was made, and the partition's time with it."""
        self.allowed = 0.0
        """Milliseconds by which the partition's time may be wrong."""
        self.leads()

    def leads(self) -> None:
        """What `Coordinator` does for a leader each second."""
        if not self.leader.old:
            wall = self.leader.wall + round(self.now.now * 1000)
            self.held = max(self.leader.publisher.time, self.held or wall)
            self.leader.publisher.set_time(self.held)

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now.now += 1.0
            self.leads()
            self.queue.append((self.now.now, self.leader.tick(self.now.now)))

    @rule(worker=st.integers(0, 2), step=st.sampled_from([-HOUR, HOUR]))
    def wall_clock_is_set(self, worker: int, step: int) -> None:
        self.workers[worker].wall += step

    @rule(worker=st.integers(0, 2), gap=st.integers(0, 4))
    def another_leads(self, worker: int, gap: int) -> None:
        self.now.now += gap
        self.leader = self.workers[worker]
        self.allowed += SLACK + 1000 * gap + 1000
        self.leads()

    @precondition(lambda self: self.queue)
    @rule()
    def queue_is_delivered(self) -> None:
        late = (self.now.now - self.queue[0][0]) * 1000
        senders = {tick.boot for _, tick in self.queue}
        if "" in senders or len(senders) > 1:
            self.allowed += late + SLACK  # between two senders only what passed here is known
        for made, tick in self.queue:
            self.times.append((made, self.clock.advance(tick)))
        self.queue.clear()

    @rule()
    def partition_changes_hands(self) -> None:
        """Messages that are not delivered come to the next worker."""
        if not self.leader.old:
            self.clock = PartitionClock(self.now)
            self.times.clear()

    @invariant()
    def time_passes_as_it_does(self) -> None:
        times = [time for _, time in self.times]
        assert times == sorted(times)
        for (made, before), (later, after) in zip(self.times, self.times[1:], strict=False):
            assert abs((after - before) - (later - made) * 1000) <= self.allowed + 1


SteppedClocks.TestCase.settings = settings(deadline=None, max_examples=examples(100), stateful_step_count=40)
TestSteppedClocks = SteppedClocks.TestCase
