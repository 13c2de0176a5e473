"""Membership and Observer over fakeredis and real Redis. The clock is passed in: nothing here waits."""

from collections.abc import AsyncIterator
from typing import Any

import fakeredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.cluster.registry import DEAD_AFTER, Membership, Observer, key
from tests.support.proxy import Proxy


@pytest.fixture(params=["fakeredis", pytest.param("redis", marks=pytest.mark.servers)])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    client: Any
    if request.param == "fakeredis":
        client = fakeredis.FakeAsyncRedis()
    else:
        client = Redis.from_url(request.getfixturevalue("redis_url"), socket_timeout=5)
    yield client
    await client.aclose()


def member(redis: Redis, name: str = "gw-1", **info: Any) -> Membership:
    return Membership(redis, "gateways", name, info)


async def test_a_member_is_known_with_what_it_tells_of_itself(redis: Redis) -> None:
    membership, observer = member(redis, address="10.0.0.1"), Observer(redis, "gateways")
    await membership.beat()

    await observer.read(0.0)

    assert observer.alive == {"gw-1": {"address": "10.0.0.1", "beat": 1}}
    assert observer.dead == set()


async def test_new_info_comes_with_the_next_beat(redis: Redis) -> None:
    membership, observer = member(redis, load=1), Observer(redis, "gateways")
    await membership.beat()
    membership.info = {"load": 2}
    await membership.beat()

    await observer.read(0.0)

    assert observer.alive["gw-1"]["load"] == 2


async def test_roles_are_apart(redis: Redis) -> None:
    await member(redis).beat()
    observer = Observer(redis, "workers")

    await observer.read(0.0)

    assert not observer.alive
    assert not observer.dead


async def test_a_member_that_beats_stays_alive(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")

    for second in range(20):
        await membership.beat()
        await observer.read(float(second))
        assert set(observer.alive) == {"gw-1"}


async def test_a_silent_member_is_dead_after_the_limit_and_not_before(redis: Redis) -> None:
    await member(redis).beat()
    observer = Observer(redis, "gateways")
    for second in range(int(DEAD_AFTER)):
        await observer.read(float(second))
        assert set(observer.alive) == {"gw-1"}
        assert not observer.dead

    await observer.read(DEAD_AFTER)

    assert observer.dead == {"gw-1"}
    assert not observer.alive


async def test_the_count_starts_when_the_observer_first_looks(redis: Redis) -> None:
    await member(redis).beat()
    observer = Observer(redis, "gateways")

    await observer.read(1000.0)

    assert set(observer.alive) == {"gw-1"}


async def test_one_late_beat_starts_the_count_again(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")
    await membership.beat()
    await observer.read(0.0)
    await observer.read(DEAD_AFTER - 1)
    await membership.beat()
    await observer.read(DEAD_AFTER)

    await observer.read(2 * DEAD_AFTER - 1)
    assert set(observer.alive) == {"gw-1"}

    await observer.read(2 * DEAD_AFTER)
    assert observer.dead == {"gw-1"}


async def test_a_member_declared_dead_that_beats_is_alive_again(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")
    await membership.beat()
    await observer.read(0.0)
    await observer.read(DEAD_AFTER)

    await membership.beat()
    await observer.read(DEAD_AFTER + 1)

    assert set(observer.alive) == {"gw-1"}
    assert not observer.dead


async def test_a_failed_read_starts_every_count_again(redis: Redis) -> None:
    await member(redis).beat()
    observer = Observer(redis, "gateways")
    await observer.read(0.0)
    await observer.read(DEAD_AFTER - 1)
    observer.failed()

    await observer.read(DEAD_AFTER)
    assert set(observer.alive) == {"gw-1"}
    await observer.read(2 * DEAD_AFTER - 1)
    assert set(observer.alive) == {"gw-1"}

    await observer.read(2 * DEAD_AFTER)
    assert observer.dead == {"gw-1"}


async def test_an_observer_that_itself_stood_still_declares_nobody_dead(redis: Redis) -> None:
    await member(redis).beat()
    observer = Observer(redis, "gateways")
    await observer.read(0.0)

    await observer.read(100.0)

    assert set(observer.alive) == {"gw-1"}


async def test_one_that_leaves_is_neither_alive_nor_dead(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")
    await membership.beat()
    await observer.read(0.0)

    await membership.leave()
    await observer.read(1.0)

    assert not observer.alive
    assert not observer.dead


async def test_only_one_observer_buries_a_dead_member(redis: Redis) -> None:
    await member(redis).beat()
    first, second = Observer(redis, "gateways"), Observer(redis, "gateways")

    assert await first.evict("gw-1") is True
    assert await second.evict("gw-1") is False
    assert await first.evict("never-known") is False


async def test_entries_never_expire_by_themselves(redis: Redis) -> None:
    await member(redis).beat()

    assert await redis.ttl(key("gateways")) == -1


@pytest.mark.servers
async def test_redis_away_raises_and_nobody_dies_of_it(redis_url: str) -> None:
    direct = Redis.from_url(redis_url, socket_timeout=5)
    options = direct.connection_pool.connection_kwargs
    proxy = Proxy(options["host"], options["port"])
    await proxy.start()
    through = Redis(host="127.0.0.1", port=proxy.port, db=options.get("db", 0), socket_timeout=5)
    membership, observer = member(direct), Observer(through, "gateways")
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


async def test_one_that_is_known_to_be_dead_is_until_it_beats_again(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")
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


async def test_the_view_is_undisturbed_since_the_last_read_that_failed(redis: Redis) -> None:
    observer = Observer(redis, "gateways")
    assert observer.undisturbed_for(9.0) == 0.0
    await observer.read(10.0)
    await observer.read(11.0)
    assert observer.undisturbed_for(12.0) == 2.0
    observer.failed()
    assert observer.undisturbed_for(13.0) == 0.0
    await observer.read(14.0)
    assert observer.undisturbed_for(15.0) == 1.0


async def test_one_is_beating_while_its_beat_is_seen_to_change(redis: Redis) -> None:
    membership, observer = member(redis), Observer(redis, "gateways")
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
