"""`plenary status`: what is read of a cluster, and how it is printed."""

import asyncio
import json
from typing import Any

import orjson
import pytest
from fakeredis import FakeAsyncRedis
from rich.console import Console
from structlog.testing import capture_logs

from plenary.processes.event_loop import CannotStart
from plenary.status import command, snapshot, tables
from plenary.status.dead_letters import read_dead_letters
from plenary.status.partitions import Partition, read_partitions
from roomworker.storage.store import RedisStore
from shared.cluster.redis_cluster import RedisCluster
from shared.protocol import bus


def wide_console() -> Console:
    """Returns a console that wraps no line and writes to the present stdout."""
    return Console(width=200, soft_wrap=True)


def test_process_with_an_unchanged_beat_is_not_beating() -> None:
    first = {"a": {"beat": 1}, "b": {"beat": 7}, "left": {"beat": 3}}
    second = {"b": {"beat": 7}, "a": {"beat": 2}, "new": {"beat": 1}}
    assert [(seen.id, seen.beating) for seen in snapshot.observe(first, second)] == [
        ("a", True),
        ("b", False),
        ("new", True),
    ]


async def test_registry_is_read_for_every_role() -> None:
    redis = FakeAsyncRedis()
    await redis.hset("plenary:workers", "worker-1", orjson.dumps({"beat": 5, "rooms": 2}))
    assert await snapshot.read_registry(RedisCluster(redis)) == {
        "gateways": {},
        "workers": {"worker-1": {"beat": 5, "rooms": 2}},
        "nodes": {},
    }
    await redis.aclose()


def test_processes_that_do_not_beat_are_marked_and_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    seen = [
        snapshot.ObservedProcess("w-1[/]", {"rooms": 2, "active": [0, 1, 2, 7]}, True),
        snapshot.ObservedProcess("w-2", {}, False),
    ]
    tables._print_processes(wide_console(), "Room workers", seen, {"rooms": "rooms", "active": "partitions"})
    said = capsys.readouterr().out
    assert "Room workers (1)" in said
    assert "w-2 not beating" in said
    assert "0-2 7" in said
    assert "w-1[/]" in said


def test_rooms_that_cannot_be_read_are_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"unreadable": 2, "unreadable_rooms": {"salon[/]": "WRONGTYPE", "hall": "ValidationError"}}
    workers = {"w-1": broken, "w-2": {"unreadable": 1, "unreadable_rooms": {}}, "w-3": {}}
    tables._print_unreadable(wide_console(), workers)
    printed = capsys.readouterr().out
    assert "Rooms that cannot be read (3, of which 2)" in printed
    assert "salon[/]" in printed
    assert "ValidationError" in printed


def test_without_unreadable_rooms_their_table_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    tables._print_unreadable(wide_console(), {"w-1": {"unreadable": 0, "unreadable_rooms": {}}, "old": {}})
    assert capsys.readouterr().out == ""


def partition(number: int, **more: Any) -> Partition:
    return Partition(**{"number": number, "rooms": 2, "served_by": ("w-1",), "waiting": 0, "in_line": 3, **more})


