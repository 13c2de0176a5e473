"""Rooms in memory and in Redis: the promises of `roomworker.storage.port`."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from importlib.resources import files
from random import Random
from typing import Any, Protocol

import pytest
from redis.asyncio import ConnectionPool, Redis

from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.storage import store as store_module
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import KEEP_CLOSED_S, KEEP_SENT_MS, UNCOUNTED, Commit, Page, PageWanted, Store
from roomworker.storage.store import ROUND_TRIPS_AT_ONCE, RedisStore
from roomworker.storage.stream_entry import Entry, SentMessage
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.port import Cluster
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.redis_keys import (
    attempts_key,
    closed_sessions_key,
    index_key,
    index_member,
    room_key,
    stream_key,
)
from shared.protocol import bus, media
from tests.support.full_redis import filled
from tests.support.replays import replay_of

ROOMS = ["room", "a b", "}{", "%7D", "räume/日本", "a|b#c", "v", "x" * 128]
LONGEST_MS = 600_000


class Backend(Protocol):
    """A store, and what a test knows of its inside."""

    @property
    def store(self) -> Store: ...

    @property
    def cluster(self) -> Cluster:
        """A cluster on the same server: gateways read the index of rooms from it."""
        ...


class Memory:
    def __init__(self) -> None:
        self.now = 1000.0
        self.cluster = MemoryCluster()
        self.store = MemoryStore(self.cluster, lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class Server:
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.cluster = RedisCluster(redis)
        self.store = RedisStore(redis)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.servers)])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        yield Memory()
        return
    client = Redis.from_url(request.getfixturevalue("redis_url"))
    yield Server(client)
    await client.aclose()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client for reading and changing what the store's interface does not show."""
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


def commit(
    n: int = 1,
    *,
    room: str = "room",
    incarnation: str = "one",
    expected: str | None = None,
    token: str = "",
    fields: dict[str, bytes | None] | None = None,
    messages: list[SentMessage] | None = None,
    closed_sessions: dict[str, ClosedSession | None] | None = None,
    deletion_token: str = "",
) -> Commit:
    """The n-th commit of an incarnation, over the one before."""
    if expected is None:
        expected = f"{incarnation}:{n - 1}" if n > 1 else ""
    return Commit(
        room=room,
        partition=5,
        expected=expected,
        version=f"{incarnation}:{n}",
        token=token or f"worker:{incarnation}:{n}",
        fields=fields or {},
        entry=None if messages is None else Entry(messages, []),
        closed_sessions=closed_sessions or {},
        first=not expected,
        deletion_token=deletion_token,
    )


def deletion(expected: str, *, room: str = "room", token: str = "deletion") -> Commit:
    return Commit(
        room=room, partition=5, expected=expected, version="", token=token, fields={}, entry=None, closed_sessions={}
    )


async def everything(store: Store, *sessions: str) -> list[object]:
    """All that the store has of the room."""
    replayed = await replay_of(store, [("room", session, 0) for session in sessions])
    return [await store.load(["room"]), replayed, await store.orders(["room"]), await store.indexed(5)]


# --- compare and set ----------------------------------------------------------------------------------------------


async def test_load_returns_what_was_committed(store: Store) -> None:
    gone: dict[str, ClosedSession | None] = {"gateway.9": ClosedSession(7, 3)}

    assert await store.commit([commit(1, fields={"meta": b"{}", "peer|bob": b"1"}, closed_sessions=gone)]) == ["OK"]
    assert await store.commit([commit(2, fields={"peer|bob": None, "peer|eve": b"2"})]) == ["OK"]

    (stored,) = await store.load(["room"])
    assert stored.version == "one:2"
    assert stored.fields == {"meta": b"{}", "peer|eve": b"2"}
    assert stored.closed_sessions == gone


async def test_room_that_never_existed_loads_empty(store: Store) -> None:
    (stored,) = await store.load(["room"])

    assert (stored.version, stored.fields, stored.closed_sessions) == ("", {}, {})


async def test_a_commit_over_another_version_is_stale_and_writes_nothing(store: Store) -> None:
    await store.commit([commit(1), commit(2, fields={"meta": b"theirs"}, token="theirs")])
    before = await everything(store, "s", "t")

    mine = commit(
        2,
        token="mine",
        fields={"meta": b"mine", "peer|bob": b"1"},
        messages=[SentMessage(b"{}", [("s", 1)])],
        closed_sessions={"s": ClosedSession(1, 1), "t": None},
    )
    assert await store.commit([mine]) == ["STALE"]

    assert await everything(store, "s", "t") == before


