"""Redis reaches its maxmemory: what exists goes on and may shrink, nothing grows, and all comes back by itself."""

import asyncio
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from devtools.cluster import Cluster, Role, ready
from devtools.servers import Server
from shared.errors import MEMORY_USED_UP, UNAVAILABLE
from tests.support.peer import Peer, Refusal
from tests.support.recorded_close import recorded_close
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers

READY = "ready\n"

MAXMEMORY = 24 * 1024 * 1024
KIB = 1024


class LimitedRedis:
    """A Redis with a small maxmemory, and data of somebody else in it."""

    def __init__(self, url: str) -> None:
        self.redis: Any = Redis.from_url(url, socket_timeout=5)

    async def fill(self) -> None:
        """Writes until Redis refuses to."""
        with suppress(OutOfMemoryError):
            for n in range(MAXMEMORY // KIB):
                await self.redis.set(f"ballast{n}", b"x" * 16 * KIB)
            raise AssertionError("Redis takes everything")

    async def relieve(self) -> None:
        async for key in self.redis.scan_iter("ballast*", count=1000):
            await self.redis.delete(key)


@pytest.fixture
async def limited(killable_redis: Server) -> AsyncIterator[LimitedRedis]:
    found = LimitedRedis(killable_redis.url)
    await found.redis.config_set("maxmemory", MAXMEMORY)
    try:
        yield found
    finally:
        await found.redis.config_set("maxmemory", 0)
        await found.redis.aclose()


@pytest.fixture
async def cluster(
    limited: LimitedRedis, killable_redis: Server, amqp_url: str, tmp_path: Path
) -> AsyncIterator[Cluster]:
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


def is_said(role: Role, text: str) -> bool:
    """Whether the role's internal port says so when it is asked whether it is ready."""
    try:
        with urllib.request.urlopen(f"{role.metrics_url}/readyz", timeout=5) as answer:
            said = answer.read().decode()
    except urllib.error.HTTPError as refused:
        said = refused.read().decode()
    return said == READY if text == READY else text in said


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


async def test_full_redis_refuses_growth_until_it_has_memory_again(cluster: Cluster, limited: LimitedRedis) -> None:
    gateway, worker = cluster.roles["gateway1"], cluster.roles["worker1"]
    alice, bob = [await Peer.connect(gateway.url, "salon", name) for name in ("alice", "bob")]
    await alice.join()
    await bob.join()
    send, _ = await alice.transports()
    _, recv = await bob.transports()
    producer = await alice.produce(send)
    consumer = (await bob.notified("newConsumer"))["id"]
    await bob.request("enableConsumer", id=consumer, transportId=recv)

    await limited.fill()
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

    await limited.relieve()
    for role in (gateway, worker, second):
        await until(partial(is_said, role, READY), in_thread=True)
    assert (await alice.request("queryRoom"))["rtpCapabilities"]
    carol = await Peer.connect(gateway.url, "salon", "carol")
    assert [peer["name"] for peer in await carol.join()] == ["alice"]
    assert all(role.alive for role in cluster.roles.values())


async def test_room_that_fills_redis_is_ended_and_others_are_kept(cluster: Cluster, limited: LimitedRedis) -> None:
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
