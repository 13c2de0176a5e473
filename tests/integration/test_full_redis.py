"""Redis reaches its maxmemory: what exists goes on and may shrink, nothing grows, and all comes back by itself."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis

from devtools.cluster import Cluster, ready
from devtools.servers import Server
from shared.errors import MEMORY_USED_UP, UNAVAILABLE
from tests.support.full_redis import fill, relieve
from tests.support.peer import Peer, Refusal
from tests.support.readiness import READY, is_said
from tests.support.recorded_close import recorded_close
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers

MAXMEMORY = 24 * 1024 * 1024
KIB = 1024


@pytest.fixture
async def limited(killable_redis: Server) -> AsyncIterator[Any]:
    """A Redis with a small maxmemory."""
    redis: Any = Redis.from_url(killable_redis.url, socket_timeout=5)
    await redis.config_set("maxmemory", MAXMEMORY)
    try:
        yield redis
    finally:
        await redis.config_set("maxmemory", 0)
        await redis.aclose()


@pytest.fixture
async def cluster(limited: Any, killable_redis: Server, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    options = ["--grace-seconds", "120"]
    cluster = Cluster(
        killable_redis.url,
        amqp_url,
        tmp_path,
        partitions=4,
        metrics=True,
        gateway_options=["--message-rate", "0", *options],
        worker_options=options,
    )
    async with cluster.running_async(gateways=1, workers=1):
        yield cluster


async def refusal(peer: Peer, method: str, **fields: Any) -> int:
    """The code of the error that answers the request; 0 if it succeeds."""
    try:
        await peer.request(method, **fields)
    except Refusal as refused:
        return refused.code
    return 0


async def answered(peer: Peer, asked: list[int]) -> None:
    """Returns when each request is answered or refused."""
    for id_ in asked:
        with suppress(Refusal):
            await peer.answer(id_)


async def test_full_redis_refuses_growth_until_it_has_memory_again(cluster: Cluster, limited: Any) -> None:
    gateway, worker = cluster.roles["gateway1"], cluster.roles["worker1"]
    alice, bob = [await Peer.connect(gateway.url, "salon", name) for name in ("alice", "bob")]
    await alice.join()
    await bob.join()
    send, _ = await alice.transports()
    _, recv = await bob.transports()
    producer = await alice.produce(send)
    consumer = (await bob.notified("newConsumer"))["id"]
    await bob.request("enableConsumer", id=consumer, transportId=recv)

    await fill(limited)
    for role in (gateway, worker):
        await until(partial(is_said, role, "maxmemory"), in_thread=True)
    assert not await asyncio.to_thread(ready, gateway.url)

    assert await refusal(alice, "createTransport", id=77, direction="recv", options={}) == 503
    assert await refusal(bob, "queryRoom") == 503
    newcomer = await recorded_close(gateway.url, "roomId=salon&peerName=carol")
    assert await asyncio.wait_for(newcomer.code, PATIENCE) == UNAVAILABLE.code
    # a new worker starts, and what makes the room smaller goes on
    second = await asyncio.to_thread(cluster.roomworker, "worker2")
    await until(partial(is_said, second, "maxmemory"), in_thread=True)
    assert await alice.confirmed("pauseProducer", id=producer) == {}
    await bob.notified("consumerPaused", id=consumer)
    assert await alice.confirmed("closeProducer", id=producer) == {}
    await bob.notified("consumerClosed", id=consumer)
    await bob.close()
    await alice.notified("peerClosed", name="bob")
    assert not alice.client.closed.done()

    await relieve(limited)
    for role in (gateway, worker, second):
        await until(partial(is_said, role, READY), in_thread=True)
    assert (await alice.request("queryRoom"))["rtpCapabilities"]
    carol = await Peer.connect(gateway.url, "salon", "carol")
    assert [peer["name"] for peer in await carol.join()] == ["alice"]
    assert all(role.alive for role in cluster.roles.values())


async def test_room_that_fills_redis_is_ended_and_others_are_kept(cluster: Cluster, limited: Any) -> None:
    """What the room `large` says within the grace fills Redis, which no trimming may remove."""
    gateway = cluster.roles["gateway1"]
    talker, listener = [await Peer.connect(gateway.url, "large", name) for name in ("talker", "listener")]
    quiet = await Peer.connect(gateway.url, "small", "quiet")
    for peer in (talker, listener, quiet):
        await peer.join()

    incompressible = b64encode(Random(1).randbytes(45 * KIB)).decode()
    while not talker.client.closed.done():
        asked = [talker.client.request({"to": "listener", "data": incompressible}, "message") for _ in range(10)]
        answers = asyncio.create_task(answered(talker, asked))
        waiting: set[asyncio.Future[Any]] = {talker.client.closed, answers}
        await asyncio.wait(waiting, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        answers.cancel()
        await asyncio.gather(answers, return_exceptions=True)

    for peer in (talker, listener):
        assert await peer.client.until_closed() == (MEMORY_USED_UP.code, MEMORY_USED_UP.reason)
    await until(lambda: not cluster.redis.exists("room:{large}", "room:{large}:out"), in_thread=True)
    for role in (gateway, cluster.roles["worker1"]):
        await until(partial(is_said, role, READY), in_thread=True)
    assert (await quiet.request("queryRoom"))["rtpCapabilities"]
    assert not quiet.client.closed.done()