async def test_a_commit_done_again_is_recognised_by_its_token(store: Store) -> None:
    mine = commit(1, fields={"meta": b"1"}, messages=[SentMessage(b"{}", [("s", 1)])])
    assert await store.commit([mine]) == ["OK"]
    before = await everything(store, "s", "t")

    assert await store.commit([mine]) == ["APPLIED"]
    assert await everything(store, "s", "t") == before


async def test_commits_of_one_round_trip_succeed_and_fail_independently(store: Store) -> None:
    await store.commit([commit(1, room="a"), commit(1, room="b")])

    trip = [commit(2, room="a"), commit(2, room="b", expected="other:1"), commit(1, room="c")]

    assert await store.commit(trip) == ["OK", "STALE", "OK"]


async def test_commit_of_thousands_of_fields_is_stored(store: Store) -> None:
    many: dict[str, bytes | None] = {f"consumer|{i}|bob": b"%d" % i for i in range(3000)}
    closed: dict[str, ClosedSession | None] = {f"gateway.{i}": ClosedSession(i, i) for i in range(1200)}
    await store.commit([commit(1, fields=many, closed_sessions=closed)])

    (stored,) = await store.load(["room"])
    assert stored.fields == many
    assert stored.closed_sessions == closed

    await store.commit([commit(2, fields=dict.fromkeys(many), closed_sessions=dict.fromkeys(closed))])
    (stored,) = await store.load(["room"])
    assert (stored.fields, stored.closed_sessions) == ({}, {})


@pytest.mark.servers
async def test_script_is_loaded_again_after_redis_forgot_it(redis: Redis) -> None:
    store = RedisStore(redis)
    await store.commit([commit(1)])
    await redis.script_flush()

    assert await store.commit([commit(2, fields={"meta": b"2"}), commit(1, room="other")]) == ["OK", "OK"]


# --- the end of a room ----------------------------------------------------------------------------------------------


async def test_deleted_room_leaves_only_its_closed_sessions(store: Store) -> None:
    gone: dict[str, ClosedSession | None] = {"gateway.1": ClosedSession(4, 2)}
    await store.commit([commit(1, messages=[SentMessage(b"{}", [("s", 1)])])])
    await store.commit([commit(2, closed_sessions=gone)])
    assert await store.indexed(5) == ["room"]

    assert await store.commit([deletion("one:2")]) == ["OK"]

    assert await store.indexed(5) == []
    assert await replay_of(store, [("room", "s", 0)]) == [[]]
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.fields, stored.closed_sessions) == ("", {}, gone)


@pytest.mark.servers
async def test_deleted_room_leaves_its_trace_to_later_rooms_of_its_name(store: Store) -> None:
    await store.commit([commit(1)])
    assert await store.commit([replace(deletion("one:1"), trace=b'{"a":1}')]) == ["OK"]
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.trace, stored.answered_calls) == ("", b'{"a":1}', {})

    await store.commit([commit(1, incarnation="two", deletion_token="deletion")])
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.trace) == ("two:1", b'{"a":1}')

    await store.commit([deletion("two:1", token="second")])
    (stored,) = await store.load(["room"])
    assert stored.trace == b'{"a":1}', "a room without a trace does not delete that of the one before"


async def test_versions_without_traces_can_read_a_room_that_left_one(redis: Redis) -> None:
    """They take everything for a pair of numbers, unless its name begins like a call's."""
    store = RedisStore(redis)
    await store.commit([commit(1)])
    await store.commit([replace(deletion("one:1"), trace=b"left")])
    left = await redis.hgetall(closed_sessions_key("room"))
    assert left == {b"|deleted": b"deletion", b"call||trace": b"0:left"}


async def test_call_with_the_key_of_a_trace_is_an_answered_call(store: Store) -> None:
    answer = StoredAnswer(200, b"{}")
    await store.commit([replace(commit(1), answered_calls={"|trace": answer})])
    (stored,) = await store.load(["room"])
    assert (stored.trace, stored.answered_calls) == (b"", {"|trace": answer})


