"""Firefox and Chromium in one call, with the unmodified clients: each receives what the other sends."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devtools.cluster import Role, all_in_one, from_scratch
from tests.e2e.app import App
from tests.e2e.conftest import Launch
from tests.e2e.firefox import ADDRESS, FIREFOX, Firefox, own_network

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.sample(2)]

Call = tuple[App, App]

# The harness gives the layers in Chromium's order, low first; Firefox's come high first.
SCALE = """app.send.handler._pc.getSenders().filter(({track}) => track.kind === 'video').map((sender) => {
  const parameters = sender.getParameters();
  const layers = {low: [4, 100_000], medium: [2, 300_000], high: [1, 1_500_000]};
  for (const encoding of parameters.encodings) {
    [encoding.scaleResolutionDownBy, encoding.maxBitrate] = layers[encoding.rid.slice(0, -1)];
  }
  return sender.setParameters(parameters);
})[0]"""


@pytest.fixture(scope="module", autouse=True)
def network(needs: None) -> Iterator[None]:
    """A network of its own. The fixture is the first, so that all that the tests start is in it."""
    if FIREFOX is None:
        pytest.skip("no Firefox: apt-get install firefox-esr")
    if shutil.which("ip") is None:
        pytest.skip("no ip: apt-get install iproute2")
    if os.geteuid():
        pytest.skip("only root may make a network of its own, and Firefox takes no media from 127.0.0.1")
    with ExitStack() as stack:
        try:
            stack.enter_context(own_network())
        except PermissionError:
            pytest.skip("root may not make a network here, and Firefox takes no media from 127.0.0.1")
        yield


@pytest.fixture(scope="module")
def role(network: None, harness: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """Runs everything in one process, since Redis and RabbitMQ are outside this network."""
    options = ["--page", str(harness), "--listen-ip", ADDRESS, "--announced-ip", ADDRESS]
    # A fork would be in the network of the server that forks it.
    with all_in_one(tmp_path_factory.mktemp("run"), *options, start=from_scratch) as role:
        yield role
        print(role.said())


@pytest.fixture
async def call(role: Role, launch: Launch, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Call]:
    """Firefox and Chromium, which send and receive audio and video, in a room with the name of the test."""
    firefox = Firefox(tmp_path)
    fox = App(firefox, role.url)
    try:
        await firefox.start()
        chrome = App(await (await launch()).new_page(), role.url)
        for app, name in ((fox, "fox"), (chrome, "chrome")):
            await app.open()
            await app.join(request.node.name, name)
            await app.produce("audio")
            await app.produce("video", simulcast=True)
        await fox.run(SCALE)
        for app, other in ((fox, "chrome"), (chrome, "fox")):
            for kind in ("audio", "video"):
                await app.receive(other, kind)
        yield fox, chrome
        print("--- Chromium's console", *chrome.console, sep="\n")
    finally:
        await firefox.stop()
        print("--- Firefox's console", *fox.console, "--- Firefox", firefox.said(), sep="\n")


async def media_flows(call: Call) -> None:
    fox, chrome = call
    for kind in ("audio", "video"):
        await fox.more_of("chrome", kind)
        await chrome.more_of("fox", kind)


async def test_firefox_and_chromium_hear_and_see_each_other(call: Call) -> None:
    fox, chrome = call
    assert await fox.run("app.room.getPeerByName('chrome').consumers.every(({supported}) => supported)")
    assert await chrome.run("app.room.getPeerByName('fox').consumers.every(({supported}) => supported)")
    await media_flows(call)


async def test_firefox_pauses_and_resumes_its_producers(call: Call) -> None:
    fox, chrome = call
    for kind in ("audio", "video"):
        await chrome.more_of("fox", kind)
        await fox.run("app.producers[it].pause()", kind)
        assert await chrome.event("consumer", f"fox/{kind}", "pause") == [["remote", None]]
        await fox.run("app.producers[it].resume()", kind)
        await chrome.event("consumer", f"fox/{kind}", "resume")
        await chrome.more_of("fox", kind)


async def test_profiles_of_firefox_change_the_resolution(call: Call) -> None:
    _, chrome = call
    for profile, width in (("low", 320), ("medium", 640), ("low", 320)):
        await chrome.run("app.consumer('fox', 'video').setPreferredProfile(it)", profile)
        await chrome.until("(await app.received('fox', 'video')).width === it", width)
        await chrome.until("app.consumer('fox', 'video').effectiveProfile === it", profile)


async def test_ice_restart_of_firefox_keeps_media_flowing(call: Call) -> None:
    fox, _ = call
    await media_flows(call)
    before = [await fox.run("app.remoteFragment(it)", direction) for direction in ("send", "recv")]
    await fox.run("app.room.restartIce()")
    await fox.until("['send', 'recv'].every((direction, n) => app.remoteFragment(direction) !== it[n])", before)
    await media_flows(call)


async def test_firefox_that_leaves_is_removed(call: Call) -> None:
    fox, chrome = call
    await media_flows(call)
    await fox.run("app.room.leave()")
    await chrome.event("peer", "fox", "close")
    await chrome.event("consumer", "fox/video", "close")
    assert await chrome.run("app.room.peers.length") == 0
