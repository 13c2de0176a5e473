"""The server API on a real cluster: its effect on rooms and on their clients."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, ClientTimeout
from typer.testing import CliRunner

from devtools.cluster import Cluster, Role
from plenary import cli
from shared import errors
from tests.support.peer import Peer, Refusal
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers
KEY = "secret"
WHY = {"why": "moderator"}
VIDEO = {
    "codecs": [{"name": "VP8", "kind": "video", "payloadType": 100, "clockRate": 90000}],
    "encodings": [{"ssrc": 4711}],
    "rtcp": {"cname": "camera", "reducedSize": True, "mux": True},
}


class Api:
    """The server API of one gateway."""

    def __init__(self, url: str, http: ClientSession) -> None:
        self.url = url
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {KEY}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        async with self._http.request(method, f"{self.url}/v1/{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status == 200, answer
        return answer


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path, partitions=8, api_key=KEY)
    async with cluster.running_async():
        yield cluster


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Api]:
    """The API of the gateway that has none of the clients."""
    async with ClientSession(timeout=ClientTimeout(PATIENCE)) as http:
        yield Api(cluster.roles["gateway2"].api_url, http)


@dataclass
class Stage:
    """A room `salon` in which alice sends to bob."""

    alice: Peer
    bob: Peer
    send: int
    recv: int
    producer: int
    consumer: int

    def path(self, who: str, noun: str, id_: int, what: str = "") -> str:
        return f"rooms/salon/peers/{who}/{noun}/{id_}" + (f"/{what}" if what else "")


async def staged(gateway: Role) -> Stage:
    alice, bob = [await Peer.connect(gateway.url, "salon", name) for name in ("alice", "bob")]
    await alice.join(appData={"mood": "fine"})
    await bob.join()
    send, _ = await alice.transports()
    _, recv = await bob.transports()
    producer = await alice.produce(send)
    consumer = (await bob.notified("newConsumer"))["id"]
    await bob.request("enableConsumer", id=consumer, transportId=recv)
    return Stage(alice, bob, send, recv, producer, consumer)


async def said(peer: Peer) -> Any:
    """The next protoo notification `message`."""
    while (frame := await peer.take()).get("method") != "message":
        pass
    return frame["data"]


# --- what clients see -------------------------------------------------------------------------------------------


async def test_media_operations_notify_the_peers_concerned(cluster: Cluster, api: Api) -> None:
    stage = await staged(cluster.roles["gateway1"])
    alice, bob = stage.alice, stage.bob
    producer, consumer = stage.producer, stage.consumer
    of_alice, of_bob = stage.path("alice", "producers", producer), stage.path("bob", "consumers", consumer)

    await api.do("POST", f"{of_alice}/pause", {"appData": WHY})
    assert (await alice.notified("producerPaused", id=producer))["appData"] == WHY
    await bob.notified("consumerPaused", id=consumer, peerName="alice")
    await api.do("POST", f"{of_alice}/resume")
    await alice.notified("producerResumed", id=producer)
    await bob.notified("consumerResumed", id=consumer)

    await api.do("POST", f"{of_bob}/pause", {"appData": WHY})
    assert (await bob.notified("consumerPaused", id=consumer))["appData"] == WHY
    await api.do("POST", f"{of_bob}/resume")
    await bob.notified("consumerResumed", id=consumer)
    await api.do("PUT", f"{of_bob}/profile", {"profile": "low"})
    await bob.notified("consumerPreferredProfileSet", id=consumer, profile="low")
    assert (await api.ask("POST", f"{of_bob}/key-frame"))[0] == 409  # of audio there are none
    await api.do("PUT", stage.path("alice", "transports", stage.send, "max-bitrate"), {"bitrate": 300_000})

    await api.do("DELETE", of_alice, {"appData": WHY})
    assert (await alice.notified("producerClosed", id=producer))["appData"] == WHY
    await bob.notified("consumerClosed", id=consumer)
    await alice.request("createProducer", id=8, kind="video", transportId=stage.send, rtpParameters=VIDEO)
    seen = (await bob.notified("newConsumer", kind="video"))["id"]
    await bob.request("enableConsumer", id=seen, transportId=stage.recv)
    assert await api.do("POST", stage.path("bob", "consumers", seen, "key-frame")) == {}
    await api.do("DELETE", stage.path("bob", "transports", stage.recv))
    await bob.notified("transportClosed", id=stage.recv)


async def test_messages_and_closures_notify_the_peers_concerned(cluster: Cluster, api: Api) -> None:
    stage = await staged(cluster.roles["gateway1"])
    alice, bob = stage.alice, stage.bob

    await api.do("POST", "rooms/salon/messages", {"data": {"to": "all"}})
    assert [await said(alice), await said(bob)] == [{"data": {"to": "all"}}] * 2
    await api.do("POST", "rooms/salon/peers/bob/messages", {"data": "only you"})
    assert await said(bob) == {"data": "only you"}

    await api.do("DELETE", "rooms/salon/peers/bob", {"appData": WHY})
    assert (await bob.notified("closed"))["appData"] == WHY
    assert await bob.client.until_closed() == (errors.LEFT.code, errors.LEFT.reason)
    assert (await alice.notified("peerClosed", name="bob"))["appData"] == WHY

    await api.do("DELETE", "rooms/salon")
    await alice.notified("closed")
    assert await alice.client.until_closed() == (errors.ROOM_CLOSED.code, errors.ROOM_CLOSED.reason)
    assert (await api.ask("GET", "rooms/salon"))[0] == 404


# --- rooms ------------------------------------------------------------------------------------------------------


async def test_rooms_are_created_found_listed_and_closed(cluster: Cluster, api: Api) -> None:
    opus = {"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2}
    asked = {"codecs": [opus], "limits": {"peers": 1}, "appData": {"course": 7}}
    names = ["räum/1 ☺", *(f"room{n}" for n in range(10))]
    for name in names:
        await api.do("PUT", f"rooms/{quote(name, safe='')}", asked)
    view = await api.do("GET", "rooms/room1")
    assert (view["name"], view["peers"], view["codecs"], view["appData"]) == ("room1", [], ["opus"], {"course": 7})
    status, refused = await api.ask("PUT", "rooms/room1", {"limits": {"peers": 2}})
    assert (status, refused["code"]) == (409, 409)

    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await api.do("GET", f"rooms?limit=4&after={quote(after, safe='')}")
        found += [room["name"] for room in page["rooms"]]
        after = page["next"]
    assert sorted(found) == sorted(names)

    alice = await Peer.connect(cluster.roles["gateway1"].url, "room1", "alice")
    await alice.join()
    assert [codec["name"] for codec in alice.capabilities["codecs"]] == ["opus"]
    bob = await Peer.connect(cluster.roles["gateway1"].url, "room1", "bob")
    with pytest.raises(Refusal) as full:
        await bob.join()
    assert full.value.code == 429
    for name in names:
        await api.do("DELETE", f"rooms/{quote(name, safe='')}")

    async def none_is_listed() -> bool:
        return not (await api.do("GET", "rooms"))["rooms"]

    await until(none_is_listed, "closed rooms leave the list once everything they sent is confirmed")


async def test_rooms_and_peers_show_their_objects(cluster: Cluster, api: Api) -> None:
    stage = await staged(cluster.roles["gateway1"])
    room = await api.do("GET", "rooms/salon")
    assert [(peer["name"], peer["transports"], peer["producers"]) for peer in room["peers"]] == [
        ("alice", 2, 1),
        ("bob", 2, 0),
    ]
    alice = await api.do("GET", "rooms/salon/peers/alice")
    assert alice["appData"] == {"mood": "fine"}
    assert alice["gateway"].startswith("gateway1-")
    assert [producer["id"] for producer in alice["producers"]] == [stage.producer]
    bob = await api.do("GET", "rooms/salon/peers/bob")
    assert [(c["id"], c["sourcePeer"], c["transportId"]) for c in bob["consumers"]] == [
        (stage.consumer, "alice", stage.recv)
    ]


async def test_the_status_lists_the_live_processes(api: Api) -> None:
    async def all_listed() -> Any:
        status = await api.do("GET", "status")
        counts = {role: len(found) for role, found in status.items()}
        return counts == {"gateways": 2, "workers": 2, "nodes": 1} and status

    status = await until(all_listed, "the gateway has looked at the registry since all processes came")
    assert all(process["alive"] for found in status.values() for process in found)


@pytest.mark.parametrize("killed", [False, True], ids=["", "and-its-worker-is-killed"])
async def test_a_call_with_an_idempotency_key_is_done_once(cluster: Cluster, api: Api, killed: bool) -> None:
    stage = await staged(cluster.roles["gateway1"])
    path = f"{stage.path('alice', 'producers', stage.producer)}"
    key = {"Idempotency_Key": "order-7"}
    assert await api.ask("DELETE", path, **key) == (200, {})
    if killed:
        cluster.roles["worker1"].kill()
    assert await api.ask("DELETE", path, **key) == (200, {})
    assert (await api.ask("DELETE", path))[0] == 404
    await stage.alice.notified("producerClosed", id=stage.producer)
    await stage.alice.request("queryRoom")  # whatever else was told has come before the answer
    assert [told["method"] for told in stage.alice.notifications].count("producerClosed") == 0


async def test_missing_objects_and_wrong_keys_are_answered_with_errors(cluster: Cluster, api: Api) -> None:
    assert await api.ask("GET", "rooms/nowhere") == (404, {"code": 404, "reason": "room: no room 'nowhere'"})
    assert (await api.ask("GET", "rooms/nowhere", Authorization="Bearer wrong"))[0] == 401
    alice = await Peer.connect(cluster.roles["gateway1"].url, "salon", "alice")
    await alice.join()
    assert await api.ask("GET", "rooms/salon/peers/bob") == (404, {"code": 404, "reason": "peer: no peer 'bob'"})
    status, refused = await api.ask("POST", "rooms/salon/peers/alice/producers/9/pause")
    assert (status, refused["reason"].partition(":")[0]) == (404, "id")
    status, refused = await api.ask("POST", "rooms/salon/messages", {"data": "x" * 100_000})
    assert (status, refused["reason"].partition(":")[0]) == (413, "data")


async def test_the_command_line_calls_the_server_api(cluster: Cluster, api: Api) -> None:
    stage = await staged(cluster.roles["gateway1"])

    def plenary(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, arguments, env={"PLENARY_API_URL": api.url, "PLENARY_API_KEY": KEY})
        assert result.exit_code == 0, result.output
        return result.output

    assert json.loads(plenary("rooms", "list", "--json")) == ["salon"]
    assert "alice" in plenary("rooms", "show", "salon")
    assert "Producers (1)" in plenary("peers", "show", "salon", "alice")
    plenary("peers", "message", "salon", "alice", "hello")
    assert await said(stage.alice) == {"data": "hello"}
    plenary("api", "POST", f"/v1/{stage.path('alice', 'producers', stage.producer, 'pause')}")
    await stage.alice.notified("producerPaused")
    plenary("rooms", "close", "salon")
    assert (await stage.bob.client.until_closed())[0] == errors.ROOM_CLOSED.code
