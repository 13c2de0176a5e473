"""Processes whose wall clocks differ, and are set while they run: nothing that a client sees depends on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout

from devtools.cluster import Cluster, address
from shared.errors import REPLACED
from tests.support.peer import Peer
from tests.support.proxy import Proxy
from tests.support.resumable_peer import ResumablePeer
from tests.support.shifted_clocks import ShiftedClocks
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.servers
HOUR = 3600.0
LEADER = "worker1"
"""The worker with the lowest id publishes the ticks."""
GRACE = 6.0
API_KEY = "a key for tests"


@pytest.fixture
def clocks(tmp_path: Path) -> ShiftedClocks:
    return ShiftedClocks(tmp_path)


@asynccontextmanager
async def cluster_of(
    clocks: ShiftedClocks, redis_url: str, amqp_url: str, logs: Path, *, grace: float = GRACE
) -> AsyncIterator[Cluster]:
    options = ["--grace-seconds", str(grace)]
    cluster = Cluster(
        redis_url, amqp_url, logs, 4, gateway_options=options, worker_options=options, api_key=API_KEY, start=clocks
    )
    async with cluster.running_async():
        yield cluster


async def ticks_pass(cluster: Cluster, count: int) -> None:
    """Waits until the leader has put the cluster's time into Redis so many times."""
    seen: set[Any] = set()

    def passed() -> bool:
        seen.add(cluster.redis.zscore("plenary:time", "ms"))
        return len(seen) > count

    await until(passed, in_thread=True)


@pytest.mark.parametrize("seconds", [90.0, -90.0])
async def test_newer_connection_stays_at_a_gateway_with_another_clock(
    clocks: ShiftedClocks, redis_url: str, amqp_url: str, tmp_path: Path, seconds: float
) -> None:
    clocks.set("gateway1", seconds)
    async with cluster_of(clocks, redis_url, amqp_url, tmp_path) as cluster:
        for name, other in (("gateway1", "gateway2"), ("gateway2", "gateway1")):
            room = f"room at {name}"
            first = await Peer.connect(cluster.roles[name].url, room, "alice")
            await first.join()
            second = await Peer.connect(cluster.roles[other].url, room, "alice")
            await second.join()
            assert await first.client.until_closed() == (REPLACED.code, REPLACED.reason)
            assert (await second.request("queryRoom"))["rtpCapabilities"]


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_step_of_the_leaders_clock_ends_no_session_and_no_room(
    clocks: ShiftedClocks, redis_url: str, amqp_url: str, tmp_path: Path, step: float
) -> None:
    """A session is away and a created room idle while the clock is set; both go on."""
    async with cluster_of(clocks, redis_url, amqp_url, tmp_path, grace=60) as cluster:
        proxy = Proxy(*address(cluster.roles["gateway1"]))
        await proxy.start()
        alice = await ResumablePeer.at([f"http://127.0.0.1:{proxy.port}"], "salon", "alice")
        await alice.join()
        assert await api(cluster, "PUT", "/v1/rooms/idle", {"idleSeconds": 600}) == 200
        await ticks_pass(cluster, 5)
        proxy.refuse()
        proxy.cut()
        await until(lambda: not alice.protoo.connected)

        clocks.set(LEADER, step)
        await ticks_pass(cluster, 8)
        await proxy.start()

        assert (await alice.request("queryRoom"))["rtpCapabilities"]
        assert alice.protoo.counts.resumed == 1
        assert await api(cluster, "GET", "/v1/rooms/idle") == 200
        await proxy.stop()


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_lost_session_ends_and_stats_go_on_after_a_step(
    clocks: ShiftedClocks, redis_url: str, amqp_url: str, tmp_path: Path, step: float
) -> None:
    async with cluster_of(clocks, redis_url, amqp_url, tmp_path) as cluster:
        url = cluster.roles["gateway1"].url
        alice = await ResumablePeer.at([url], "salon", "alice")
        bob = await ResumablePeer.at([url], "salon", "bob")
        await alice.join()
        await bob.join()
        send, _ = await bob.transports()
        await bob.confirmed("enableTransportStats", id=send, interval=1000)
        for _ in range(3):
            await bob.notified("transportStats")

        await alice.protoo.abort()
        clocks.set(LEADER, step)

        assert (await bob.notified("peerClosed"))["name"] == "alice"
        for _ in range(5):
            await bob.notified("transportStats")


async def test_clock_of_a_later_leader_changes_no_time(
    clocks: ShiftedClocks, redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    """worker2 leads when worker1 has been killed, and its clock is an hour behind."""
    clocks.set("worker2", -HOUR)
    async with cluster_of(clocks, redis_url, amqp_url, tmp_path) as cluster:
        urls = [cluster.roles[name].url for name in ("gateway1", "gateway2")]
        alice = await ResumablePeer.at(urls, "salon", "alice")
        bob = await ResumablePeer.at(urls[::-1], "salon", "bob")
        await alice.join()
        await bob.join()
        await ticks_pass(cluster, 2)
        before = cluster.redis.zscore("plenary:time", "ms")
        await asyncio.to_thread(cluster.roles[LEADER].kill)
        await alice.protoo.abort()

        assert (await bob.notified("peerClosed"))["name"] == "alice"
        assert cluster.redis.zscore("plenary:time", "ms") - before < HOUR * 1000 / 2


async def api(cluster: Cluster, method: str, path: str, body: Any = None) -> int:
    """Returns the status of a call of the server API."""
    url = f"{cluster.roles['gateway1'].api_url}{path}"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with (
        ClientSession(headers=headers, timeout=ClientTimeout(PATIENCE)) as http,
        http.request(method, url, json=body) as answer,
    ):
        return answer.status