async def test_deleted_room_leaves_one_key_that_expires_in_redis(redis: Redis) -> None:
    store = RedisStore(redis)
    await store.commit([commit(1, closed_sessions={"gateway.1": ClosedSession(4, 2)}), deletion("one:1")])

    assert await redis.keys("*") == [closed_sessions_key("room").encode()]
    assert 0 < await redis.ttl(closed_sessions_key("room")) <= KEEP_CLOSED_S


async def test_closed_sessions_are_forgotten_after_ten_minutes() -> None:
    backend = Memory()
    await backend.store.commit([commit(1, closed_sessions={"gateway.1": ClosedSession(4, 2)}), deletion("one:1")])
    backend.pass_time(KEEP_CLOSED_S - 1)
    (stored,) = await backend.store.load(["room"])
    assert stored.closed_sessions
    assert stored.deletion_token

    backend.pass_time(1)

    (stored,) = await backend.store.load(["room"])
    assert (stored.closed_sessions, stored.deletion_token) == ({}, "")


async def test_answers_to_calls_are_kept_with_the_closed_sessions(store: Store) -> None:
    kept = replace(
        commit(1), answered_calls={"key": StoredAnswer(200, b'{"a":":"}'), "other": StoredAnswer(404, b"no")}
    )
    await store.commit([kept])
    await store.commit(
        [replace(commit(2, closed_sessions={"gateway.1": ClosedSession(4, 2)}), answered_calls={"other": None})]
    )

    (stored,) = await store.load(["room"])

    assert stored.answered_calls == {"key": StoredAnswer(200, b'{"a":":"}')}
    assert stored.closed_sessions == {"gateway.1": ClosedSession(4, 2)}


async def test_deletion_of_a_changed_room_is_stale_and_keeps_it_in_the_index(store: Store) -> None:
    await store.commit([commit(1)])
    await store.commit([commit(2, fields={"meta": b"2"})])

    assert await store.commit([deletion("one:1")]) == ["STALE"]

    (stored,) = await store.load(["room"])
    assert stored.version == "one:2"
    assert await store.indexed(5) == ["room"]


async def test_recreated_room_is_safe_from_a_worker_with_the_old_incarnation(store: Store) -> None:
    await store.commit([commit(1)])
    await store.commit([deletion("one:1")])
    (empty,) = await store.load(["room"])
    assert await store.commit(
        [commit(1, incarnation="two", fields={"meta": b"new"}, deletion_token=empty.deletion_token)]
    ) == ["OK"]

    old = [commit(2, fields={"meta": b"old"}), deletion("one:1", token="again"), commit(1, token="zombie")]
    assert await store.commit(old) == ["STALE", "STALE", "STALE"]

    (stored,) = await store.load(["room"])
    assert (stored.version, stored.fields) == ("two:1", {"meta": b"new"})
    assert await store.indexed(5) == ["room"]


async def test_commit_over_a_room_created_and_deleted_meanwhile_is_stale(store: Store) -> None:
    """Given a worker that read "no such room" and was paused, while another did all that there was to do."""
    (seen,) = await store.load(["room"])
    await store.commit([commit(1), commit(2, closed_sessions={"gateway.1": ClosedSession(2, 0)}), deletion("one:2")])

    late = commit(
        1, incarnation="zombie", fields={"session|bob": b"gone long ago"}, deletion_token=seen.deletion_token
    )

    assert await store.commit([late]) == ["STALE"]
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.fields) == ("", {})


async def test_deleted_room_can_be_created_again(store: Store) -> None:
    for incarnation in ("one", "two", "three"):
        (seen,) = await store.load(["room"])
        trip = [
            commit(1, incarnation=incarnation, deletion_token=seen.deletion_token),
            deletion(f"{incarnation}:1", token=incarnation),
        ]
        assert await store.commit(trip) == ["OK", "OK"]
    assert await store.indexed(5) == []


# --- messages ---------------------------------------------------------------------------------------------------


