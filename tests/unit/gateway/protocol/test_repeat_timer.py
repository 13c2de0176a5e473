"""The growing intervals of repetitions."""

from gateway.protocol.repeat_timer import FIRST_INTERVAL, LONGEST_INTERVAL, RepeatTimer


def sweeps_until_due(timer: RepeatTimer) -> int:
    return next(sweeps for sweeps in range(1, 2 * LONGEST_INTERVAL) if timer.sweep())


def test_intervals_double_up_to_the_longest() -> None:
    timer = RepeatTimer()
    assert [sweeps_until_due(timer) for _ in range(4)] == [FIRST_INTERVAL, 8, LONGEST_INTERVAL, LONGEST_INTERVAL]


def test_progress_starts_the_first_interval_again() -> None:
    timer = RepeatTimer()
    sweeps_until_due(timer)
    timer.sweep()
    timer.reset()
    assert sweeps_until_due(timer) == FIRST_INTERVAL
