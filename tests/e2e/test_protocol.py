"""Every part of the protocol with real media and the unmodified clients, without the demo page around them."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from devtools.cluster import Cluster
from devtools.probes import empty_rabbitmq, empty_redis
from devtools.servers import Server
from tests.e2e.app import App
from tests.e2e.conftest import Launch
from tests.support.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.sample(7)]

Open = Callable[[int], Awaitable[App]]


@pytest.fixture(scope="module")
def harness_cluster(
    needs: None,
    harness: Path,
    redis_server: Server,
    rabbitmq_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """Two gateways that serve the harness, the first with the server API; two room workers, one media node.

    All tests here use it one after another.
    """
    empty_redis(redis_server.url)
    empty_rabbitmq(rabbitmq_server.url)
    options = ["--page", str(harness)]
    logs = tmp_path_factory.mktemp("protocol")
    cluster = Cluster(redis_server.url, rabbitmq_server.url, logs, gateway_options=options, api_key="secret")
    with cluster.running("mediasoup"):
        yield cluster


@pytest.fixture
async def apps(harness_cluster: Cluster, launch: Launch) -> AsyncIterator[Open]:
    """Opens a page on the harness, connected to gateway 1 or 2. The room has ended when the test has."""
    opened: list[tuple[App, Page]] = []

    async def open_app(gateway: int) -> App:
        page = await (await launch()).new_page()
        app = App(page, harness_cluster.roles[f"gateway{gateway}"].url)
        await app.open()
        opened.append((app, page))
        return app

    yield open_app
    for app, page in opened:
        print("--- console", *app.console, sep="\n")
        await page.close()
    await until(lambda: not harness_cluster.redis.exists("room:{room}"), in_thread=True)


async def call(cluster: Cluster, method: str, path: str, body: Any = None) -> Any:
    """The server API."""
    request = urllib.request.Request(
        f"{cluster.roles['gateway1'].api_url}/v1{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer secret", "Content-Type": "application/json"},
    )

    def ask() -> Any:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    return await asyncio.to_thread(ask)


async def pair(apps: Open, *kinds: str, **options: Any) -> tuple[App, App]:
    """Alice sends these kinds to Bob, who receives them, each on a gateway of their own."""
    alice, bob = await apps(1), await apps(2)
    await alice.join("room", "alice")
    await bob.join("room", "bob")
    for kind in kinds:
        await alice.produce(kind, **(options if kind == "video" else {}))
        await bob.receive("alice", kind)
        await bob.more_of("alice", kind)
    return alice, bob


async def test_video_may_be_sent_before_audio(apps: Open) -> None:
    alice, bob = await pair(apps, "video")
    await alice.produce("audio")
    await bob.receive("alice", "audio")
    await bob.more_of("alice", "audio")
    await bob.more_of("alice", "video")


async def test_audio_may_be_sent_before_video(apps: Open) -> None:
    alice, bob = await pair(apps, "audio")
    await alice.produce("video")
    await bob.receive("alice", "video")
    await bob.more_of("alice", "video")
    await bob.more_of("alice", "audio")


async def test_room_created_with_av1_carries_it(apps: Open, harness_cluster: Cluster) -> None:
    opus = {"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2}
    av1 = {"kind": "video", "name": "AV1", "clockRate": 90000}
    await call(harness_cluster, "PUT", "/rooms/room", {"codecs": [opus, av1]})
    alice, bob = await pair(apps, "video")
    await call(harness_cluster, "PUT", "/rooms/room", {"codecs": [opus, av1], "idleSeconds": 0})
    await bob.more_of("alice", "video")
    assert "AV1" in await alice.run("app.producers.video.rtpParameters.codecs.map(codec => codec.name)")


async def test_ice_restart_keeps_media_flowing(apps: Open) -> None:
    alice, bob = await pair(apps, "audio", "video")
    before = await bob.run("app.remoteFragment('recv')")
    await bob.run("app.room.restartIce()")
    await alice.run("app.room.restartIce()")
    await bob.until("app.remoteFragment('recv') !== it", before)
    for kind in ("audio", "video"):
        await bob.more_of("alice", kind)


async def test_replaced_track_continues_in_the_same_producer(apps: Open) -> None:
    alice, bob = await pair(apps, "video")
    await alice.run("await app.producers.video.replaceTrack(await app.track('video'))")
    await bob.more_of("alice", "video")
    assert await bob.run("app.seen('consumer', 'alice/video', 'close').length") == 0


async def test_profiles_of_simulcast_change_the_resolution(apps: Open) -> None:
    _, bob = await pair(apps, "video", simulcast=True)
    for profile, width in (("low", 320), ("medium", 640), ("low", 320)):
        await bob.run("app.consumer('alice', 'video').setPreferredProfile(it)", profile)
        await bob.until("(await app.received('alice', 'video')).width === it", width)
        await bob.until("app.consumer('alice', 'video').effectiveProfile === it", profile)


async def test_stats_arrive_at_once_and_repeatedly(apps: Open) -> None:
    alice, bob = await pair(apps, "audio")
    await alice.run("app.send.enableStats(1000)")
    await alice.run("app.producers.audio.enableStats(1000)")
    await bob.run("app.consumer('alice', 'audio').enableStats(1000)")
    [[transport], *_], [[producer], *_] = (
        await alice.event("transport", "send", "stats"),
        await alice.event("producer", "audio", "stats"),
    )
    [[consumer], *_] = await bob.event("consumer", "alice/audio", "stats")
    assert transport[0]["type"] == "transport"
    assert transport[0]["id"] == await alice.run("app.send.id")
    assert any(report["type"] == "inbound-rtp" for report in producer)
    assert {report["type"] for report in consumer} == {"inbound-rtp", "outbound-rtp"}
    await bob.event("consumer", "alice/audio", "stats", count=3)
    await bob.run("app.consumer('alice', 'audio').disableStats()")


async def test_server_api_pauses_and_closes_producers_and_consumers(apps: Open, harness_cluster: Cluster) -> None:
    alice, bob = await pair(apps, "audio", "video")
    producer = await alice.run("app.producers.video.id")
    consumer = await bob.run("app.consumer('alice', 'video').id")
    at = "/rooms/room/peers"

    await call(harness_cluster, "POST", f"{at}/alice/producers/{producer}/pause", {"appData": "shh"})
    assert await alice.event("producer", "video", "pause") == [["remote", "shh"]]
    await bob.event("consumer", "alice/video", "pause")
    await call(harness_cluster, "POST", f"{at}/alice/producers/{producer}/resume")
    await alice.event("producer", "video", "resume")
    await bob.event("consumer", "alice/video", "resume")
    await bob.more_of("alice", "video")

    await call(harness_cluster, "POST", f"{at}/bob/consumers/{consumer}/pause")
    await bob.event("consumer", "alice/video", "pause", count=2)
    await call(harness_cluster, "POST", f"{at}/bob/consumers/{consumer}/resume")
    await bob.more_of("alice", "video")

    await call(harness_cluster, "DELETE", f"{at}/alice/producers/{producer}", {"appData": "no"})
    assert await alice.event("producer", "video", "close") == [["remote", "no"]]
    await bob.event("consumer", "alice/video", "close")
    await bob.more_of("alice", "audio")

    await call(harness_cluster, "DELETE", f"{at}/alice", {"appData": "out"})
    assert await alice.event("room", "room", "close") == [["remote", "out"]]
    await alice.event("socket", "alice", "close")
    await bob.event("peer", "alice", "close")


async def test_closed_producer_can_be_followed_by_another(apps: Open) -> None:
    alice, bob = await pair(apps, "video")
    await alice.run("app.producers.video.close()")
    await bob.event("consumer", "alice/video", "close")
    await alice.produce("video")
    await bob.receive("alice", "video")
    await bob.more_of("alice", "video")


async def test_late_joiner_receives_existing_producers_and_their_pauses(apps: Open) -> None:
    alice, bob = await pair(apps, "audio", "video")
    await alice.run("app.producers.audio.pause()")
    await bob.event("consumer", "alice/audio", "pause")
    carol = await apps(1)
    assert sorted(await carol.join("room", "carol")) == ["alice", "bob"]
    await carol.receive("alice", "video")
    await carol.more_of("alice", "video")
    await carol.receive("alice", "audio")
    assert await carol.run("app.consumer('alice', 'audio').paused")
    await alice.run("app.producers.audio.resume()")
    await carol.more_of("alice", "audio")


async def test_peer_that_left_may_join_again(apps: Open) -> None:
    alice, bob = await pair(apps, "audio")
    await alice.run("app.room.leave()")
    await bob.event("peer", "alice", "close")
    await alice.run("app.close()")
    await alice.open()
    assert await alice.join("room", "alice") == ["bob"]
    await alice.produce("audio")
    await bob.receive("alice", "audio")
    await bob.more_of("alice", "audio")


async def test_peers_exchange_messages_in_order(apps: Open) -> None:
    alice, bob = await pair(apps, "audio")
    for n in range(20):
        await alice.run("app.protoo.notify('message', {data: {n: it}})", n)
    await bob.until("app.messages.length === 20")
    assert await bob.run("app.messages.map(({data}) => [data.from, data.data.n])") == [
        ["alice", n] for n in range(20)
    ]
