"""RabbitMQ has a memory alarm: it is there, and takes no messages. Clients are told so, and all comes back."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from devtools.cluster import Cluster, ready
from devtools.servers import Server
from tests.support.peer import Peer, Refusal
from tests.support.readiness import READY, is_said
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers


@pytest.fixture
async def cluster(redis_url: str, new_rabbitmq: Server, tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(redis_url, new_rabbitmq.url, tmp_path, partitions=4, metrics=True)
    async with cluster.running_async(gateways=2, workers=1):
        yield cluster


async def refused_requests(peer: Peer) -> int:
    """Asks until a request is refused with 503; returns how many were asked and are not answered."""
    unanswered = 0
    async with asyncio.timeout(PATIENCE):
        while True:
            id_ = peer.client.request({"method": "queryRoom"})
            try:
                await asyncio.wait_for(peer.answer(id_), 0.5)
            except TimeoutError:
                unanswered += 1
            except Refusal as refusal:
                if refusal.code != 503:
                    raise
                return unanswered


async def test_blocked_rabbitmq_counts_as_absent_until_it_is_unblocked(
    cluster: Cluster, new_rabbitmq: Server
) -> None:
    gateway, idle = cluster.roles["gateway1"], cluster.roles["gateway2"]
    alice = await Peer.connect(gateway.url, "salon", "alice")
    await alice.join()
    bob = await ResumablePeer.at([gateway.url], "salon", "bob")
    await bob.join()
    await alice.notified("newPeer", name="bob")

    await asyncio.to_thread(new_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        # the gateway without clients learns it, too
        for role in cluster.roles.values():
            await until(partial(is_said, role, "takes no messages"), in_thread=True)
        assert not await asyncio.to_thread(ready, idle.url)
        unanswered = await refused_requests(alice)
        late = bob.client.request({"method": "queryRoom"})
        assert not bob.client.closed.done()
    finally:
        await asyncio.to_thread(new_rabbitmq.ctl, "set_vm_memory_high_watermark", "0.4")

    for role in cluster.roles.values():
        await until(partial(is_said, role, READY), in_thread=True)
    assert "rtpCapabilities" in await bob.answer(late)
    assert "rtpCapabilities" in await alice.request("queryRoom")
    assert unanswered >= 1
    bob.check()
    carol = await Peer.connect(idle.url, "salon", "carol")
    assert sorted(peer["name"] for peer in await carol.join()) == ["alice", "bob"]
