"""The rate limit of one client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import frame_validation
from gateway.protocol.rate_limit import TokenBucket
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