def test_only_partitions_with_a_problem_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    tables._print_partitions(
        wide_console(),
        [
            partition(0),
            partition(1, waiting=7),
            partition(2, served_by=()),
            partition(3),
            partition(4, waiting=12),
            partition(5, served_by=()),
            partition(6, served_by=()),
        ],
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


def test_healthy_partitions_take_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tables._print_partitions(wide_console(), [partition(0), partition(1)])
    assert capsys.readouterr().out == "Partitions (2): 0 batches wait, each partition has its room worker\n"


def test_unknown_queue_is_not_shown_as_empty(capsys: pytest.CaptureFixture[str]) -> None:
    tables._print_partitions(wide_console(), [partition(0, waiting=None, in_line=None)])
    assert "backlog not known" in capsys.readouterr().out
    tables._print_partitions(wide_console(), [partition(0, served_by=(), waiting=None, in_line=None)])
    assert "?" in capsys.readouterr().out


async def test_messages_set_aside_are_shown_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    redis = FakeAsyncRedis()
    store = RedisStore(redis)
    for n in range(12):
        item = bus.Input(f"[salon {n}]", "gw.1", 1, n, "mediasoup-request", 1, b"{}")
        await store.add_dead_letter(3, item, "its worker died 2 times")
    count, latest = await read_dead_letters(redis)
    await redis.aclose()
    assert (count, len(latest)) == (12, 10)
    assert latest[0].room == "[salon 11]"

    tables._print_dead_letters(wide_console(), count, latest)
    said = capsys.readouterr().out
    assert "Messages set aside (12, the latest 10)" in said
    row = next(line for line in said.splitlines() if "[salon 11]" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["3", "input", "[salon 11]", "its worker died 2 times"]


async def test_partitions_name_the_workers_that_serve_them() -> None:
    redis = FakeAsyncRedis()
    await redis.set("plenary:partitions", 3)
    await redis.sadd("plenary:partition:1", "salon#1", "hall#2")
    found = await read_partitions(redis, {"w-2": {"active": [0, 1]}, "w-1": {"active": [1]}, "new": {}})
    await redis.aclose()
    assert [(it.number, it.rooms, it.served_by) for it in found] == [
        (0, 0, ("w-2",)),
        (1, 2, ("w-1", "w-2")),
        (2, 0, ()),
    ]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeAsyncRedis:
    """A cluster's Redis, looked at without a pause, and no RabbitMQ."""
    redis = FakeAsyncRedis()
    monkeypatch.setattr(snapshot, "OBSERVE_SECONDS", 0.0)
    monkeypatch.setattr(command, "open_redis", lambda _: redis)
    return redis


async def test_invalid_entries_are_skipped_and_named(
    cluster: FakeAsyncRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    await cluster.set("plenary:partitions", 1)
    await cluster.hset("plenary:workers", mapping={"broken": "{", "worker-1": orjson.dumps({"beat": 5})})
    await cluster.xadd("plenary:dead", {"item": "not JSON", "partition": "0", "reason": "x"})
    with capture_logs() as lines:
        await command.show_status("", NO_RABBITMQ, asyncio.Event(), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [worker["id"] for worker in told["roomWorkers"]] == ["worker-1"]
    assert told["setAside"] == {"count": 1, "latest": []}
    assert [(line["event"], line["redis_key"]) for line in lines] == [
        ("registry.entry_invalid", "plenary:workers"),
        ("dead_letter.invalid", "plenary:dead"),
    ]


async def test_invalid_number_of_partitions_is_an_error_with_its_key(cluster: FakeAsyncRedis) -> None:
    await cluster.set("plenary:partitions", "many")
    with pytest.raises(CannotStart, match="plenary:partitions in Redis is b'many'"):
        await command.show_status("", NO_RABBITMQ, asyncio.Event())


NO_RABBITMQ = "amqp://me:secret@127.0.0.1:1/"


async def test_json_has_processes_partitions_and_what_was_set_aside(
    cluster: FakeAsyncRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    await cluster.set("plenary:partitions", 1)
    await cluster.hset("plenary:workers", "worker-1", orjson.dumps({"beat": 5, "rooms": 2, "active": [0]}))
    item = bus.Input("salon", "gw.1", 1, 7, "mediasoup-request", 1, b"{}")
    await RedisStore(cluster).add_dead_letter(0, item, "its worker died 2 times")
    await command.show_status("", NO_RABBITMQ, asyncio.Event(), as_json=True)
    printed = capsys.readouterr().out
    told = json.loads(printed)
    assert told["roomWorkers"] == [{"id": "worker-1", "beating": False, "rooms": 2, "active": [0]}]
    assert told["gateways"] == told["mediaNodes"] == []
    assert told["partitions"] == [
        {"number": 0, "rooms": 0, "servedBy": [], "batchesWaiting": None, "workersInLine": None}
    ]
    assert told["setAside"]["count"] == 1
    assert told["setAside"]["latest"][0]["reason"] == "its worker died 2 times"
    assert told["setAside"]["latest"][0]["at"].endswith("Z")
    assert told["rabbitmqError"]
    assert "secret" not in printed


async def test_watch_prints_snapshots_until_it_is_stopped(
    cluster: FakeAsyncRedis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    take, taken = snapshot.take_snapshot, 0

    async def count(*arguments: Any) -> snapshot.Snapshot:
        nonlocal taken
        taken += 1
        if taken == 4:
            stop.set()
        return await take(*arguments)

    monkeypatch.setattr(command, "take_snapshot", count)
    await command.show_status("", NO_RABBITMQ, stop, as_json=True, watch=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["roomWorkers"] == [] for line in lines)
