"""A call continues when its gateway is killed: two gateways share one address."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devtools.cluster import Cluster, address
from tests.e2e.conftest import Browsers
from tests.e2e.page import CallPage
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.browser, pytest.mark.engine]

_WATCH = """() => {
  const look = () => JSON.stringify([plenary.state, plenary.call.peers.map(({name, consumers}) => [
    name, consumers.map(({id, closed, supported, receiving}) => [id, closed, supported, receiving]),
  ])]);
  window.looks = new Set([look()]);
  setInterval(() => window.looks.add(look()), 5);
}"""


@pytest.fixture
async def cluster(needs: None, redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Sessions have two minutes to come back, however slow the machine is."""
    options = ["--grace-seconds", "120"]
    cluster = Cluster(redis_url, amqp_url, tmp_path, gateway_options=options, worker_options=options)
    async with cluster.running_async("mediasoup"):
        yield cluster


async def nothing_happened(page: CallPage) -> None:
    """Checks that the page's state, its peers and their consumers have not changed since `_WATCH`."""
    looks: list[Any] = await page.page.evaluate("() => [...window.looks]")
    assert len(looks) == 1, looks


async def test_call_continues_when_its_gateway_is_killed(cluster: Cluster, proxy: Proxy, browsers: Browsers) -> None:
    alice = await browsers.open(f"http://127.0.0.1:{proxy.port}", "alice")
    bob = await browsers.open(cluster.roles["gateway2"].url, "bob")
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    for page in (alice, bob):
        await page.page.evaluate(_WATCH)

    proxy.refuse()
    cluster.roles["gateway1"].kill()
    await alice.until("() => plenary.resuming")
    await alice.page.get_by_test_id("status").get_by_text("Reconnecting…").wait_for()
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    assert await alice.page.evaluate("() => plenary.resuming")

    proxy.redirect(*address(cluster.roles["gateway2"]))
    await proxy.start()
    await alice.until("() => plenary.resumed === 1 && !plenary.resuming")
    await alice.page.get_by_test_id("status").get_by_text("Connected").wait_for()
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    for page in (alice, bob):
        await nothing_happened(page)

    # and the way to the server is there again
    await alice.click("camera")
    await bob.until("() => plenary.call.peers[0].consumers.find(({kind}) => kind === 'video').remotelyPaused")
    await alice.click("leave")
    await bob.sees()


async def test_actions_during_a_lost_connection_take_effect_after_resuming(
    cluster: Cluster, proxy: Proxy, browsers: Browsers
) -> None:
    alice = await browsers.open(f"http://127.0.0.1:{proxy.port}", "alice")
    bob = await browsers.open(cluster.roles["gateway2"].url, "bob")
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    proxy.refuse()
    proxy.cut()
    await alice.until("() => plenary.resuming")
    await alice.click("camera")
    await bob.click("mute")
    await proxy.start()
    await alice.until("() => plenary.resumed === 1")
    await bob.until("() => plenary.call.peers[0].consumers.find(({kind}) => kind === 'video').remotelyPaused")
    await alice.until("() => plenary.call.peers[0].consumers.find(({kind}) => kind === 'audio').remotelyPaused")
    assert await alice.peers() == ["bob"]
    assert await bob.peers() == ["alice"]
