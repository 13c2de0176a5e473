"""Servers that are away, room workers that hang, media nodes that die or fall silent: in a cluster of processes."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from devtools.cluster import Cluster, Role, ready
from devtools.servers import Server
from shared.protocol.bus import partition_of
from tests.fault.cluster import FaultCluster, Process, Shape
from tests.support.peer import Peer, Refusal
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.servers, pytest.mark.sample(4)]
UNLIMITED = ["--message-rate", "0"]
KEY = "secret"
REFUSED = "refused"


async def resuming(cluster: Cluster, name: str, room: str = "salon", at: int = 1) -> ResumablePeer:
    """Returns a resumable peer that has joined at gateway `at`."""
    urls = [cluster.roles[gateway].url for gateway in (f"gateway{at}", f"gateway{3 - at}")]
    peer = await ResumablePeer.at(urls, room, name)
    await peer.join()
    return peer


def ask(*peers: Peer) -> list[tuple[Peer, int]]:
    return [(peer, peer.client.request({"method": "queryRoom"})) for peer in peers for _ in range(20)]


async def answered(asked: list[tuple[Peer, int]]) -> None:
    """Takes each answer; a second one to the same request would stay, and fail `nothing_else`."""
    for peer, id_ in asked:
        assert "rtpCapabilities" in await peer.answer(id_)


def nothing_else(*peers: Peer) -> None:
    """Checks that no peer got a notification, or any frame twice."""
    for peer in peers:
        assert (peer.notifications, peer._answers) == ([], {})
        if isinstance(peer, ResumablePeer):
            peer.check()


# --- RabbitMQ and Redis -------------------------------------------------------------------------------------------


async def repeated(peer: Any, method: str, **data: Any) -> Any:
    """Repeats a request while it is refused with 503: the media node may reach the server later than the others."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await peer.request(method, **data)
            except Refusal as refusal:
                if refusal.code != 503:
                    raise
                await asyncio.sleep(0.2)


