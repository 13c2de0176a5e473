"""A call of two browsers continues when gateway, room worker, media engine or media node dies."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from devtools.cluster import Cluster, Role, address
from shared.protocol.bus import partition_of
from tests.e2e.app import App
from tests.e2e.conftest import Browsers
from tests.e2e.page import CallPage
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.sample(1)]

LONG_GRACE = ["--grace-seconds", "120"]
"""Sessions have two minutes to come back, however slow the machine is."""


@pytest.fixture
async def cluster(
    needs: None, harness: Path, redis_url: str, amqp_url: str, tmp_path: Path
) -> AsyncIterator[Cluster]:
    options = [*LONG_GRACE, "--page", str(harness)]
    cluster = Cluster(redis_url, amqp_url, tmp_path, gateway_options=options, worker_options=LONG_GRACE)
    async with cluster.running_async("mediasoup"):
        yield cluster


@pytest.fixture
async def apps(launch: Callable[[], Awaitable[Any]]) -> AsyncIterator[Callable[[str], Awaitable[App]]]:
    """Opens a browser on the harness."""
    opened: list[App] = []

    async def open_app(url: str) -> App:
        app = App(await (await launch()).new_page(), url)
        await app.open()
        opened.append(app)
        return app

    yield open_app
    for app in opened:
        print("--- console", *app.console, sep="\n")


async def more_samples(*pages: App) -> None:
    """Waits until each has two more of what it received."""
    for page in pages:
        seen = await page.run("app.samples.length")
        await page.until("app.samples.length >= it + 2", seen)


async def test_call_continues_through_deaths_of_its_gateway_and_room_worker(
    cluster: Cluster, proxy: Proxy, apps: Callable[[str], Awaitable[App]]
) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    alice, bob = pages = (await apps(url), await apps(url))
    for page, name in zip(pages, ("alice", "bob"), strict=True):
        await page.join("demo", name, resumable=True)
        for kind in ("audio", "video"):
            await page.produce(kind)
    for page, other in ((alice, "bob"), (bob, "alice")):
        for kind in ("audio", "video"):
            await page.receive(other, kind)
            await page.more_of(other, kind)
    heard = await alice.run("app.log")
    assert {"open", "notification", "newconsumer", "connectionstatechange"} <= {entry["event"] for entry in heard}
    for page, other in ((alice, "bob"), (bob, "alice")):
        await page.run("(app.log.length = 0, void app.watch(it))", other)
    await more_samples(*pages)

    proxy.refuse()
    cluster.roles["gateway1"].kill()
    for page in pages:
        await page.until("app.line.resuming === 1")
    await more_samples(*pages)  # without any gateway
    proxy.redirect(*address(cluster.roles["gateway2"]))
    await proxy.start()
    for page in pages:
        await page.until("app.line.resumed === 1")
    await more_samples(*pages)

    partition = partition_of("demo", cluster.partitions)
    worker = cluster.active(partition)
    assert worker
    cluster.roles[worker].kill()
    await more_samples(*pages)
    await until(lambda: cluster.active(partition) not in ("", worker))
    await more_samples(*pages)

    for page in pages:
        assert await page.run("app.log") == []
        assert await page.run("app.line") == {"resuming": 1, "resumed": 1}
        samples = await page.run("app.samples")
        print(samples)
        assert all(before[what] < after[what] for before, after in pairwise(samples) for what in before), samples

    # and signaling goes both ways
    await alice.run("app.protoo.notify('message', {data: 'hello'})")
    await bob.until("app.messages.length === 1")
    await alice.run("app.producers.video.pause()")
    assert await bob.event("consumer", "alice/video", "pause") == [["remote", None]]
    await alice.run("app.producers.video.resume()")
    await bob.event("consumer", "alice/video", "resume")
    carol = await apps(url)
    assert sorted(await carol.join("demo", "carol", resumable=True)) == ["alice", "bob"]
    await carol.produce("video")
    for page in pages:
        await page.receive("carol", "video")
        await page.more_of("carol", "video")
    for other in ("alice", "bob"):
        await carol.receive(other, "video")
        await carol.more_of(other, "video")
    for page in (*pages, carol):
        assert "close" not in {entry["event"] for entry in await page.run("app.log")}


# --- media ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_nodes(needs: None, redis_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path)
    try:
        cluster.start("mediasoup", gateways=1, workers=1, nodes=2)
        yield cluster
    finally:
        print(cluster.said())
        cluster.stop()


def node_of(cluster: Cluster, room: str) -> Role:
    """The media node that the room is on."""
    placement = json.loads(cluster.redis.hget(f"room:{{{room}}}", "meta"))["placement"]
    return cluster.roles[placement["node"].rpartition("-")[0]]


async def transports(page: CallPage) -> set[int]:
    ids: list[int] = await page.page.evaluate("() => plenary.call.transports.map(({id}) => id)")
    return set(ids)


async def test_pages_reconnect_media_after_the_death_of_engine_or_node(
    two_nodes: Cluster, browsers: Browsers
) -> None:
    url = two_nodes.roles["gateway1"].url
    alice, bob = pages = (await browsers.open(url, "alice"), await browsers.open(url, "bob"))
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")

    def kill_engine(node: Role) -> None:
        (engine,) = psutil.Process(node.process.pid).children()
        engine.kill()

    for kill in (kill_engine, Role.kill):
        before = [await transports(page) for page in pages]
        kill(node_of(two_nodes, "demo"))
        for page, old in zip(pages, before, strict=True):
            await page.until(
                "(old) => plenary.call.transports.length === 2 && plenary.call.transports.every("
                "({id, connectionState}) => !old.includes(id) && connectionState === 'connected')",
                sorted(old),
            )
        await alice.hears_and_sees("bob")
        await bob.hears_and_sees("alice")
        for page in pages:
            assert await page.page.evaluate("() => [plenary.state, plenary.resumed]") == ["joined", 0]
    assert [role.alive for role in (two_nodes.roles["node1"], two_nodes.roles["node2"])].count(True) == 1
    assert node_of(two_nodes, "demo").alive
