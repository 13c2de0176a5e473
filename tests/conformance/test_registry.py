"""Membership, Observer and what a cluster agrees on, over memory and Redis. The clock is passed in: nothing waits."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from shared.cluster.agreement import DifferentCluster, Epoch, agree_on_partitions
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.port import Cluster, MemoryUse
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.redis_keys import PARTITIONS_KEY, Role, index_key, index_member, members_key
from shared.cluster.registry import DEAD_AFTER, Membership, Observer
from shared.telemetry.log import hide_secrets
from tests.support.full_redis import filled
from tests.support.proxy import Proxy

NAMES = ["room", "a b", "}{", "%7D", "räume/日本", "a|b#c", "x" * 128]


class Memory:
    """A cluster in memory, and what the tests do to its server."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()

    async def put_into_index(self, partition: int, *members: str) -> None:
        self.cluster.index.setdefault(partition, set()).update(members)

    async def put_into_registry(self, role: Role, name: bytes, value: bytes) -> None:
        self.cluster.entries[role][name] = value

    async def empty(self) -> None:
        self.cluster.clear()


class Server:
    """A cluster on Redis, with the same methods as `Memory`."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.cluster = RedisCluster(redis)

    async def put_into_index(self, partition: int, *members: str) -> None:
        await self.redis.sadd(index_key(partition), *members)

    async def put_into_registry(self, role: Role, name: bytes, value: bytes) -> None:
        await self.redis.hset(members_key(role), name, value)

    async def empty(self) -> None:
        await self.redis.flushdb()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.servers)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Memory | Server]:
    if request.param == "memory":
        yield Memory()
        return
    client: Any = Redis.from_url(request.getfixturevalue("redis_url"), socket_timeout=5)
    yield Server(client)
    await client.aclose()


@pytest.fixture
def cluster(server: Memory | Server) -> Cluster:
    return server.cluster


def member(cluster: Cluster, name: str = "gw-1", **info: Any) -> Membership:
    return Membership(cluster, "gateways", name, info)


# --- who is alive -------------------------------------------------------------------------------------------------


async def test_member_is_listed_with_its_info(cluster: Cluster) -> None:
    membership, observer = member(cluster, address="10.0.0.1"), Observer(cluster, "gateways")
    await membership.beat()

    await observer.read(0.0)

    assert observer.alive == {"gw-1": {"address": "10.0.0.1", "beat": 1}}
    assert observer.dead == set()


async def test_new_info_comes_with_the_next_beat(cluster: Cluster) -> None:
    membership, observer = member(cluster, load=1), Observer(cluster, "gateways")
    await membership.beat()
    membership.info = {"load": 2}
    await membership.beat()

    await observer.read(0.0)

    assert observer.alive["gw-1"]["load"] == 2


async def test_members_of_one_role_are_not_listed_for_another(cluster: Cluster) -> None:
    await member(cluster).beat()
    observer = Observer(cluster, "workers")

    await observer.read(0.0)

    assert not observer.alive
    assert not observer.dead


async def test_a_member_that_beats_stays_alive(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")

    for second in range(20):
        await membership.beat()
        await observer.read(float(second))
        assert set(observer.alive) == {"gw-1"}


async def test_a_silent_member_is_dead_after_the_limit_and_not_before(cluster: Cluster) -> None:
    await member(cluster).beat()
    observer = Observer(cluster, "gateways")
    for second in range(int(DEAD_AFTER)):
        await observer.read(float(second))
        assert set(observer.alive) == {"gw-1"}
        assert not observer.dead

    await observer.read(DEAD_AFTER)

    assert observer.dead == {"gw-1"}
    assert not observer.alive


async def test_member_is_alive_at_the_observers_first_read(cluster: Cluster) -> None:
    await member(cluster).beat()
    observer = Observer(cluster, "gateways")

    await observer.read(1000.0)

    assert set(observer.alive) == {"gw-1"}


async def test_one_late_beat_starts_the_count_again(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")
    await membership.beat()
    await observer.read(0.0)
    await observer.read(DEAD_AFTER - 1)
    await membership.beat()
    await observer.read(DEAD_AFTER)

    await observer.read(2 * DEAD_AFTER - 1)
    assert set(observer.alive) == {"gw-1"}

    await observer.read(2 * DEAD_AFTER)
    assert observer.dead == {"gw-1"}


async def test_a_member_declared_dead_that_beats_is_alive_again(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")
    await membership.beat()
    await observer.read(0.0)
    await observer.read(DEAD_AFTER)

    await membership.beat()
    await observer.read(DEAD_AFTER + 1)

    assert set(observer.alive) == {"gw-1"}
    assert not observer.dead


async def test_a_failed_read_starts_every_count_again(cluster: Cluster) -> None:
    await member(cluster).beat()
    observer = Observer(cluster, "gateways")
    await observer.read(0.0)
    await observer.read(DEAD_AFTER - 1)
    observer.failed()

    await observer.read(DEAD_AFTER)
    assert set(observer.alive) == {"gw-1"}
    await observer.read(2 * DEAD_AFTER - 1)
    assert set(observer.alive) == {"gw-1"}

    await observer.read(2 * DEAD_AFTER)
    assert observer.dead == {"gw-1"}


async def test_observer_that_was_suspended_declares_no_member_dead(cluster: Cluster) -> None:
    await member(cluster).beat()
    observer = Observer(cluster, "gateways")
    await observer.read(0.0)

    await observer.read(100.0)

    assert set(observer.alive) == {"gw-1"}


async def test_member_that_leaves_is_neither_alive_nor_dead(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")
    await membership.beat()
    await observer.read(0.0)

    await membership.leave()
    await observer.read(1.0)

    assert not observer.alive
    assert not observer.dead


async def test_only_one_observer_evicts_a_dead_member(cluster: Cluster) -> None:
    await member(cluster).beat()
    first, second = Observer(cluster, "gateways"), Observer(cluster, "gateways")

    assert await first.evict("gw-1") is True
    assert await second.evict("gw-1") is False
    assert await first.evict("never-known") is False


@pytest.mark.servers
async def test_entries_never_expire_by_themselves(redis_url: str) -> None:
    redis = Redis.from_url(redis_url, socket_timeout=5)
    await member(RedisCluster(redis)).beat()

    assert await redis.ttl(members_key("gateways")) == -1
    await redis.aclose()


@pytest.mark.servers
async def test_unreachable_redis_raises_and_declares_no_member_dead(redis_url: str) -> None:
    direct = Redis.from_url(redis_url, socket_timeout=5)
    options = direct.connection_pool.connection_kwargs
    proxy = Proxy(options["host"], options["port"])
    await proxy.start()
    through = Redis(host="127.0.0.1", port=proxy.port, db=options.get("db", 0), socket_timeout=5)
    membership, observer = member(RedisCluster(direct)), Observer(RedisCluster(through), "gateways")
    await membership.beat()
    await observer.read(0.0)

    proxy.refuse()
    proxy.cut()
    with pytest.raises(RedisConnectionError):
        await observer.read(1.0)
    observer.failed()
    await proxy.start()
    await observer.read(DEAD_AFTER)

    assert set(observer.alive) == {"gw-1"}
    await through.aclose()
    await direct.aclose()
    await proxy.stop()


async def test_member_marked_dead_stays_dead_until_its_next_beat(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")
    await membership.beat()
    await observer.read(0.0)

    observer.mark_dead("gw-1")

    assert (observer.alive, observer.dead) == ({}, {"gw-1"})
    await observer.read(0.1)
    assert (observer.alive, observer.dead) == ({}, {"gw-1"})
    assert observer.is_dead("gw-1", 0.1)
    await membership.beat()
    await observer.read(0.2)
    assert (set(observer.alive), observer.dead) == ({"gw-1"}, set())


async def test_undisturbed_time_begins_after_the_last_failed_read(cluster: Cluster) -> None:
    observer = Observer(cluster, "gateways")
    assert observer.undisturbed_for(9.0) == 0.0
    await observer.read(10.0)
    await observer.read(11.0)
    assert observer.undisturbed_for(12.0) == 2.0
    observer.failed()
    assert observer.undisturbed_for(13.0) == 0.0
    await observer.read(14.0)
    assert observer.undisturbed_for(15.0) == 1.0


async def test_member_is_beating_while_its_beat_changes(cluster: Cluster) -> None:
    membership, observer = member(cluster), Observer(cluster, "gateways")
    await membership.beat()
    await observer.read(0.0)
    assert (set(observer.alive), observer.beating(3.0, 0.0)) == ({"gw-1"}, set()), "it may be dead since long"

    await membership.beat()
    await observer.read(1.0)
    assert observer.beating(3.0, 1.0) == {"gw-1"}
    await observer.read(3.9)
    assert observer.beating(3.0, 3.9) == {"gw-1"}
    assert (set(observer.alive), observer.beating(3.0, 4.0)) == ({"gw-1"}, set())
    await membership.beat()
    await observer.read(4.5)
    assert observer.beating(3.0, 4.5) == {"gw-1"}
    await membership.leave()
    await observer.read(5.0)
    assert observer.beating(3.0, 5.0) == set()


@pytest.mark.parametrize(
    ("role", "value"),
    [
        ("gateways", b""),
        ("gateways", b"{"),
        ("gateways", b"\xff"),
        ("gateways", b"null"),
        ("gateways", b"[1]"),
        ("gateways", b"{}"),
        ("gateways", b'{"beat": null}'),
        ("gateways", b'{"beat": "7"}'),
        ("workers", b'{"subscribed": [1]}'),
        ("nodes", b'{"beat": [], "load": 1}'),
    ],
)
async def test_invalid_entry_is_skipped_and_logged_once_with_its_key(
    server: Memory | Server, role: Role, value: bytes
) -> None:
    await server.put_into_registry(role, b"broken", value)
    await Membership(server.cluster, role, "sound", {}).beat()
    observer = Observer(server.cluster, role)

    with capture_logs() as lines:
        for second in range(3):
            await observer.read(float(second))

    assert observer.alive == {"sound": {"beat": 1}}
    assert not observer.dead
    (line,) = [hide_secrets(None, "", line) for line in lines]
    assert (line["event"], line["redis_key"], line["field"]) == (
        "registry.entry_invalid",
        members_key(role),
        "broken",
    )
    assert line["error"]


@pytest.mark.parametrize(
    ("role", "field", "value"),
    [
        ("gateways", "connections", b'"many"'),
        ("gateways", "draining", b"2"),
        ("workers", "subscribed", b"3"),
        ("workers", "active", b'["one"]'),
        ("workers", "unreadable", b"null"),
        ("workers", "unreadable_rooms", b'["salon"]'),
        ("nodes", "load", b'"light"'),
        ("nodes", "routers", b"[[]]"),
    ],
)
async def test_process_with_another_invalid_field_lives_without_that_field(
    server: Memory | Server, role: Role, field: str, value: bytes
) -> None:
    await server.put_into_registry(
        role, b"newer", b'{"beat": 7, "kept": 1, "' + field.encode() + b'": ' + value + b"}"
    )
    observer = Observer(server.cluster, role)

    with capture_logs() as lines:
        for second in range(3):
            await observer.read(float(second))

    assert observer.alive == {"newer": {"beat": 7, "kept": 1}}
    (line,) = lines
    assert (line["event"], line["field"]) == ("registry.entry_invalid", "newer")
    assert field in line["error"]


async def test_entry_with_an_undecodable_id_is_skipped(server: Memory | Server) -> None:
    await server.put_into_registry("nodes", b"\xff", b'{"beat": 1}')

    with capture_logs() as lines:
        assert await server.cluster.members("nodes") == {}

    assert [line["field"] for line in lines] == ["\\xff"]


async def test_invalid_entry_is_used_again_after_the_next_beat(server: Memory | Server) -> None:
    await server.put_into_registry("gateways", b"gw-1", b"{")
    observer = Observer(server.cluster, "gateways")
    await observer.read(0.0)
    assert not observer.alive

    await member(server.cluster).beat()
    await observer.read(1.0)

    assert set(observer.alive) == {"gw-1"}


# --- what all agree on --------------------------------------------------------------------------------------------


async def test_the_first_process_fixes_the_number_of_partitions(cluster: Cluster) -> None:
    await agree_on_partitions(cluster, 16)
    await agree_on_partitions(cluster, 16)

    with pytest.raises(DifferentCluster, match="PLENARY_PARTITIONS=16"):
        await agree_on_partitions(cluster, 8)


@pytest.mark.servers
@pytest.mark.parametrize("value", ["many", "", "-1", "0"])
async def test_invalid_number_of_partitions_is_reported_with_its_key(redis_url: str, value: str) -> None:
    redis = Redis.from_url(redis_url, socket_timeout=5)
    await redis.set(PARTITIONS_KEY, value)

    with pytest.raises(DifferentCluster, match=f"{PARTITIONS_KEY} in Redis is b'{value}'"):
        await agree_on_partitions(RedisCluster(redis), 8)
    await redis.aclose()


async def test_a_server_that_was_emptied_is_noticed_once(server: Memory | Server) -> None:
    epoch = Epoch(server.cluster)
    assert [await epoch.changed(), await epoch.changed()] == [False, False]

    await server.empty()

    assert [await epoch.changed(), await epoch.changed()] == [True, False]
    assert await server.cluster.members("gateways") == {}
    await agree_on_partitions(server.cluster, 8)


async def test_rooms_are_listed_by_partition_in_order_each_once(server: Memory | Server) -> None:
    await server.put_into_index(3, *(index_member(name, "one") for name in NAMES), index_member("room", "two"))
    await server.put_into_index(4, index_member("neighbour", "one"))

    assert await server.cluster.rooms([3, 4, 5]) == [sorted(NAMES), ["neighbour"], []]
    assert await server.cluster.room_counts([3, 4, 5]) == [len(NAMES) + 1, 1, 0]


async def test_a_member_is_evicted_by_one_process_only(cluster: Cluster) -> None:
    await member(cluster).beat()
    assert [await cluster.withdraw("gateways", "gw-1"), await cluster.withdraw("gateways", "gw-1")] == [True, False]


async def test_time_of_a_cluster_begins_with_the_first_leader_and_never_falls(server: Memory | Server) -> None:
    cluster = server.cluster
    assert await cluster.advance_time(0, 1_700_000_000_000) == 1_700_000_000_000
    assert await cluster.advance_time(0, 1_800_000_000_000) == 1_700_000_000_000, "the next leader's clock is ahead"
    assert await cluster.advance_time(1_700_000_005_000, 0) == 1_700_000_005_000
    assert await cluster.advance_time(1_700_000_004_000, 0) == 1_700_000_005_000

    await server.empty()

    assert await cluster.advance_time(7, 1_600_000_000_000) == 1_600_000_000_000


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_full_server_tells_its_memory_and_takes_members_in(redis_url: str) -> None:
    redis: Any = Redis.from_url(redis_url, socket_timeout=5)
    async with filled(redis) as limit:
        full = RedisCluster(redis)
        with capture_logs() as lines:
            assert (await full.memory()).limit == limit
            assert (await full.memory()).share > 0.9
            await agree_on_partitions(full, 8)
            assert not await Epoch(full).changed()
            await member(full).beat()
            assert set(await full.members("gateways")) == {"gw-1"}
        assert lines == []
    await redis.aclose()


async def test_server_that_does_not_tell_its_memory_has_no_limit() -> None:
    redis = FakeAsyncRedis()
    with capture_logs() as lines:
        assert await RedisCluster(redis).memory() == MemoryUse()
    assert lines == []
    await redis.aclose()
