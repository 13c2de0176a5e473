"""Sessions that outlive their connections and gateways, in a cluster of processes on real RabbitMQ and Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devtools.cluster import Cluster, address
from loadtest.client.protoo import Ended, ProtooClient
from shared.errors import REPLACED
from tests.support.peer import Peer
from tests.support.proxy import Proxy
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers
PARTITIONS = 8
UNLIMITED = ["--message-rate", "0"]


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(
        redis_url, amqp_url, tmp_path, PARTITIONS, gateway_options=UNLIMITED
    ).running_async() as cluster:
        yield cluster


@pytest.fixture
async def impatient_cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster with a grace of one second."""
    options = ["--grace-seconds", "1"]
    cluster = Cluster(redis_url, amqp_url, tmp_path, PARTITIONS, gateway_options=options, worker_options=options)
    async with cluster.running_async() as cluster:
        yield cluster


def urls(cluster: Cluster, *names: str) -> list[str]:
    return [cluster.roles[name].url for name in names]


async def two_peers(gateways: list[str]) -> tuple[ResumablePeer, ResumablePeer]:
    """alice at the first of two gateways and bob at the second, in one room; each may reconnect to either gateway."""
    alice = await ResumablePeer.at(gateways, "salon", "alice")
    bob = await ResumablePeer.at(gateways[::-1], "salon", "bob")
    await alice.join()
    await bob.join()
    await alice.notified("newPeer", name="bob")
    return alice, bob


async def hear_each_other(alice: ResumablePeer, bob: ResumablePeer, count: int) -> None:
    """Asserts that each has received all messages of the other, once and in order."""
    await alice.hears(count)
    await bob.hears(count)
    assert alice.messages == bob.messages == list(range(count))
    alice.check()
    bob.check()
    assert [n["method"] for n in (*alice.notifications, *bob.notifications)] == []


async def test_peers_do_not_notice_a_resumption_after_a_gateway_kill(cluster: Cluster) -> None:
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    asked = [alice.client.request({"method": "queryRoom"}) for _ in range(50)]
    for number in range(100):
        alice.say(number)
        bob.say(number)
    cluster.roles["gateway1"].kill()
    asked += [alice.client.request({"method": "queryRoom"}) for _ in range(50)]
    for number in range(100, 200):
        alice.say(number)
        bob.say(number)
    for id_ in asked:
        assert "rtpCapabilities" in await alice.answer(id_)
    await hear_each_other(alice, bob, 200)
    assert alice.protoo.counts.resumed == 1
    assert bob.protoo.counts.resumed == 0
    send, _ = await alice.transports()
    await alice.produce(send)
    await bob.notified("newConsumer", peerName="alice")


async def test_a_cut_socket_is_resumed_at_the_same_gateway(cluster: Cluster) -> None:
    alice = await ResumablePeer.at(urls(cluster, "gateway1"), "salon", "alice")
    bob = await ResumablePeer.at(urls(cluster, "gateway1"), "salon", "bob")
    await alice.join()
    await bob.join()
    await alice.notified("newPeer", name="bob")
    for number in range(100):
        if number % 20 == 5:
            alice.protoo.drop_connection()
        alice.say(number)
        bob.say(number)
        if number % 20 == 15:
            await alice.request("queryRoom")
    await hear_each_other(alice, bob, 100)
    assert alice.protoo.counts.resumed == 5


@pytest.fixture
async def proxies(cluster: Cluster) -> AsyncIterator[dict[str, Proxy]]:
    """An address for each gateway that stays when another process follows it."""
    proxies = {name: Proxy(*address(cluster.roles[name])) for name in ("gateway1", "gateway2")}
    for proxy in proxies.values():
        await proxy.start()
    yield proxies
    for proxy in proxies.values():
        await proxy.stop()


async def test_no_message_is_lost_or_repeated_when_processes_are_killed(
    cluster: Cluster, proxies: dict[str, Proxy]
) -> None:
    alice, bob = await two_peers([f"http://127.0.0.1:{proxy.port}" for proxy in proxies.values()])
    victims = [("gateway1", cluster.gateway), ("worker1", cluster.roomworker), ("gateway2", cluster.gateway)]
    victims += [("worker2", cluster.roomworker)]
    number = 0
    for name, start in victims:
        asked = []
        for _ in range(50):
            alice.say(number)
            bob.say(number)
            asked.append((alice, alice.client.request({"method": "queryRoom"})))
            asked.append((bob, bob.client.request({"method": "queryRoom"})))
            number += 1
            if number % 50 == 25:
                if name in proxies:
                    proxies[name].refuse()
                await asyncio.to_thread(cluster.roles[name].kill)
        await asyncio.to_thread(start, name)
        if name in proxies:
            proxies[name].redirect(*address(cluster.roles[name]))
            await proxies[name].start()
        for peer, id_ in asked:
            assert "rtpCapabilities" in await peer.answer(id_)
    await hear_each_other(alice, bob, number)


async def test_a_client_of_a_stopped_gateway_resumes_at_another(cluster: Cluster) -> None:
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    for number in range(50):
        alice.say(number)
        bob.say(number)
    stopping = asyncio.get_running_loop().run_in_executor(None, cluster.roles["gateway1"].stop)
    for number in range(50, 100):
        alice.say(number)
        bob.say(number)
        await alice.request("queryRoom")
    assert await stopping == 0
    await hear_each_other(alice, bob, 100)
    assert alice.protoo.counts.resumed == 1


async def test_a_peer_leaves_when_the_grace_has_expired(impatient_cluster: Cluster) -> None:
    cluster = impatient_cluster
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    assert alice.protoo.ledger.grace_seconds == 1
    token = alice.protoo.ledger.token
    await alice.protoo.abort()
    assert (await bob.notified("peerClosed"))["name"] == "alice"
    late = ProtooClient(
        urls(cluster, "gateway2")[0].replace("http", "ws"),
        "salon",
        "alice",
        query={"resume": token, "ack": "0", "attempt": "1"},
    )
    with pytest.raises(Ended, match="4001"):
        await late.open()
    again = await ResumablePeer.at(urls(cluster, "gateway2"), "salon", "alice")
    assert [peer["name"] for peer in await again.join()] == ["bob"]


async def test_a_peer_leaves_at_once_when_its_client_closes(cluster: Cluster) -> None:
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    alice.say("last words")
    await alice.close()
    await bob.notified("peerClosed", name="alice")
    assert bob.messages == ["last words"]


@pytest.mark.parametrize("second", [ResumablePeer.at, None], ids=["resumable", "plain"])
async def test_a_second_tab_replaces_the_first_permanently(cluster: Cluster, second: object) -> None:
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    if second is None:
        tab: Peer = await Peer.connect(cluster.roles["gateway2"].url, "salon", "alice")
    else:
        tab = await ResumablePeer.at(urls(cluster, "gateway2", "gateway1"), "salon", "alice")
    async with asyncio.timeout(PATIENCE):
        ended = await alice.protoo.ended
    assert (ended.code, ended.reason) == (REPLACED.code, REPLACED.reason)
    await bob.notified("peerClosed", name="alice")
    await tab.join()
    await bob.notified("newPeer", name="alice")


async def test_a_resumed_session_leaves_no_record_of_its_old_connection(cluster: Cluster) -> None:
    alice, bob = await two_peers(urls(cluster, "gateway1", "gateway2"))
    cluster.roles["gateway1"].kill()
    await alice.request("queryRoom")
    await alice.close()
    await bob.notified("peerClosed", name="alice")
    await bob.close()
    await until(lambda: cluster.redis.keys("room:*") == [b"room:{salon}:closed_sessions"])