async def test_replay_returns_a_sessions_messages_in_order_and_no_others(store: Store) -> None:
    shared = SentMessage(b'"both"', [("s", 1), ("t", 1)])
    closing = SentMessage(b"bye", [("s", 4)], 4000)
    await store.commit([commit(1, messages=[shared, SentMessage(b'"second"', [("s", 2)])])])
    await store.commit([commit(2, messages=[SentMessage(b'"other"', [("t", 2)])])])
    await store.commit([commit(3, messages=[SentMessage(b'"third"', [("u", 9), ("s", 3)]), closing])])

    replayed = [
        (message.body, message.close, out) for message, out in (await replay_of(store, [("room", "s", 1)]))[0]
    ]

    assert replayed == [(b'"second"', 0, 2), (b'"third"', 0, 3), (b"bye", 4000, 4)]
    assert await replay_of(store, [("room", "s", 4), ("nowhere", "s", 0)]) == [[], []]


async def test_orders_are_kept_with_the_messages(store: Store) -> None:
    order = media.Close(object="engine", v=1, kind="router")
    with_orders = Commit("room", 5, "", "one:1", "t", {}, Entry([], [("node", order)]), {}, first=True)

    assert await store.commit([with_orders]) == ["OK"]
    assert await replay_of(store, [("room", "s", 0)]) == [[]]
    assert await store.orders(["room", "nowhere"]) == [("node", order)]


async def test_attempts_are_counted_until_they_are_cleared(store: Store) -> None:
    assert [await store.record_attempt(3, name) for name in ("one", "one", "two")] == [1, 2, 1]
    assert await store.attempts(3) == {"one": 2, "two": 1}
    await store.withdraw_attempts(3, ["one", "two"])
    assert await store.attempts(3) == {"one": 1, "two": 0}
    await store.clear_attempts(3, ["one"])
    assert await store.attempts(3) == {"two": 0}


async def test_messages_that_are_set_aside_are_counted(store: Store) -> None:
    item = bus.Tick(1, 1)
    assert await store.count_dead_letters() == 0
    await store.add_dead_letter(3, item, "its worker died")
    await store.add_dead_letter(4, item, "its worker died")
    assert await store.count_dead_letters() == 2


@pytest.mark.servers
async def test_message_that_is_set_aside_can_be_read_in_redis(redis: Redis) -> None:
    item = bus.Input("room", "s", 1, 4, "mediasoup-request", 9, b'{"method":"queryRoom"}')
    await RedisStore(redis).add_dead_letter(3, item, "its worker died")
    entries: Any = await redis.xrange("plenary:dead")
    ((_, fields),) = entries
    assert (fields[b"partition"], fields[b"reason"]) == (b"3", b"its worker died")
    assert b"queryRoom" in base64.b64decode(json.loads(fields[b"item"])[7])


async def test_pages_are_read_forwards_and_backwards_from_any_entry(store: Store) -> None:
    for n in range(1, 31):
        body = Random(n).randbytes(1000)
        await store.commit([commit(n, messages=[SentMessage(body, [("s", n)])])])

    async def read(entry: str, *, backwards: bool, inclusive: bool = False) -> tuple[list[int], Page]:
        (page,) = await store.pages([PageWanted("room", entry, backwards, inclusive)], 5500)
        return [message.to[0][1] for _, found in page.entries for message in found.messages], page

    numbers, first = await read("", backwards=False)
    assert numbers == [1, 2, 3, 4, 5]
    numbers, second = await read(first.last, backwards=False)
    assert numbers == [6, 7, 8, 9, 10]
    assert (await read(second.last, backwards=False, inclusive=True))[0] == [10, 11, 12, 13, 14]
    numbers, last = await read("", backwards=True)
    assert numbers == [30, 29, 28, 27, 26]
    assert (await read(last.last, backwards=True))[0] == [25, 24, 23, 22, 21]
    assert await read(last.entries[0][0], backwards=False) == ([], Page([], ""))
    assert await store.pages([PageWanted("nowhere"), PageWanted("nowhere", backwards=True)], 10) == [Page([], "")] * 2


async def test_entry_larger_than_a_page_is_read_alone(store: Store) -> None:
    for n in (1, 2):
        await store.commit([commit(n, messages=[SentMessage(Random(n).randbytes(5000), [("s", n)])])])

    first, again = await store.pages([PageWanted("room"), PageWanted("room")], 1000)

    assert [len(page.entries) for page in (first, again)] == [1, 1]
    assert first == again


