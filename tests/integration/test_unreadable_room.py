"""Clients of a room whose stored state cannot be read for a while: whole gateway and room worker, in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession

from gateway.server import Gateway
from gateway.websocket import hub
from roomworker.partitions import clock, coordinator
from roomworker.runtime import room_actor
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import Commit
from roomworker.worker import RoomWorker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.protocol.bus import partition_of
from shared.settings import GatewaySettings, WorkerSettings
from tests.support.peer import Peer
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import until

PARTITIONS = 4
KEY = "secret"
UNAPPLIED_LIMIT = 16


@dataclass
class Scene:
    """One gateway and one worker."""

    gateway: Gateway
    worker: RoomWorker
    store: MemoryStore

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def unreadable(self) -> bool:
        (actor,) = self.worker.partitions[partition_of("salon", PARTITIONS)].actors.values()
        return bool(actor.unreadable)

    def replace(self, meta: bytes) -> bytes:
        """Stores another record of the room, as a worker of another version might; returns the one before."""
        stored = self.store.read("salon")
        incarnation, _, n = stored.version.partition(":")
        commit = Commit(
            "salon",
            partition_of("salon", PARTITIONS),
            stored.version,
            f"{incarnation}:{int(n) + 1}",
            f"token of {meta!r}",
            {"meta": meta},
            None,
            {},
        )
        assert self.store.apply(commit) == "OK"
        return stored.fields["meta"]

    async def inspect(self) -> int:
        """Asks the server API for the room; returns the status."""
        assert self.gateway.api is not None
        url = f"http://127.0.0.1:{self.gateway.api.port}/v1/rooms/salon"
        async with ClientSession() as http, http.get(url, headers={"Authorization": f"Bearer {KEY}"}) as answer:
            return answer.status


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(room_actor, "RETRY_UNREADABLE_AFTER", 0.1)
    monkeypatch.setattr(clock, "TICK_EVERY", 0.05)
    monkeypatch.setattr(coordinator, "BEAT_EVERY", 0.05)
    monkeypatch.setattr(hub, "SWEEP_EVERY", 0.02)
    queues, memory = MemoryHub(PARTITIONS), MemoryCluster()
    store = MemoryStore(memory)
    brokers = MemoryBroker(queues), MemoryBroker(queues)
    for broker in brokers:
        await broker.connect()
    worker = RoomWorker(WorkerSettings(partitions=PARTITIONS), brokers[0], memory, store)
    await worker.start()
    options = GatewaySettings(
        host="127.0.0.1",
        port=0,
        page="none",
        partitions=PARTITIONS,
        api_key=KEY,
        api_port=0,
        unapplied_limit=UNAPPLIED_LIMIT,
    )
    gateway = Gateway(options, brokers[1], memory)
    await gateway.start()
    yield Scene(gateway, worker, store)
    await gateway.close()
    await worker.close()
    for broker in brokers:
        await broker.close()


async def test_messages_to_an_unreadable_room_take_effect_once_it_is_readable(scene: Scene) -> None:
    alice, bob = [await ResumablePeer.at([scene.url], "salon", name) for name in ("alice", "bob")]
    for peer in (alice, bob):
        await peer.join()
    meta = scene.replace(b"{broken")

    request = alice.client.request({"method": "queryRoom"})
    for n in range(3):
        alice.say(n)
    await until(lambda: scene.unreadable)
    carol = await Peer.connect(scene.url, "salon", "carol")
    joining = asyncio.create_task(carol.join())
    leaver = await Peer.connect(scene.url, "salon", "leaver")
    await leaver.close()
    bob.protoo.drop_connection()
    bob.say("after the cut")
    assert await scene.inspect() == 503
    assert not joining.done()

    scene.replace(meta)
    assert (await alice.answer(request))["rtpCapabilities"]
    assert {peer["name"] for peer in await joining} == {"alice", "bob"}
    await bob.hears(3)
    await alice.hears(1)

    assert (bob.messages, alice.messages) == ([0, 1, 2], ["after the cut"])
    for peer in (alice, bob):
        assert (await peer.notified("newPeer", name="carol"))["name"] == "carol"
        peer.check()
    assert await scene.inspect() == 200
    assert not scene.unreadable
    for joined in (alice, bob, carol):
        await joined.close()
    await until(lambda: scene.store.read("salon").version == "")


async def test_gateway_keeps_a_bounded_number_of_messages_to_an_unreadable_room(scene: Scene) -> None:
    alice = await Peer.connect(scene.url, "salon", "alice")
    await alice.join()
    meta = scene.replace(b"{broken")
    request = {"method": "queryRoom", "padding": "x" * 16_384}
    waiting = [alice.client.request(request) for _ in range(6 * UNAPPLIED_LIMIT)]
    (connection,) = scene.gateway.hub.connections.values()
    await until(lambda: scene.unreadable)
    await until(lambda: connection.paused, "the gateway reads the socket no longer")
    # one read of the socket may bring a few frames more
    assert connection.session.unapplied <= 2 * UNAPPLIED_LIMIT

    scene.replace(meta)
    for id_ in waiting:
        assert (await alice.answer(id_))["rtpCapabilities"]
    await alice.close()
