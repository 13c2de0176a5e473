"""Rooms in Redis: the promises of `roomworker.storage.store`, kept by the real server and by the embedded one."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from fakeredis.aioredis import FakeRedis
from redis.asyncio import Redis

from roomworker.core.model import ClosedSession
from roomworker.storage.store import Commit, Store
from roomworker.storage.stream_entry import Entry, SentMessage
from shared.cluster.redis_keys import closed_sessions_key, index_key, room_key, stream_key
from shared.protocol import bus, media

ROOMS = ["room", "a b", "}{", "%7D", "räume/日本", "a|b#c", "v", "x" * 128]


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.servers)])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    if request.param == "embedded":
        client: Redis = FakeRedis()
    else:
        client = Redis.from_url(request.getfixturevalue("redis_url"))
    yield client
    await client.aclose()


@pytest.fixture
def store(redis: Redis) -> Store:
    return Store(redis)


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


async def everything(redis: Redis) -> dict[bytes, object]:
    """All keys, but for the time they have left."""
    found: dict[bytes, object] = {}
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        match kind:
            case b"hash":
                found[key] = await redis.hgetall(key)
            case b"stream":
                found[key] = await redis.xrange(key)
            case b"set":
                found[key] = await redis.smembers(key)
            case _:
                raise AssertionError(kind)
    return found


# --- compare and set ----------------------------------------------------------------------------------------------


async def test_what_is_committed_is_loaded(store: Store) -> None:
    gone = {"gateway.9": ClosedSession(7, 3)}

    assert await store.commit([commit(1, fields={"meta": b"{}", "peer|bob": b"1"}, closed_sessions=gone)]) == ["OK"]
    assert await store.commit([commit(2, fields={"peer|bob": None, "peer|eve": b"2"})]) == ["OK"]

    (stored,) = await store.load(["room"])
    assert stored.version == "one:2"
    assert stored.fields == {"meta": b"{}", "peer|eve": b"2"}
    assert stored.closed_sessions == gone


async def test_a_room_that_was_never_there_loads_empty(store: Store) -> None:
    (stored,) = await store.load(["room"])

    assert (stored.version, stored.fields, stored.closed_sessions) == ("", {}, {})


async def test_a_commit_over_another_version_is_stale_and_writes_nothing(store: Store, redis: Redis) -> None:
    await store.commit([commit(1), commit(2, fields={"meta": b"theirs"}, token="theirs")])
    before = await everything(redis)

    mine = commit(
        2,
        token="mine",
        fields={"meta": b"mine", "peer|bob": b"1"},
        messages=[SentMessage(b"{}", [("s", 1)])],
        closed_sessions={"s": ClosedSession(1, 1), "t": None},
    )
    assert await store.commit([mine]) == ["STALE"]

    assert await everything(redis) == before


async def test_a_commit_done_again_is_recognised_by_its_token(store: Store, redis: Redis) -> None:
    mine = commit(1, fields={"meta": b"1"}, messages=[SentMessage(b"{}", [("s", 1)])])
    assert await store.commit([mine]) == ["OK"]
    before = await everything(redis)

    assert await store.commit([mine]) == ["APPLIED"]
    assert await everything(redis) == before


async def test_rooms_of_one_trip_succeed_and_fail_each_for_itself(store: Store) -> None:
    await store.commit([commit(1, room="a"), commit(1, room="b")])

    trip = [commit(2, room="a"), commit(2, room="b", expected="other:1"), commit(1, room="c")]

    assert await store.commit(trip) == ["OK", "STALE", "OK"]


async def test_fields_beyond_what_lua_takes_at_once(store: Store) -> None:
    many: dict[str, bytes | None] = {f"consumer|{i}|bob": b"%d" % i for i in range(3000)}
    closed: dict[str, ClosedSession | None] = {f"gateway.{i}": ClosedSession(i, i) for i in range(1200)}
    await store.commit([commit(1, fields=many, closed_sessions=closed)])

    (stored,) = await store.load(["room"])
    assert stored.fields == many
    assert stored.closed_sessions == closed

    await store.commit([commit(2, fields=dict.fromkeys(many), closed_sessions=dict.fromkeys(closed))])
    (stored,) = await store.load(["room"])
    assert (stored.fields, stored.closed_sessions) == ({}, {})


async def test_redis_that_forgot_the_script_is_given_it_again(store: Store, redis: Redis) -> None:
    await store.commit([commit(1)])
    await redis.script_flush()

    assert await store.commit([commit(2, fields={"meta": b"2"}), commit(1, room="other")]) == ["OK", "OK"]


# --- the end of a room ----------------------------------------------------------------------------------------------


async def test_a_deleted_room_leaves_only_its_gone_sessions(store: Store, redis: Redis) -> None:
    gone = {"gateway.1": ClosedSession(4, 2)}
    await store.commit([commit(1, messages=[SentMessage(b"{}", [("s", 1)])])])
    await store.commit([commit(2, closed_sessions=gone)])
    assert await store.indexed(5) == ["room"]

    assert await store.commit([deletion("one:2")]) == ["OK"]

    assert await redis.keys("*") == [closed_sessions_key("room").encode()]
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.fields, stored.closed_sessions) == ("", {}, gone)


async def test_gone_sessions_are_forgotten_in_the_end(store: Store, redis: Redis) -> None:
    await store.commit([commit(1, closed_sessions={"gateway.1": ClosedSession(4, 2)}), deletion("one:1")])

    assert 0 < await redis.ttl(closed_sessions_key("room")) <= 600


async def test_a_deletion_is_stale_if_the_room_has_moved_on_and_the_room_stays_in_the_index(store: Store) -> None:
    await store.commit([commit(1)])
    await store.commit([commit(2, fields={"meta": b"2"})])

    assert await store.commit([deletion("one:1")]) == ["STALE"]

    (stored,) = await store.load(["room"])
    assert stored.version == "one:2"
    assert await store.indexed(5) == ["room"]


async def test_a_room_made_anew_is_safe_from_the_worker_that_knew_the_old_one(store: Store) -> None:
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


async def test_a_room_that_came_and_went_unseen_is_not_taken_for_one_that_never_was(store: Store) -> None:
    """Given a worker that read "no such room" and was paused, while another did all that there was to do."""
    (seen,) = await store.load(["room"])
    await store.commit([commit(1), commit(2, closed_sessions={"gateway.1": ClosedSession(2, 0)}), deletion("one:2")])

    late = commit(
        1, incarnation="zombie", fields={"session|bob": b"gone long ago"}, deletion_token=seen.deletion_token
    )

    assert await store.commit([late]) == ["STALE"]
    (stored,) = await store.load(["room"])
    assert (stored.version, stored.fields) == ("", {})


async def test_a_deleted_room_can_be_made_anew(store: Store) -> None:
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

    replayed = [(message.body, message.close, out) for message, out in await store.replay("room", "s", 1)]

    assert replayed == [(b'"second"', 0, 2), (b'"third"', 0, 3), (b"bye", 4000, 4)]
    assert await store.replay("room", "s", 4) == []
    assert await store.replay("nowhere", "s", 0) == []


async def test_orders_are_kept_with_the_messages(store: Store) -> None:
    order = media.Close(object="engine", v=1, kind="router")
    with_orders = Commit("room", 5, "", "one:1", "t", {}, Entry([], [("node", order)]), {}, first=True)

    assert await store.commit([with_orders]) == ["OK"]
    assert await store.replay("room", "s", 0) == []
    assert await store.orders(["room", "nowhere"]) == [("node", order)]


async def test_suspects_are_counted_until_they_are_cleared(store: Store) -> None:
    assert [await store.suspect(3, "one"), await store.suspect(3, "one"), await store.suspect(3, "two")] == [1, 2, 1]
    assert await store.suspects(3) == {"one": 2, "two": 1}
    await store.clear_suspects(3, ["one"])
    assert await store.suspects(3) == {"two": 1}


async def test_what_is_set_aside_can_be_read(store: Store, redis: Redis) -> None:
    item = bus.Input("room", "s", 1, 4, "mediasoup-request", 9, b'{"method":"queryRoom"}')
    await store.set_aside(3, item, "its worker died")
    ((_, fields),) = await redis.xrange("plenary:dead")
    assert (fields[b"partition"], fields[b"reason"]) == (b"3", b"its worker died")
    assert b"queryRoom" in base64.b64decode(json.loads(fields[b"item"])[7])


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS)
async def test_any_name_is_safe_in_keys_and_index(store: Store, redis: Redis, room: str) -> None:
    await store.commit([commit(1, room=room, fields={f"peer|{room}": b"1"})])
    await store.commit([commit(1, room="neighbour")])

    assert sorted(await store.indexed(5)) == sorted([room, "neighbour"])
    (stored,) = await store.load([room])
    assert stored.fields == {f"peer|{room}": b"1"}
    key = room_key(room)
    assert key.index("}") == len(key) - 1, "the hash tag must be all of the name"

    await store.commit([deletion("one:1", room=room)])
    assert await store.indexed(5) == ["neighbour"]
    assert await redis.smembers(index_key(6)) == set()


def test_no_two_names_share_a_key() -> None:
    assert len({room_key(room) for room in ROOMS}) == len(ROOMS)


@pytest.mark.parametrize("keep_all", [False, True])
async def test_old_messages_are_trimmed_unless_some_may_not_have_arrived(redis: Redis, *, keep_all: bool) -> None:
    """Redis trims a hundred entries at a time."""
    store = Store(redis, keep_out_ms=0)
    for n in range(1, 251):
        sent = commit(n, messages=[SentMessage(b"{}", [("s", n)])])
        assert await store.commit([replace(sent, keep_all=keep_all)]) == ["OK"]

    kept = len(await store.replay("room", "s", 0))

    assert kept == 250 if keep_all else kept < 150


async def test_an_entry_that_cannot_be_read_is_passed_over(store: Store, redis: Redis) -> None:
    """Every worker that took the room over would die of it."""
    await store.commit([commit(1, messages=[SentMessage(b'"one"', [("s", 1)])])])
    for broken in (b"x\x9cbroken", b"\x01"):
        await redis.xadd(stream_key("room"), {"m": broken})
    await store.commit([commit(2, messages=[SentMessage(b'"four"', [("s", 4)])])])
    assert [out for _, out in await store.replay("room", "s", 0)] == [1, 4]
    assert await store.orders(["room"]) == []