async def test_orders_of_a_long_stream_are_read_in_order(store: Store) -> None:
    orders = [("node", media.Close(object=f"object{n}", v=n, kind="producer")) for n in range(1, 200)]
    for n, order in enumerate(orders, 1):
        entry = Entry([SentMessage(Random(n).randbytes(2000), [("s", n)])], [order])
        await store.commit([replace(commit(n), entry=entry)])

    assert await store.orders(["room", "nowhere", "room"]) == orders * 2


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
async def test_any_name_is_safe_in_keys_and_index(backend: Backend, room: str) -> None:
    store = backend.store
    await store.commit([commit(1, room=room, fields={f"peer|{room}": b"1"})])
    await store.commit([commit(1, room="neighbour")])

    assert sorted(await store.indexed(5)) == sorted([room, "neighbour"])
    assert await backend.cluster.rooms([5, 6]) == [sorted([room, "neighbour"]), []]
    (stored,) = await store.load([room])
    assert stored.fields == {f"peer|{room}": b"1"}

    await store.commit([deletion("one:1", room=room)])
    assert await store.indexed(5) == ["neighbour"]


def test_hash_tag_of_a_key_is_the_whole_name() -> None:
    for room in ROOMS:
        key = room_key(room)
        assert key.index("}") == len(key) - 1


def test_different_names_have_different_keys() -> None:
    assert len({room_key(room) for room in ROOMS}) == len(ROOMS)


# --- retention --------------------------------------------------------------------------------------------------


async def test_messages_are_trimmed_by_their_age_when_the_room_commits() -> None:
    backend = Memory()
    for n in range(1, 4):
        await backend.store.commit([commit(n, messages=[SentMessage(b"{}", [("s", n)])])])
        backend.pass_time(KEEP_SENT_MS / 2000)
    (replayed,) = await replay_of(backend.store, [("room", "s", 0)])
    assert [out for _, out in replayed] == [1, 2, 3]

    longer = commit(4, messages=[SentMessage(b"{}", [("s", 4)])])
    await backend.store.commit([replace(longer, keep_sent_ms=LONGEST_MS)])
    (replayed,) = await replay_of(backend.store, [("room", "s", 0)])
    assert [out for _, out in replayed] == [1, 2, 3, 4]

    await backend.store.commit([commit(5, messages=[SentMessage(b"{}", [("s", 5)])])])
    (replayed,) = await replay_of(backend.store, [("room", "s", 0)])
    assert [out for _, out in replayed] == [2, 3, 4, 5]


@pytest.mark.servers
@pytest.mark.parametrize("keep_ms", [0, LONGEST_MS])
async def test_redis_trims_old_messages_unless_they_are_kept_longer(redis: Redis, keep_ms: int) -> None:
    """Redis trims a hundred entries at a time."""
    store = RedisStore(redis)
    for n in range(1, 251):
        sent = commit(n, messages=[SentMessage(b"{}", [("s", n)])])
        assert await store.commit([replace(sent, keep_sent_ms=keep_ms)]) == ["OK"]

    (replayed,) = await replay_of(store, [("room", "s", 0)])

    assert len(replayed) == 250 if keep_ms else len(replayed) < 150


@pytest.mark.servers
async def test_redis_trims_by_the_time_that_passed_for_the_worker(redis: Redis) -> None:
    """What Redis' own clock says has no part in it, since it may be set."""
    now = [1000.0]
    store = RedisStore(redis, clock=lambda: now[0])
    for n in range(1, 601):
        assert await store.commit([commit(n, messages=[SentMessage(b"{}", [("s", n)])])]) == ["OK"]
        now[0] += 0.1

    (replayed,) = await replay_of(store, [("room", "s", 0)])

    kept = [out for _, out in replayed]
    assert kept == list(range(kept[0], 601))
    assert 601 - KEEP_SENT_MS / 100 - 200 < kept[0] <= 601 - KEEP_SENT_MS / 100


@pytest.mark.servers
async def test_entries_of_another_worker_are_not_taken_for_old_ones(redis: Redis) -> None:
    now = [1000.0]
    first, second = (RedisStore(redis, clock=lambda: now[0]) for _ in range(2))
    for n in range(1, 801):
        store = second if 300 < n < 700 else first
        if n in (301, 700):
            now[0] += 100.0
        assert await store.commit([commit(n, messages=[SentMessage(b"{}", [("s", n)])])]) == ["OK"]

    (replayed,) = await replay_of(first, [("room", "s", 0)])

    assert len(replayed) == 800, "neither worker has added anything that it knows to be old"


