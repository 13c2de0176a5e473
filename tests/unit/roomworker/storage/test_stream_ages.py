"""How many entries of a stream are kept: all of the last seconds, by one process's monotonic clock."""

import random

from roomworker.storage.port import Commit
from roomworker.storage.retention import LONGEST
from roomworker.storage.stream_ages import MARKS_PER_PERIOD, StreamAges
from roomworker.storage.stream_entry import Entry

KEEP = 30.0


def commit(n: int, *, room: str = "room", keep: float = KEEP, sends: bool = True, incarnation: str = "one") -> Commit:
    """The n-th commit of an incarnation, over the one before."""
    expected = f"{incarnation}:{n - 1}" if n > 1 else ""
    entry = Entry([], []) if sends else None
    version = f"{incarnation}:{n}"
    return Commit(room, 0, expected, version, version, {}, entry, {}, keep_sent_ms=round(keep * 1000))


def add(ages: StreamAges, done: Commit, now: float) -> int | None:
    limit = ages.limit(done, now)
    ages.stored(done, now)
    return limit


def test_stream_is_not_trimmed_before_its_entries_are_old() -> None:
    ages = StreamAges()
    assert [add(ages, commit(n), float(n)) for n in range(1, 31)] == [None] * 30
    assert add(ages, commit(31), 31.0) is not None


def test_entries_of_the_last_seconds_are_kept_and_few_older_ones() -> None:
    ages, added, chance = StreamAges(), [], random.Random(1)
    now = 100.0
    for n in range(1, 3000):
        now += chance.choice([0.0, 0.01, 0.3, 2.0])
        limit = add(ages, commit(n), now)
        added.append(now)
        if limit is not None:
            young = sum(now - at < KEEP for at in added)
            hardly_older = sum(now - at <= KEEP * (1 + 1 / MARKS_PER_PERIOD) + 2.0 for at in added)
            assert young <= limit <= hardly_older


def test_entries_of_a_predecessor_are_as_old_as_the_first_commit_here() -> None:
    ages = StreamAges()
    assert add(ages, commit(500), 1000.0) is None
    assert add(ages, commit(501), 1000.0 + KEEP - 0.1) is None
    assert add(ages, commit(502), 1000.0 + KEEP) == 3


def test_entries_that_another_worker_added_meanwhile_are_kept() -> None:
    ages = StreamAges()
    for n in range(1, 100):
        add(ages, commit(n), float(n))
    assert add(ages, commit(100), 100.0) is not None
    assert add(ages, commit(150), 101.0) is None, "49 commits of another worker are in between"


def test_refused_commit_starts_the_count_again() -> None:
    ages = StreamAges()
    for n in range(1, 100):
        add(ages, commit(n), float(n))
    ages.forget("room")
    assert add(ages, commit(100), 100.0) is None


def test_commit_without_messages_is_no_entry() -> None:
    ages = StreamAges()
    add(ages, commit(1), 0.0)
    add(ages, commit(2, sends=False), 1.0)
    assert add(ages, commit(3), KEEP) == 2, "the entries of the first and the third commit"


def test_longer_retention_trims_nothing_that_shorter_retention_left() -> None:
    ages = StreamAges()
    for n in range(1, 200):
        add(ages, commit(n), float(n))
    assert add(ages, commit(200, keep=LONGEST), 200.0) is None


def test_marks_of_a_busy_room_are_few_and_unused_rooms_are_forgotten() -> None:
    ages = StreamAges()
    for n in range(1, 20_000):
        add(ages, commit(n), n / 10)
    assert len(ages._streams["room"].marks) <= MARKS_PER_PERIOD + 3
    add(ages, commit(1, room="other"), 2000.0 + LONGEST)
    assert len(ages) == 1
    ages.stored(Commit("other", 0, "one:1", "", "deletion", {}, None, {}), 2000.0 + LONGEST)
    assert len(ages) == 0
