"""Who is alive is who has changed between two looks."""

from typing import Any

import orjson
import pytest
from fakeredis import FakeAsyncRedis
from rich.console import Console

from plenary import backlog, status
from plenary.backlog import Partition
from roomworker.storage.store import RedisStore
from shared.protocol import bus


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


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "console", Console(width=200, soft_wrap=True))


def test_rooms_that_cannot_be_read_are_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"unreadable": 2, "unreadable_rooms": {"salon[/]": "WRONGTYPE", "hall": "ValidationError"}}
    status._print_unreadable({"w-1": broken, "w-2": {"unreadable": 1, "unreadable_rooms": {}}, "w-3": {}})
    said = capsys.readouterr().out
    assert "Rooms that cannot be read (3, of which 2)" in said
    assert "salon[/]" in said
    assert "ValidationError" in said


def test_without_unreadable_rooms_nothing_is_said_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_unreadable({"w-1": {"unreadable": 0, "unreadable_rooms": {}}, "old": {}})
    assert capsys.readouterr().out == ""


def partition(number: int, **more: Any) -> Partition:
    return Partition(**{"number": number, "rooms": 2, "served_by": ("w-1",), "waiting": 0, "in_line": 3, **more})


def test_only_partitions_that_somebody_should_look_at_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_partitions(
        [
            partition(0),
            partition(1, waiting=7),
            partition(2, served_by=()),
            partition(3),
            partition(4, waiting=12),
            partition(5, served_by=()),
            partition(6, served_by=()),
        ]
    )
    said = capsys.readouterr().out
    assert "Partitions (7): 19 batches wait" in said
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        ["4", "12", "3", "2", "w-1"],
        ["1", "7", "3", "2", "w-1"],
        ["2 5-6", "0", "3", "6", "nobody"],
        ["the other 2", "0", "", "4", "one room worker each"],
    ]


def test_a_cluster_in_which_all_is_well_needs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_partitions([partition(0), partition(1)])
    assert capsys.readouterr().out == "Partitions (2): 0 batches wait, each partition has its room worker\n"


def test_what_is_not_known_of_a_queue_is_not_called_empty(capsys: pytest.CaptureFixture[str]) -> None:
    status._print_partitions([partition(0, waiting=None, in_line=None)])
    assert "backlog not known" in capsys.readouterr().out
    status._print_partitions([partition(0, served_by=(), waiting=None, in_line=None)])
    assert "?" in capsys.readouterr().out


async def test_messages_set_aside_are_shown_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    redis = FakeAsyncRedis()
    store = RedisStore(redis)
    for n in range(12):
        item = bus.Input(f"[salon {n}]", "gw.1", 1, n, "mediasoup-request", 1, b"{}")
        await store.set_aside(3, item, "its worker died 2 times")
    count, latest = await backlog.dead_letters(redis)
    await redis.aclose()
    assert (count, len(latest)) == (12, 10)
    assert latest[0].room == "[salon 11]"

    status._print_dead_letters(count, latest)
    said = capsys.readouterr().out
    assert "Messages set aside (12, the latest 10)" in said
    row = next(line for line in said.splitlines() if "[salon 11]" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["3", "input", "[salon 11]", "its worker died 2 times"]


async def test_partitions_are_those_of_the_cluster_with_who_serves_them() -> None:
    redis = FakeAsyncRedis()
    await redis.set("plenary:partitions", 3)
    await redis.sadd("plenary:partition:1", "salon#1", "hall#2")
    told = await backlog.partitions(redis, {"w-2": {"active": [0, 1]}, "w-1": {"active": [1]}, "new": {}})
    await redis.aclose()
    assert [(it.number, it.rooms, it.served_by) for it in told] == [
        (0, 0, ("w-2",)),
        (1, 2, ("w-1", "w-2")),
        (2, 0, ()),
    ]