def test_script_asks_no_clock() -> None:
    script = files("roomworker.storage").joinpath("commit.lua").read_text()
    assert "'TIME'" not in script
    assert "MINID" not in script


# --- what cannot be read: it is wrong for its room only -----------------------------------------------------------


async def wrong_type(redis: Redis) -> None:
    await redis.set(room_key("broken"), "a string")


async def closed_sessions_of_wrong_type(redis: Redis) -> None:
    await redis.set(closed_sessions_key("broken"), "a string")


async def name_that_is_no_utf8(redis: Redis) -> None:
    await redis.hset(room_key("broken"), mapping={b"v": b"one:1", b"peer|\xff": b"{}"})


async def version_that_is_no_utf8(redis: Redis) -> None:
    await redis.hset(room_key("broken"), "v", b"\xff")


async def closed_session_without_numbers(redis: Redis) -> None:
    await redis.hset(closed_sessions_key("broken"), "gateway.1", b"many")


async def closed_session_that_is_no_utf8(redis: Redis) -> None:
    await redis.hset(closed_sessions_key("broken"), b"\xff", b"1:1")


async def answer_without_code(redis: Redis) -> None:
    await redis.hset(closed_sessions_key("broken"), "call|key", b"ok")


@pytest.mark.servers
@pytest.mark.parametrize(
    "damage",
    [
        wrong_type,
        closed_sessions_of_wrong_type,
        name_that_is_no_utf8,
        version_that_is_no_utf8,
        closed_session_without_numbers,
        closed_session_that_is_no_utf8,
        answer_without_code,
    ],
)
async def test_unreadable_room_is_reported_and_affects_no_other_room(
    redis: Redis, damage: Callable[[Redis], Any]
) -> None:
    store = RedisStore(redis)
    await store.commit([commit(1, room="whole", fields={"meta": b"{}"})])
    await damage(redis)

    broken, whole = await store.load(["broken", "whole"])

    assert broken.unreadable
    assert (broken.version, broken.fields) == ("", {})
    assert (whole.unreadable, whole.version) == ("", "one:1")
    assert store.failures == 0


@pytest.mark.servers
@pytest.mark.parametrize("key", [room_key, stream_key, closed_sessions_key])
async def test_commit_over_a_key_of_a_wrong_type_fails_alone_and_writes_nothing(
    redis: Redis, key: Callable[[str], str]
) -> None:
    store = RedisStore(redis)
    await redis.set(key("broken"), "a string")
    keys = set(await redis.keys("room:*"))

    mine = commit(1, room="broken", fields={"meta": b"{}"}, messages=[SentMessage(b"{}", [("s", 1)])])
    trip = [commit(1, room="a"), replace(mine, closed_sessions={"s": ClosedSession(1, 1)}), commit(1, room="b")]

    assert await store.commit(trip) == ["OK", "FAILED", "OK"]
    assert set(await redis.keys("room:*")) == {*keys, room_key("a").encode(), room_key("b").encode()}
    assert store.failures == 0


@pytest.mark.servers
async def test_unreadable_stream_entry_is_skipped(redis: Redis) -> None:
    """Every worker that took the room over would die of it."""
    store = RedisStore(redis)
    await store.commit([commit(1, messages=[SentMessage(b'"one"', [("s", 1)])])])
    for broken in (b"x\x9cbroken", b"\x01", b"", b"\x92\x91\x93\xa1\xff\x90\x00\x90"):
        await redis.xadd(stream_key("room"), {"m": broken})
    await redis.xadd(stream_key("room"), {"something": "else"})
    await store.commit([commit(2, messages=[SentMessage(b'"four"', [("s", 4)])])])

    (replayed,) = await replay_of(store, [("room", "s", 0)])

    assert [out for _, out in replayed] == [1, 4]
    assert await store.orders(["room"]) == []


@pytest.mark.servers
async def test_stream_of_a_wrong_type_is_empty_and_affects_no_other(redis: Redis) -> None:
    store = RedisStore(redis)
    await store.commit([commit(1, room="whole", messages=[SentMessage(b"{}", [("s", 1)])])])
    await redis.set(stream_key("broken"), "a string")

    broken, whole = await replay_of(store, [("broken", "s", 0), ("whole", "s", 0)])

    assert (broken, [out for _, out in whole]) == ([], [1])
    assert await store.orders(["broken", "whole"]) == []


