"""An outage of Redis has one line when it begins and one when it ends."""

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError
from structlog.testing import capture_logs

from shared.cluster.availability import Availability


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_logged_when_it_begins_and_when_it_ends() -> None:
    clock = Clock()
    availability = Availability(clock)
    with capture_logs() as lines:
        availability.answered()
        for _ in range(5):
            availability.failed(RedisConnectionError("refused"))
        assert not availability.answers
        clock.now += 2.5
        availability.answered()
        availability.answered()
        assert availability.answers

    events = [(line["event"], line.get("error"), line.get("seconds")) for line in lines]
    assert events == [("redis.unavailable", "refused", None), ("redis.available", None, 2.5)]


def test_a_lack_of_connections_is_not_called_an_outage() -> None:
    availability = Availability()
    with capture_logs() as lines:
        for _ in range(3):
            availability.failed(MaxConnectionsError("Too many connections"))
        assert availability.answers

    (line,) = lines
    assert line["event"] == "redis.connections_exhausted"


def test_a_failure_without_text_is_logged_by_its_type() -> None:
    with capture_logs() as lines:
        Availability().failed(TimeoutError())
    assert lines[0]["error"] == "TimeoutError"
