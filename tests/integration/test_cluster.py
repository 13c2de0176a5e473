"""A cluster of processes on real RabbitMQ and Redis, with the null engine, and the loss of single processes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devtools.cluster import Cluster
from devtools.servers import Server
from shared.protocol.bus import partition_of
from tests.support.peer import Peer, Refusal
from tests.support.waiting import until

pytestmark = pytest.mark.servers
PARTITIONS = 8


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path, PARTITIONS)
    async with cluster.running_async():
        yield cluster


async def test_a_room_is_readable_in_redis_and_leaves_nothing_behind(cluster: Cluster) -> None:
    alice = await Peer.connect(cluster.roles["gateway1"].url, "salon", "alice")
    bob = await Peer.connect(cluster.roles["gateway2"].url, "salon", "bob")
    await alice.join(appData={"mood": "fine"})
    assert [peer["appData"] for peer in await bob.join()] == [{"mood": "fine"}]
    await alice.notified("newPeer", name="bob")
    send, _ = await alice.transports()
    _, recv = await bob.transports()
    producer = await alice.produce(send)
    consumer = (await bob.notified("newConsumer", peerName="alice"))["id"]
    enabled = await bob.request("enableConsumer", id=consumer, transportId=recv)
    assert enabled == {"paused": False, "preferredProfile": "default", "effectiveProfile": "default"}

    fields = {name.decode() for name in cluster.redis.hkeys("room:{salon}")}
    assert {
        *("v", "token", "meta", "peer|alice", "peer|bob", "session|alice", "session|bob"),
        *(f"transport|{send}|alice", f"producer|{producer}|alice", f"consumer|{consumer}|bob"),
    } <= fields

    await alice.confirmed("leave", appData="bye")
    assert (await bob.notified("peerClosed"))["appData"] == "bye"
    await alice.close()
    await bob.close()
    await until(lambda: cluster.redis.keys("room:*") == [b"room:{salon}:closed_sessions"])
    assert 0 < cluster.redis.ttl("room:{salon}:closed_sessions") <= 600
    await until(lambda: not cluster.redis.keys("plenary:partition:*"))  # removed after the room


async def test_one_binding_per_gateway_and_one_queue_per_partition(cluster: Cluster, rabbitmq_server: Server) -> None:
    urls = [cluster.roles[name].url for name in ("gateway1", "gateway2")]
    peers = [await Peer.connect(urls[n % 2], f"room{n % 3}", f"peer{n}") for n in range(20)]
    for peer in peers:
        await peer.join()
    bindings = rabbitmq_server.ctl("list_bindings", "source_name", "destination_name", "routing_key").splitlines()
    notify = [line for line in bindings if line.startswith("notify\t")]
    assert len(notify) == 2, notify
    assert all(line.endswith(".#") for line in notify)
    queues = rabbitmq_server.ctl("list_queues", "name").split()
    assert sorted(name for name in queues if name.startswith("rooms.")) == sorted(
        f"rooms.{partition}" for partition in range(PARTITIONS)
    )
    for peer in peers:
        await peer.close()


async def test_a_killed_room_worker_is_followed_and_nothing_is_lost(cluster: Cluster) -> None:
    peers = [await Peer.connect(cluster.roles["gateway1"].url, f"room{n}", "alice") for n in range(12)]
    for peer in peers:
        await peer.join()
        await peer.transports()
    before = [peer.client.request({"method": "queryRoom"}) for peer in peers for _ in range(20)]
    cluster.roles["worker1"].kill()
    after = [peer.client.request({"method": "queryRoom"}) for peer in peers for _ in range(20)]
    owners = [peer for peer in peers for _ in range(20)] * 2
    for peer, id_ in zip(owners, [*before, *after], strict=True):
        assert "rtpCapabilities" in await peer.answer(id_)
    for peer in peers:
        await peer.produce((await peer.transports())[0])

    cluster.roomworker("worker1b")
    late = await Peer.connect(cluster.roles["gateway2"].url, "room0", "bob")
    assert [peer["name"] for peer in await late.join()] == ["alice"]


async def test_a_stopped_room_worker_hands_over(cluster: Cluster) -> None:
    peers = [await Peer.connect(cluster.roles["gateway2"].url, f"room{n}", "alice") for n in range(12)]
    for peer in peers:
        await peer.join()
    asked = [(peer, peer.client.request({"method": "queryRoom"})) for peer in peers for _ in range(20)]
    stopping = asyncio.get_running_loop().run_in_executor(None, cluster.roles["worker2"].stop)
    for peer, id_ in asked:
        assert "rtpCapabilities" in await peer.answer(id_)
    assert await stopping == 0
    for peer in peers:
        assert "rtpCapabilities" in await peer.request("queryRoom")


async def test_a_killed_gateway_takes_only_its_own_clients_with_it(cluster: Cluster) -> None:
    alice = await Peer.connect(cluster.roles["gateway1"].url, "salon", "alice")
    bob = await Peer.connect(cluster.roles["gateway2"].url, "salon", "bob")
    await alice.join()
    await bob.join()
    cluster.roles["gateway1"].kill()
    await bob.notified("peerClosed", name="alice")
    assert "rtpCapabilities" in await bob.request("queryRoom")

    again = cluster.gateway("gateway1b")
    alice = await Peer.connect(again.url, "salon", "alice")
    assert [peer["name"] for peer in await alice.join()] == ["bob"]
    await bob.notified("newPeer", name="alice")


async def test_the_newer_connection_of_a_peer_replaces_the_older(cluster: Cluster) -> None:
    bob = await Peer.connect(cluster.roles["gateway2"].url, "salon", "bob")
    await bob.join()
    first = await Peer.connect(cluster.roles["gateway1"].url, "salon", "alice")
    await first.join()
    await bob.notified("newPeer", name="alice")
    second = await Peer.connect(cluster.roles["gateway2"].url, "salon", "alice")
    code, _ = await first.client.until_closed()
    assert code == 4000
    await bob.notified("peerClosed", name="alice")
    await second.join()
    await bob.notified("newPeer", name="alice")


async def test_bad_input_is_answered_and_disturbs_no_other_peer(cluster: Cluster) -> None:
    alice = await Peer.connect(cluster.roles["gateway1"].url, "salon", "alice")
    mallory = await Peer.connect(cluster.roles["gateway1"].url, "salon", "mallory")
    await alice.join()
    await mallory.join()
    for frame in (b"{", b"[1,2]", b'"text"', b"[" * 5000 + b"]" * 5000, b'{"request":true}'):
        mallory.client.send(frame)
        complaint = await mallory.client.receive()
        while complaint.get("method") != "error":
            complaint = await mallory.client.receive()
        assert complaint["data"]["errorCode"] == 400
    for code, method, fields in (
        (400, "noSuchMethod", {}),
        (400, "createTransport", {"id": "x", "direction": "send"}),
        (400, "createTransport", {"id": 1, "direction": "sideways"}),
        (404, "enableConsumer", {"id": 4711, "transportId": 1}),
        (404, "createProducer", {"id": 1, "kind": "audio", "transportId": 1, "rtpParameters": {"codecs": [{}]}}),
        (409, "join", {"peerName": "mallory", "rtpCapabilities": {"codecs": []}}),
        (413, "queryRoom", {"padding": "x" * 300_000}),
    ):
        with pytest.raises(Refusal) as refusal:
            await mallory.request(method, **fields)
        assert refusal.value.code == code if method != "createProducer" else refusal.value.code in (400, 404)
    mallory.client.send("x" * (2**20 + 1))
    await mallory.client.until_closed()

    await alice.notified("peerClosed", name="mallory")
    assert "rtpCapabilities" in await alice.request("queryRoom")
    assert {notification["method"] for notification in alice.notifications} <= {"newPeer"}


async def test_emptied_redis_ends_sessions_and_peers_may_join_again(cluster: Cluster) -> None:
    url = cluster.roles["gateway1"].url
    alice, bob = [await Peer.connect(url, "salon", name) for name in ("alice", "bob")]
    for peer in (alice, bob):
        await peer.join()
        await peer.transports()
    cluster.redis.flushall()
    for peer in (alice, bob):
        await peer.notified("closed")
        assert (await peer.client.until_closed())[0] == 4001

    again = await Peer.connect(url, "salon", "alice")
    assert await again.join() == []
    await again.produce(await until(again.offered_transport, "the media node is known again"))
    await until(lambda: [json.loads(info)["routers"] for info in cluster.redis.hvals("plenary:nodes")] == [1])


async def test_without_a_media_node_transports_are_refused_with_503(
    redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    cluster = Cluster(redis_url, amqp_url, tmp_path, PARTITIONS)
    try:
        cluster.roomworker("worker1")
        gateway = cluster.gateway("gateway1")
        alice = await Peer.connect(gateway.url, "salon", "alice")
        await alice.join()
        with pytest.raises(Refusal) as refusal:
            await alice.request("createTransport", id=1, direction="recv", options={})
        assert refusal.value.code == 503
        await alice.close()
    finally:
        cluster.stop()


def test_rooms_are_spread_over_the_partitions() -> None:
    used = {partition_of(f"room{n}", PARTITIONS) for n in range(100)}
    assert used == set(range(PARTITIONS))