@pytest.mark.servers
async def test_index_skips_entries_that_are_not_names(redis: Redis) -> None:
    store = RedisStore(redis)
    await redis.sadd(index_key(5), index_member("room", "one"), b"\xff#one")
    await redis.set(index_key(6), "a string")

    assert "room" in await store.indexed(5)
    assert await store.indexed(6) == []


@pytest.mark.servers
@pytest.mark.parametrize("value", ["a string", {"name": "often"}])
async def test_unreadable_poison_marks_count_as_none(redis: Redis, value: Any) -> None:
    store = RedisStore(redis)
    if isinstance(value, str):
        await redis.set(attempts_key(3), value)
    else:
        await redis.hset(attempts_key(3), mapping=value)

    assert await store.attempts(3) == {}
    assert await store.record_attempt(3, "name") == 1


# --- connections --------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_work_for_500_rooms_at_once_needs_few_connections(redis_url: str) -> None:
    pool = ConnectionPool.from_url(redis_url, max_connections=ROUND_TRIPS_AT_ONCE)
    redis = Redis.from_pool(pool)
    store = RedisStore(redis)

    await asyncio.gather(
        *(replay_of(store, [(f"room{n}", "s", 0)]) for n in range(500)),
        *(store.orders([f"room{n}"]) for n in range(500)),
        *(store.indexed(n) for n in range(500)),
        *(store.record_attempt(n, "name") for n in range(500)),
    )

    assert store.failures == 0
    await redis.aclose()


# --- sizes --------------------------------------------------------------------------------------------------------


async def test_size_of_a_room_is_that_of_all_it_has_stored(store: Store) -> None:
    assert await store.state_sizes(["room", "none"]) == [0, 0]
    large: dict[str, bytes | None] = {"meta": b"x" * 100_000}
    await store.commit([replace(commit(1, fields=large), answered_calls={"key": StoredAnswer(200, b"x" * 50_000)})])

    empty, size = await store.state_sizes(["none", "room"])

    assert empty == 0
    assert 150_000 < size < 250_000


async def test_size_of_a_room_of_many_small_fields_counts_their_names(store: Store) -> None:
    many: dict[str, bytes | None] = {f"consumer|{i}|bob": b"%d" % i for i in range(3000)}
    await store.commit([commit(1, fields=many)])

    (size,) = await store.state_sizes(["room"])

    assert size >= sum(len(name) + len(value or b"") for name, value in many.items())


