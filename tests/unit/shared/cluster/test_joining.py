"""A process joins when Redis does what it needs, however often that failed before."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from structlog.testing import capture_logs

from shared.aio.backoff import Backoff
from shared.cluster.agreement import DifferentCluster
from shared.cluster.joining import until_redis_works


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next", lambda _: 0.0)


async def test_attempt_is_repeated_and_each_failure_is_logged() -> None:
    outcomes = iter([OutOfMemoryError("command not allowed"), RedisConnectionError("refused"), OSError(), None])

    async def attempt() -> str:
        if (outcome := next(outcomes)) is not None:
            raise outcome
        return "joined"

    with capture_logs() as lines:
        assert await until_redis_works(attempt) == "joined"
    assert [(line["event"], line["error"]) for line in lines] == [
        ("process.start_delayed", "command not allowed"),
        ("process.start_delayed", "refused"),
        ("process.start_delayed", "OSError"),
    ]


async def test_other_failure_is_not_repeated() -> None:
    async def attempt() -> None:
        raise DifferentCluster("8 partitions")

    with pytest.raises(DifferentCluster):
        await until_redis_works(attempt)
