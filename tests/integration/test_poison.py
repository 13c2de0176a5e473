"""A message that kills each process that handles it is found and set aside alone; all others are served."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from devtools.cluster import Cluster
from tests.support.crashing_worker import DEADLY
from tests.support.peer import Peer, Refusal
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import until

pytestmark = pytest.mark.servers


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster with one partition, so that all messages come through one queue."""
    cluster = Cluster(
        redis_url,
        amqp_url,
        tmp_path,
        1,
        gateway_options=["--message-rate", "0"],
        worker_program="tests.support.crashing_worker",
    )
    async with cluster.running_async(gateways=1):
        yield cluster


@asynccontextmanager
async def replaced(cluster: Cluster) -> AsyncIterator[list[str]]:
    """Starts a new room worker for each that dies, as a supervisor does; yields the names of the dead."""
    dead: list[str] = []
    names = (f"successor{n}" for n in count(1))

    async def guard() -> None:
        while True:
            for name in [name for name in cluster.roles if not name.startswith(("gateway", "node"))]:
                if name not in dead and not cluster.roles[name].alive:
                    dead.append(name)
                    await asyncio.to_thread(cluster.roomworker, next(names))
            await asyncio.sleep(0.05)

    guarding = asyncio.create_task(guard())
    try:
        yield dead
    finally:
        guarding.cancel()
        await asyncio.wait([guarding])


async def test_message_that_kills_workers_is_answered_500_and_set_aside(cluster: Cluster) -> None:
    url = cluster.roles["gateway1"].url
    alice = await ResumablePeer.at([url], "salon", "alice")
    bob = await Peer.connect(url, "salon", "bob")
    carol = await ResumablePeer.at([url], "elsewhere", "carol")
    peers = (alice, bob, carol)
    for peer in peers:
        await peer.join()
    await alice.notified("newPeer", name="bob")
    async with replaced(cluster) as dead:
        asked: list[tuple[Peer, int]] = []

        def ask(*those: Peer) -> None:
            asked.extend((peer, peer.client.request({"method": "queryRoom"})) for peer in those)

        for n in range(10):
            ask(*peers)
            alice.say(n)
        deadly = alice.client.request({"method": DEADLY})
        for n in range(10, 20):
            ask(*peers)
            alice.say(n)
        with pytest.raises(Refusal) as refusal:
            await alice.answer(deadly)
        assert refusal.value.code == 500
        for peer, id_ in asked:
            assert "rtpCapabilities" in await peer.answer(id_)
        print(f"{len(dead)} room workers died of it")
        assert 2 <= len(dead) <= 4

        # it is kept for a person to look at, and nothing else is
        ((_, aside),) = cluster.redis.xrange("plenary:dead")
        assert aside[b"partition"] == b"0"
        assert b"died" in aside[b"reason"]
        assert DEADLY.encode() in base64.b64decode(json.loads(aside[b"item"])[-1])
        assert alice.protoo.counts.connections == carol.protoo.counts.connections == 1
        for peer in peers:
            assert (peer.notifications, peer._answers) == ([], {})
        alice.check()
        carol.check()

        # and afterwards no message is marked any more
        for peer in peers:
            await peer.produce((await peer.transports())[0])
        await until(lambda: not cluster.redis.exists("plenary:attempts:0"))
        assert all(cluster.roles[name].alive for name in cluster.roles if name not in dead)