@pytest.mark.servers
async def test_room_of_too_many_fields_is_not_counted(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FIELDS_COUNTED", 10)
    store = RedisStore(redis)
    for name, fields in (("few", 5), ("many", 20)):
        await redis.hset(room_key(name), mapping={f"field{n}": "x" for n in range(fields)})

    few, many = await store.state_sizes(["few", "many"])

    assert few < 10_000
    assert many == UNCOUNTED


@pytest.mark.servers
async def test_size_is_known_to_a_user_who_may_not_ask_for_memory(redis: Redis, redis_url: str) -> None:
    await redis.acl_setuser("plain", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    await redis.execute_command("ACL", "SETUSER", "plain", "-memory")
    async with Redis.from_url(redis_url, username="plain", password="secret") as client:
        store = RedisStore(client)
        await store.commit([commit(1, fields={"meta": b"x" * 100_000})])
        (size,) = await store.state_sizes(["room"])
    await redis.acl_deluser("plain")

    assert 100_000 < size < 110_000


@pytest.mark.servers
async def test_size_of_keys_of_another_type_is_known(redis: Redis) -> None:
    await redis.set(room_key("room"), "x" * 100_000)

    (size,) = await RedisStore(redis).state_sizes(["room"])

    assert size > 100_000


# --- saving memory ------------------------------------------------------------------------------------------------


async def test_trimming_removes_old_messages_and_keeps_the_latest(backend: Backend) -> None:
    store = backend.store
    large = SentMessage(Random(1).randbytes(5000), [("s", 1)])  # Redis removes whole nodes of 4 KiB
    await store.commit([commit(1, messages=[large]), commit(1, room="other", messages=[large])])
    assert await store.trim(["room", "other", "none"], LONGEST_MS) == 0
    await let_pass(backend, 0.05)
    for n in (2, 3):
        young = commit(n, messages=[SentMessage(Random(n).randbytes(5000), [("s", n)])])
        await store.commit([replace(young, keep_sent_ms=40)])
        await let_pass(backend, 0.05 * (3 - n))

    await store.trim(["room", "none"], 40)
    kept = [out for _, out in (await replay_of(store, [("room", "s", 0)]))[0]]
    assert 1 not in kept
    assert 3 in kept
    assert [out for _, out in (await replay_of(store, [("other", "s", 0)]))[0]] == [1]
    await let_pass(backend, 0.05)
    assert await store.trim(["other"], 40) == 1
    assert await replay_of(store, [("other", "s", 0)]) == [[]]


@pytest.mark.servers
async def test_stream_of_a_room_that_another_worker_has_committed_is_not_trimmed(redis: Redis) -> None:
    mine, theirs = RedisStore(redis), RedisStore(redis)
    await mine.commit([commit(1, messages=[SentMessage(b"{}", [("s", 1)])])])
    await theirs.commit([commit(2, messages=[SentMessage(b"{}", [("s", 2)])])])

    assert await mine.trim(["room"], 0) == 0
    assert [out for _, out in (await replay_of(theirs, [("room", "s", 0)]))[0]] == [1, 2]


async def let_pass(backend: Backend, seconds: float) -> None:
    """Lets time pass for the store, whose entries have the time of their commit."""
    if isinstance(backend, Memory):
        backend.pass_time(seconds)
    else:
        await asyncio.sleep(seconds)


async def test_footprints_grow_with_records_and_messages(store: Store) -> None:
    await store.commit([commit(1, fields={"meta": b"1"}), commit(1, room="large", fields={"meta": b"m" * 100_000})])
    message = SentMessage(json.dumps(list(range(50_000))).encode(), [("s", 1)])
    await store.commit([commit(1, room="talking", fields={"meta": b"1"}, messages=[message])])

    small, large, talking, none = await store.footprints(["room", "large", "talking", "none"])
    assert none == 0
    assert small < 1000
    assert large > 100_000
    assert talking > 10 * small


async def test_past_of_deleted_rooms_is_forgotten_sooner_and_of_others_kept(backend: Backend) -> None:
    store = backend.store
    closed: dict[str, ClosedSession | None] = {"gateway.1": ClosedSession(3, 4)}
    rooms = [f"room{n}" for n in range(600)]
    await store.commit([commit(1, room=room, closed_sessions=closed) for room in rooms])
    await store.commit([deletion("one:1", room=room) for room in rooms[1:]])

    assert await store.shorten_past(30) == len(rooms) - 1
    assert await store.shorten_past(30) == 0
    if isinstance(backend, Memory):
        backend.pass_time(31)
        kept, *forgotten = await store.load(rooms)
        assert kept.closed_sessions
        assert not any(stored.closed_sessions for stored in forgotten)
    elif isinstance(backend, Server):
        lifetimes = [await backend.redis.ttl(closed_sessions_key(room)) for room in rooms]
        assert lifetimes[0] > 30
        assert max(lifetimes[1:]) <= 30


@pytest.fixture
async def full_redis(redis: Redis) -> AsyncIterator[Redis]:
    """A server whose memory is used up by data that is not Plenary's."""
    async with filled(redis):
        yield redis


@pytest.mark.servers
async def test_full_server_stores_commits_deletions_and_marks(full_redis: Redis) -> None:
    store = RedisStore(full_redis)
    closed: dict[str, ClosedSession | None] = {"gateway.1": ClosedSession(3, 4)}
    answer = [SentMessage(b'{"errorCode":503}', [("s", 1)])]
    async with asyncio.timeout(20):
        assert await store.commit([commit(1, fields={"meta": b"{}"}), commit(1, room="other")]) == ["OK", "OK"]
        assert await store.commit([commit(2, messages=answer, closed_sessions=closed)]) == ["OK"]
        assert await store.commit([deletion("one:1", room="other")]) == ["OK"]
        assert await store.indexed(5) == ["room"]
        assert [await store.record_attempt(5, "batch/1"), await store.record_attempt(5, "batch/1")] == [1, 2]
        await store.withdraw_attempts(5, ["batch/1"])
        await store.add_dead_letter(5, bus.Tick(1, 1), "why")
        await store.trim(["room"], 0)
        assert await store.shorten_past(30) == 1
    assert store.failures == 0
