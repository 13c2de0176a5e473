"""The marks of Redis' memory are reached and left with some distance, and each change is logged once."""

from structlog.testing import capture_logs

from shared.cluster.port import MemoryUse
from shared.cluster.redis_memory import MemoryWatch


def states(*used: int, limit: int = 100) -> list[tuple[bool, bool]]:
    """Whether the marks of 70 and 80 percent are reached, after each of these figures."""
    watch = MemoryWatch(0.7, 0.8)
    found = []
    for bytes_used in used:
        watch.update(MemoryUse(bytes_used, limit))
        found.append((watch.is_high, watch.is_full))
    return found


def test_marks_are_reached_one_after_the_other_and_left_again() -> None:
    assert states(69, 70, 79, 80, 99, 77, 67) == [
        (False, False),
        (True, False),
        (True, False),
        (True, True),
        (True, True),
        (True, False),
        (False, False),
    ]


def test_mark_just_reached_is_not_left_by_a_small_decrease() -> None:
    assert states(80, 79, 78, 79) == [(True, True), (True, True), (True, True), (True, True)]


def test_server_without_maxmemory_reaches_no_mark() -> None:
    assert states(10**12, limit=0) == [(False, False)]


def test_changes_are_logged_once_and_trouble_names_the_share() -> None:
    watch = MemoryWatch(0.7, 0.8)
    with capture_logs() as lines:
        for used in (75, 76, 90, 91):
            watch.update(MemoryUse(used, 100))
        assert "91%" in watch.trouble
        watch.update(MemoryUse(1, 100))

    events = [line["event"] for line in lines]
    assert events == ["redis.memory_high", "redis.memory_full", "redis.memory_sufficient"]
    assert watch.trouble == ""