async def through_an_outage(cluster: Cluster, server: Server, seconds: float) -> None:
    """The server is killed, stays away for so long, and is started again; clients are connected all the time."""
    alice, bob = await resuming(cluster, "alice", at=1), await resuming(cluster, "bob", at=2)
    carol = await Peer.connect(cluster.roles["gateway1"].url, "salon", "carol")
    await carol.join()
    peers = (alice, bob, carol)
    send, _ = await alice.transports()
    _, recv = await bob.transports()
    await carol.transports()
    producer = await alice.produce(send)
    for peer in (bob, carol):
        await peer.notified("newConsumer", peerName="alice")
    for peer in peers:
        await peer.request("queryRoom")  # whatever is to be told has been told
        peer.notifications.clear()

    asked = ask(alice, bob)
    open_ids = [id_ for _, id_ in ask(carol)]  # carol's session cannot be resumed: what has not left may be refused
    for n in range(20):
        alice.say(n)
        bob.say(n)
    server.kill()
    asked += ask(alice, bob)
    for n in range(20, 40):
        alice.say(n)
        bob.say(n)
    paused = alice.client.request(
        {"method": "pauseProducer", "id": producer, "notification": True}, "mediasoup-notification"
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with ClientSession(timeout=ClientTimeout(PATIENCE)) as http:
        url = f"{cluster.roles['gateway2'].api_url}/v1/rooms/salon/messages"
        key = {"Authorization": f"Bearer {KEY}"}
        async with http.post(url, json={"data": REFUSED}, headers=key) as refused:
            assert (refused.status, (await refused.json())["code"]) == (503, 503)
    print(f"a call of the server API was refused after {loop.time() - began:.1f} s")
    open_ids += await refused_for_now(carol)
    print(f"requests of who cannot resume are refused {loop.time() - began:.1f} s after the server has gone")
    assert not ready(cluster.roles["gateway1"].url)
    await asyncio.sleep(max(0.0, seconds - (loop.time() - began)))
    assert not carol.client.closed.done()
    assert alice.protoo.connected
    assert bob.protoo.connected

    await asyncio.to_thread(server.restart)
    began = loop.time()
    await answered(asked)
    await answered_or_refused(carol, open_ids)
    assert await alice.answer(paused) == {}
    print(f"all was answered {loop.time() - began:.1f} s after the server was back")
    consumer = next(iter(bob.consumers))
    assert (await repeated(bob, "enableConsumer", id=consumer, transportId=recv))["paused"]
    for peer in (alice, bob):  # what was refused may be done all the same
        while [n for n in peer.messages if n != REFUSED] != list(range(40)):
            await peer.take()
    nothing_else(*peers)
    assert [peer.protoo.counts.connections for peer in (alice, bob)] == [1, 1]

    await until(lambda: ready(cluster.roles["gateway1"].url))
    dave = await Peer.connect(cluster.roles["gateway1"].url, "salon", "dave")
    assert sorted(peer["name"] for peer in await dave.join()) == ["alice", "bob", "carol"]
    await dave.produce((await dave.transports())[0])
    for peer in peers:
        await peer.notified("newConsumer", peerName="dave")


async def refused_for_now(peer: Peer) -> list[int]:
    """Asks until a request is refused because servers are unavailable; returns the ids of the others."""
    ids: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            ids.append(peer.client.request({"method": "queryRoom"}))
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await peer.take()
            for id_ in [id_ for id_ in ids if id_ in peer._answers]:
                ids.remove(id_)
                with pytest.raises(Refusal, match="503"):
                    await peer.answer(id_)
                return ids


async def answered_or_refused(peer: Peer, ids: list[int]) -> None:
    for id_ in ids:
        try:
            assert "rtpCapabilities" in await peer.answer(id_)
        except Refusal as refusal:
            assert refusal.code == 503  # noqa: PT017 - either may be


def outage_cluster(redis_url: str, amqp_url: str, logs: Path) -> Cluster:
    return Cluster(redis_url, amqp_url, logs, 8, gateway_options=UNLIMITED, api_key=KEY)


async def test_calls_survive_twenty_seconds_without_rabbitmq(
    redis_url: str, killable_rabbitmq: Server, tmp_path: Path
) -> None:
    async with outage_cluster(redis_url, killable_rabbitmq.url, tmp_path).running_async() as cluster:
        await through_an_outage(cluster, killable_rabbitmq, seconds=20)


async def test_calls_survive_twenty_seconds_without_redis(
    killable_redis: Server, amqp_url: str, tmp_path: Path
) -> None:
    async with outage_cluster(killable_redis.url, amqp_url, tmp_path).running_async() as cluster:
        await through_an_outage(cluster, killable_redis, seconds=20)


async def test_calls_survive_servers_that_some_processes_cannot_reach(
    killable_redis: Server, killable_rabbitmq: Server, tmp_path: Path
) -> None:
    """Each process has its own way to Redis and to RabbitMQ; one way is cut at a time."""
    cluster = FaultCluster(killable_redis, killable_rabbitmq, tmp_path, Shape(workers=2, nodes=1, grace=60))
    partition = partition_of("salon", cluster.shape.partitions)

    def serving(worker: Process) -> bool:
        return partition in (cluster.registered(worker) or {}).get("active", ())

    def shared() -> bool:
        return sorted(len((cluster.registered(worker) or {}).get("active", ())) for worker in cluster.workers) == [
            4,
            4,
        ]

    try:
        await cluster.start()
        near, far = cluster.gateways
        alice = await ResumablePeer.at([near.url, far.url], "salon", "alice")
        bob = await ResumablePeer.at([far.url, near.url], "salon", "bob")
        for peer in (alice, bob):
            await peer.join()
        await alice.notified("newPeer", name="bob")

        for link in ("redis", "rabbitmq"):  # its worker: another serves the room
            await until(shared)
            (cut,) = [worker for worker in cluster.workers if serving(worker)]
            (other,) = [worker for worker in cluster.workers if worker is not cut]
            cut.cut(link)
            await answered(ask(alice, bob))
            await until(partial(serving, other))
            await cut.heal(link)

        near.cut("rabbitmq")  # alice's gateway: only alice waits
        waiting = ask(alice)
        alice.say("late")
        await answered(ask(bob))
        assert alice.protoo.connected
        assert not any(id_ in alice._answers for _, id_ in waiting)
        await near.heal("rabbitmq")
        await answered(waiting)
        await bob.hears(1)
        assert alice.protoo.counts.connections == 1

        near.cut("redis")  # the gateway counts as dead, though it serves: alice resumes at the other
        while not alice.protoo.counts.resumed:
            await answered(ask(alice, bob))
        await near.heal("redis")
        await answered(ask(alice, bob))

        cluster.nodes[0].cut("rabbitmq")  # the media node: 503, and nothing else waits
        making = alice.client.request({"method": "createTransport", "id": 1, "direction": "recv", "options": {}})
        await answered(ask(bob))
        with pytest.raises(Refusal) as refusal:
            await alice.answer(making)
        assert refusal.value.code == 503
        await cluster.nodes[0].heal("rabbitmq")
        await alice.produce(await until(alice.offered_transport, "the media node is used again"))
        await bob.notified("newConsumer", peerName="alice")
        nothing_else(alice, bob)
        for peer in (alice, bob):
            await peer.close()
        assert not any((await cluster.stop()).values())
    finally:
        print(cluster.said())
        await cluster.abort()


# --- a room worker hangs ------------------------------------------------------------------------------------------


@contextmanager
def frozen(role: Role) -> Iterator[None]:
    """Suspends a process: its connections stay open and nothing answers; in the end it continues."""
    os.kill(role.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(role.process.pid, signal.SIGCONT)


def told(cluster: Cluster, registry: str, name: str) -> dict[str, Any]:
    """Returns the registry's entry of the process."""
    for member, info in cluster.redis.hgetall(f"plenary:{registry}").items():
        if member.decode().startswith(f"{name}-"):
            known: dict[str, Any] = json.loads(info)
            return known
    return {}


async def test_hung_room_worker_is_replaced_and_changes_nothing_when_resumed(
    redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    async with Cluster(redis_url, amqp_url, tmp_path, 8, gateway_options=UNLIMITED).running_async() as cluster:
        alice, bob = await resuming(cluster, "alice", at=1), await resuming(cluster, "bob", at=2)
        send, _ = await alice.transports()
        await bob.transports()
        producers = [await alice.produce(send) for _ in range(3)]
        for _ in producers:
            await bob.notified("newConsumer")
        for peer in (alice, bob):
            await peer.request("queryRoom")  # whatever is to be told has been told
            peer.notifications.clear()
        await until(lambda: told(cluster, "nodes", "node1").get("transports") == 4)
        partition = partition_of("salon", cluster.partitions)
        await until(lambda: cluster.balanced)
        zombie = cluster.roles[cluster.active(partition)]
        other = next(role for name, role in cluster.roles.items() if name.startswith("worker") and role is not zombie)

        # what it is doing, and what it will find in its socket when it wakes: inputs, messages, media
        with frozen(zombie):
            asked = ask(alice, bob)
            extra = range(1, 6)
            making = [
                alice.client.request({"method": "createTransport", "id": id_, "direction": "recv", "options": {}})
                for id_ in extra
            ]
            for n in range(50):
                alice.say(n)
                bob.say(n)
            asked += ask(alice, bob)
            await answered(asked)
            for id_ in making:
                assert "iceParameters" in await alice.answer(id_)
            await until(lambda: partition in cluster.shares()[other.name])
            for id_ in extra:
                await alice.confirmed("closeTransport", id=id_)
            await alice.confirmed("closeProducer", id=producers[0])
            await alice.confirmed("pauseProducer", id=producers[1])
            await bob.notified("consumerClosed")
            await until(lambda: told(cluster, "nodes", "node1").get("transports") == 4)
            version = cluster.redis.hget("room:{salon}", "v")

            beat = told(cluster, "workers", zombie.name).get("beat")
        await until(lambda: told(cluster, "workers", zombie.name).get("beat") not in (None, beat))
        await until(lambda: partition in told(cluster, "workers", zombie.name)["subscribed"])
        print("the zombie's commits were refused:", zombie.said().count("room.stale"))
        assert cluster.redis.hget("room:{salon}", "v") == version
        await alice.hears(50)
        await bob.hears(50)
        assert alice.messages == bob.messages == list(range(50))

        # it may serve again, and knows what was done in its absence
        other.kill()
        for peer in (alice, bob):
            assert "rtpCapabilities" in await peer.request("queryRoom")
        await until(lambda: cluster.active(partition) == zombie.name)
        carol = await Peer.connect(cluster.roles["gateway1"].url, "salon", "carol")
        (consumers,) = [peer["consumers"] for peer in await carol.join() if peer["name"] == "alice"]
        assert sorted(consumer["paused"] for consumer in consumers) == [False, True]
        for peer in (alice, bob):
            await peer.notified("newPeer", name="carol")
        nothing_else(alice, bob)
        await carol.transports()  # the node has done what it was told before
        await until(lambda: told(cluster, "nodes", "node1").get("transports") == 6)
        beat = told(cluster, "nodes", "node1")["beat"]
        await until(lambda: told(cluster, "nodes", "node1")["beat"] > beat + 1)
        assert told(cluster, "nodes", "node1")["transports"] == 6


# --- media nodes --------------------------------------------------------------------------------------------------


def node_of(cluster: Cluster, room: str) -> str:
    placement = json.loads(cluster.redis.hget(f"room:{{{room}}}", "meta"))["placement"]
    return str(placement["node"]).rpartition("-")[0]


async def test_the_rooms_of_a_killed_media_node_move_to_another(
    redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    async with Cluster(redis_url, amqp_url, tmp_path, 8).running_async(nodes=2) as cluster:
        alice, bob = await resuming(cluster, "alice", at=1), await resuming(cluster, "bob", at=2)
        await alice.notified("newPeer", name="bob")
        transports = {peer: await peer.transports() for peer in (alice, bob)}
        await alice.produce(transports[alice][0])
        first = node_of(cluster, "salon")
        cluster.roles[first].kill()
        for peer in (alice, bob):
            for id_ in transports[peer]:
                await peer.notified("transportClosed", id=id_)
        await bob.notified("newConsumer")
        await bob.notified("consumerClosed")
        await alice.produce((await alice.transports())[0])
        _, recv = await bob.transports()
        consumer = (await bob.notified("newConsumer"))["id"]
        assert not (await bob.request("enableConsumer", id=consumer, transportId=recv))["paused"]
        assert node_of(cluster, "salon") not in ("", first)
        nothing_else(alice, bob)


async def test_a_silent_media_node_delays_only_its_own_rooms(redis_url: str, amqp_url: str, tmp_path: Path) -> None:
    """All rooms are in one partition. (What waits is less than its worker takes at a time: `PLENARY_PREFETCH`.)"""
    async with Cluster(redis_url, amqp_url, tmp_path, 1, gateway_options=UNLIMITED).running_async(nodes=2) as cluster:
        rooms: dict[str, Peer] = {}
        for n in range(50):
            peer = await Peer.connect(cluster.roles["gateway1"].url, f"room{n}", "alice")
            await peer.join()
            await peer.transports()
            rooms.setdefault(node_of(cluster, f"room{n}"), peer)
            if len(rooms) == 2:
                break
        stalled, lively = rooms["node1"], rooms["node2"]
        await until(lambda: cluster.balanced)
        with frozen(cluster.roles["node1"]):
            making = []
            for id_ in range(1, 31):
                data = {"method": "createTransport", "id": id_, "direction": "recv", "options": {}}
                making.append(stalled.client.request(data))
                await asyncio.sleep(0.005)  # each is a delivery of its own
            for _ in range(3):
                for id_ in await lively.transports():
                    await lively.confirmed("closeTransport", id=id_)
            assert not stalled.client.frames
            outcomes = []
            for id_ in making:
                try:
                    await stalled.answer(id_)
                    outcomes.append(200)
                except Refusal as refusal:
                    outcomes.append(refusal.code)
            print({code: outcomes.count(code) for code in set(outcomes)})
            assert set(outcomes) == {503}
