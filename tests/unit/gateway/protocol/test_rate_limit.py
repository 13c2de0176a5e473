"""The rate limit of one client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import frame_validation
from gateway.protocol.rate_limit import (
    CALM_SWEEPS,
    CONTROL_BURST,
    OVER_RATE_SWEEPS,
    REFUSALS_BURST,
    SHORTEST_PAUSE,
    ClientRate,
    Excess,
    TokenBucket,
)
from shared.protocol.protoo import Frame


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(bucket: TokenBucket, tries: int) -> int:
    return sum(bucket.admit() for _ in range(tries))


def test_a_burst_is_followed_by_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(50, 200, clock)
    assert admitted(bucket, 300) == 200
    clock.now += 1
    assert admitted(bucket, 300) == 50
    clock.now += 3600
    assert admitted(bucket, 300) == 200
    assert bucket.rejected == 450


def test_a_burst_of_one_admits_one_message_at_a_time() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 1, clock)
    assert [admitted(bucket, 3), setattr(clock, "now", clock.now + 0.1), admitted(bucket, 3)] == [1, None, 1]


@given(
    st.floats(0.5, 1000),
    st.integers(1, 500),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 300)), max_size=30),
)
def test_admitted_messages_never_exceed_burst_plus_rate(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    total, began = 0, clock.now
    for pause, tries in steps:
        clock.now += pause
        total += admitted(bucket, tries)
        assert total <= burst + (clock.now - began) * rate + 1


def test_tokens_spent_beyond_the_burst_are_overdrawn_until_they_are_back() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 20, clock)
    bucket.spend(20)
    assert bucket.overdrawn == 0
    bucket.spend(5)
    assert bucket.overdrawn == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.overdrawn == pytest.approx(0)


def client_rate(clock: Clock, per_second: float = 50, burst: int = 200, bytes_per_second: int = 1000) -> ClientRate:
    return ClientRate(clock, per_second=per_second, burst=burst, bytes_per_second=bytes_per_second)


def test_client_is_paused_once_it_has_had_as_many_refusals_as_messages() -> None:
    clock = Clock()
    rate = client_rate(clock)
    assert sum(rate.admit_message() for _ in range(400)) == 200
    assert (rate.refused, rate.begin_pause()) == (200, 0)
    assert not rate.admit_frame()
    assert rate.begin_pause() == SHORTEST_PAUSE
    clock.now += SHORTEST_PAUSE
    assert rate.begin_pause() == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5000)), max_size=50))
def test_refused_frames_of_a_client_that_heeds_pauses_are_bounded(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    rate = client_rate(clock)
    began = clock.now
    for seconds, tries in steps:
        clock.now += seconds
        for _ in range(tries):
            if rate.begin_pause():
                break
            rate.admit_message()
        assert rate.refused <= 200 + 50 * (clock.now - began) + 2


def test_small_limit_still_leaves_some_refusals() -> None:
    rate = client_rate(Clock(), per_second=0.001, burst=1)
    assert sum(rate.admit_message() for _ in range(REFUSALS_BURST + 1)) == 1
    assert rate.begin_pause() == 0


def test_without_a_message_limit_control_frames_have_one() -> None:
    rate = client_rate(Clock(), per_second=0, burst=1)
    assert all(rate.admit_message() for _ in range(10_000))
    assert sum(rate.admit_frame() for _ in range(10_000)) == CONTROL_BURST
    assert rate.begin_pause() > 0


def test_bytes_beyond_the_rate_pause_the_client_and_refuse_nothing() -> None:
    clock = Clock()
    rate = client_rate(clock, bytes_per_second=10_000)
    assert not any(rate.spend_bytes(4000) for _ in range(10))
    assert rate.spend_bytes(5000)
    assert rate.begin_pause() == pytest.approx(0.5)
    assert rate.admit_message()
    assert rate.sweep() is Excess.PRESENT
    unlimited = client_rate(clock, bytes_per_second=0)
    assert not unlimited.spend_bytes(10**12)


def test_client_over_its_rate_for_twenty_sweeps_is_over_it_too_long() -> None:
    clock = Clock()
    rate = client_rate(clock)
    states = []
    for _ in range(OVER_RATE_SWEEPS + 1):
        while rate.admit_message():
            pass
        clock.now += 0.5
        states.append(rate.sweep())
    assert states == [Excess.PRESENT] * OVER_RATE_SWEEPS + [Excess.TOO_LONG]


def test_sweep_during_a_pause_does_not_find_the_client_calm() -> None:
    clock = Clock()
    rate = client_rate(clock)
    while not rate.begin_pause():
        rate.admit_message()
    assert {rate.sweep() for _ in range(OVER_RATE_SWEEPS)} == {Excess.PRESENT}
    assert rate.sweep() is Excess.TOO_LONG


def test_refusals_once_a_second_are_over_the_rate_all_the_time() -> None:
    clock = Clock()
    rate = client_rate(clock, per_second=1, burst=1)
    states = []
    for sweep in range(OVER_RATE_SWEEPS + 1):
        if sweep % 2 == 0:
            rate.admit_message()
            rate.admit_message()
        clock.now += 0.5
        states.append(rate.sweep())
    assert states[-1] is Excess.TOO_LONG


def test_client_without_refusals_for_a_while_is_within_its_rate_again() -> None:
    clock = Clock()
    rate = client_rate(clock)
    for _ in range(3):
        while rate.admit_message():
            pass
        states = []
        for _ in range(CALM_SWEEPS + 1):
            clock.now += 0.5
            states.append(rate.sweep())
        assert states == [Excess.PRESENT] * CALM_SWEEPS + [Excess.PAST]


@pytest.mark.parametrize(
    ("received", "becomes"),
    [
        (Frame(request=True, id=7, method="m"), frame_validation.RejectedRequest),
        (frame_validation.RejectedRequest(7, 413, "too large"), frame_validation.RejectedRequest),
        (Frame(notification=True, method="m"), frame_validation.RejectedNotification),
        (frame_validation.MalformedFrame("no JSON"), frame_validation.RejectedNotification),
        (frame_validation.Response(), frame_validation.RejectedNotification),
    ],
)
def test_rate_limited_requests_are_answered_and_others_dropped(
    received: frame_validation.ValidationResult, becomes: type[object]
) -> None:
    result = frame_validation.rate_limited(received)
    assert type(result) is becomes
    assert result.code == 429
    assert not isinstance(result, frame_validation.RejectedRequest) or result.id == 7
