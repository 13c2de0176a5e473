"""Who is alive is who has changed between two looks."""

import orjson
import pytest
from fakeredis import FakeAsyncRedis

from plenary import status


def test_who_stands_still_is_not_beating() -> None:
    first = {"a": {"beat": 1}, "b": {"beat": 7}, "left": {"beat": 3}}
    second = {"b": {"beat": 7}, "a": {"beat": 2}, "new": {"beat": 1}}
    assert [(seen.id, seen.beating) for seen in status.compare(first, second)] == [
        ("a", True),
        ("b", False),
        ("new", True),
    ]


async def test_it_looks_at_every_role() -> None:
    redis = FakeAsyncRedis()
    await redis.hset("plenary:workers", "worker-1", orjson.dumps({"beat": 5, "rooms": 2}))
    assert await status.look(redis) == {"gateways": {}, "workers": {"worker-1": {"beat": 5, "rooms": 2}}, "nodes": {}}
    await redis.aclose()


def test_the_dead_are_shown_as_such_and_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    seen = [status.Seen("w-1[/]", {"rooms": 2, "active": [0, 1, 2, 7]}, True), status.Seen("w-2", {}, False)]
    status._print("Room workers", seen, {"rooms": "rooms", "active": "partitions"})
    said = capsys.readouterr().out
    assert "Room workers (1)" in said
    assert "w-2 not beating" in said
    assert "0-2 7" in said
    assert "w-1[/]" in said
