"""The call page in Chromium, with other people who are not browsers: what it shows, and in which words."""

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, WebSocketRoute

from devtools.cluster import Role, all_in_one
from loadtest.client.rtp import camera, dtls, microphone
from tests.e2e.conftest import WEB
from tests.e2e.page import CallPage
from tests.support.peer import Peer

pytestmark = pytest.mark.sample(6)

AXE: Final = WEB / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP, PHONE = {"width": 1100, "height": 700}, {"width": 390, "height": 844}
SIZES: Final = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
REVERSE: Final = "\u202e"
CHANCE: Final = random.Random(11)

TWO_PICTURES: Final = """() => {
  const videos = [...document.querySelectorAll('.tile:not(.tile--self) video')];
  return videos.filter(({srcObject}) => srcObject).length === 2;
}"""

Open = Callable[..., Awaitable[CallPage]]


@pytest.fixture
def server(needs: None, tmp_path: Path) -> Iterator[Role]:
    with all_in_one(tmp_path, "--engine", "null") as role:
        yield role


@pytest.fixture
async def open_page(launch: Callable[[], Awaitable[Browser]]) -> AsyncIterator[Open]:
    opened: list[CallPage] = []

    async def open_page(size: dict[str, int] = DESKTOP) -> CallPage:
        browser = await launch()
        page = CallPage(await browser.new_page(viewport=size, reduced_motion="reduce"), "me")  # type: ignore[arg-type]
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        print(*page.console, sep="\n")


async def other(server: Role, name: str, display_name: str, *sources: str) -> Peer:
    """Another client in the room, which sends from these sources."""
    peer = await Peer.connect(server.url, "demo", name)
    await peer.join(appData={"displayName": display_name})
    await peer.request("createTransport", id=1, direction="send", options={}, dtlsParameters=dtls(CHANCE))
    for number, source in enumerate(sources):
        kind, parameters = ("audio", microphone) if source == "microphone" else ("video", camera)
        await peer.request(
            "createProducer",
            id=10 + number,
            kind=kind,
            transportId=1,
            rtpParameters=parameters(CHANCE),
            appData={"source": source},
        )
    return peer


async def tiles(page: CallPage) -> list[dict[str, Any]]:
    """The others' tiles: name, whether a picture and a sound are attached, and the label's text."""
    found: list[dict[str, Any]] = await page.page.evaluate(
        """() => [...document.querySelectorAll('.tile:not(.tile--self)')].map((tile) => ({
          name: tile.getAttribute('aria-label'),
          picture: tile.querySelector('video').srcObject?.getVideoTracks().length === 1,
          sound: tile.querySelector('audio').srcObject?.getAudioTracks().length === 1,
          fit: getComputedStyle(tile.querySelector('video')).objectFit,
        }))"""
    )
    return found


async def test_screen_share_is_shown_in_a_tile_beside_the_camera(server: Role, open_page: Open) -> None:
    bob = await other(server, "bob", "Bob", "microphone", "screen", "camera")
    page = await open_page()
    await page.join(server.url, "demo")
    await page.until(TWO_PICTURES)
    assert await tiles(page) == [
        {"name": "Bob", "picture": True, "sound": True, "fit": "cover"},
        {"name": "Bob, screen", "picture": True, "sound": False, "fit": "contain"},
    ]
    await bob.confirmed("closeProducer", id=11)
    await page.until("() => document.querySelectorAll('.tile:not(.tile--self)').length === 1")
    await bob.close()


async def test_names_that_reverse_text_leave_the_pages_own_text_alone(server: Role, open_page: Open) -> None:
    page = await open_page()
    await page.join(server.url, f"ro{REVERSE}om")
    room = await page.page.evaluate("() => plenary.room")
    mallory = await Peer.connect(server.url, room, "mallory")
    await mallory.join(appData={"displayName": f"{REVERSE}Mallory"})
    await page.until("() => document.querySelector('.toast')?.textContent.includes('Mallory')")
    text = await page.page.evaluate("() => document.body.innerText + document.body.innerHTML + document.title")
    assert "Mallory" in text
    assert REVERSE not in text
    assert await page.page.locator("bdi.tile__name", has_text="Mallory").count() == 1
    await mallory.close()


async def test_toast_about_a_right_to_left_name_reads_from_left_to_right(server: Role, open_page: Open) -> None:
    page = await open_page()
    await page.join(server.url, "demo")
    noa = await other(server, "noa", "נועה")
    await page.until("() => document.querySelector('.toast')?.textContent.includes('נועה')")
    name, word = await page.page.evaluate(
        "() => [...document.querySelector('.toast').children].map((part) => part.getBoundingClientRect().left)"
    )
    assert name < word
    await noa.close()


NO_CAMERA: Final = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (wanted.video) throw new DOMException('Requested device not found', 'NotFoundError');
  return real(wanted);
};
"""


async def test_device_error_told_before_joining_is_still_shown_in_the_call(server: Role, open_page: Open) -> None:
    page = await open_page()
    await page.page.add_init_script(NO_CAMERA)
    await page.page.goto(f"{server.url}/?room=demo&name=me&peer=me")
    await page.page.get_by_text("No camera was found").wait_for()
    await page.click("join-button")
    await page.until("() => plenary.state === 'joined'")
    await page.page.get_by_test_id("problem").get_by_text("No camera was found").wait_for()
    # It goes when the person no longer wants the camera, or has one.
    await page.page.evaluate("() => { delete navigator.mediaDevices.getUserMedia; }")
    await page.click("camera")
    await page.page.get_by_test_id("problem").wait_for(state="hidden")


@pytest.mark.parametrize(
    ("reason", "heading", "message"),
    [
        ("peer closed", "You are out of the call", "You were removed from the call."),
        ("room closed", "The call is over", "The call was ended for everyone."),
    ],
)
async def test_page_after_a_call_shows_why_it_ended(
    server: Role, open_page: Open, reason: str, heading: str, message: str
) -> None:
    page = await open_page()
    sockets: list[WebSocketRoute] = []

    def intercept(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        socket.connect_to_server()

    await page.page.route_web_socket(re.compile(".*"), intercept)
    await page.join(server.url, "demo")
    await sockets[-1].close(code=4000, reason=reason)
    await page.page.get_by_test_id("join-message").get_by_text(message).wait_for()
    assert await page.page.locator("h1").inner_text() == heading
    assert "still" not in await page.page.locator(".join__lead").inner_text()


@SIZES
async def test_toasts_cover_no_tile(server: Role, open_page: Open, size: dict[str, int]) -> None:
    page = await open_page(size)
    await page.join(server.url, "demo")
    peers = [
        await other(server, f"p{number}", f"Participant number {number} with a long name") for number in range(3)
    ]
    await page.until("() => document.querySelectorAll('.tile').length === 4")
    covered = await page.page.evaluate(
        """() => {
          const boxes = (which) => [...document.querySelectorAll(which)].map((it) => it.getBoundingClientRect());
          const apart = (a, b) => a.bottom <= b.top || b.bottom <= a.top || a.right <= b.left || b.right <= a.left;
          const news = boxes('.toast');
          return {news: news.length, wide: news.some(({left, right}) => left < 0 || right > innerWidth),
            covered: boxes('.tile').filter((tile) => news.some((toast) => !apart(toast, tile))).length};
        }"""
    )
    assert covered == {"news": 1, "wide": False, "covered": 0}
    for peer in peers:
        await peer.close()


@SIZES
async def test_page_has_no_serious_accessibility_fault(server: Role, open_page: Open, size: dict[str, int]) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make page")
    page = await open_page(size)
    await page.page.goto(f"{server.url}/?room=demo&name=me&peer=me")
    assert await faults(page.page) == []
    await page.click("join-button")
    await page.until("() => plenary.state === 'joined'")
    assert await faults(page.page) == []
    bob = await other(server, "bob", "Bob", "microphone", "camera", "screen")
    await page.until("() => document.querySelectorAll('.tile').length === 3")
    await page.click("mute")
    await page.click("camera")
    assert await faults(page.page) == []
    await page.click("share")
    assert await faults(page.page) == []
    await bob.close()


async def faults(page: Page) -> list[str]:
    """The serious and critical faults that axe finds, with the elements. Text that fades in is waited for."""
    await page.evaluate(AXE.read_text())
    found: list[str] = await page.evaluate(
        """async () => {
          await Promise.all(document.getAnimations().filter((it) => it.effect.getTiming().iterations !== Infinity)
            .map((it) => it.finished.catch(() => {})));
          const rules = {'label-content-name-mismatch': {enabled: true}};
          const {violations} = await axe.run(document, {rules, resultTypes: ['violations']});
          return violations.filter(({impact}) => ['serious', 'critical'].includes(impact))
            .flatMap(({id, nodes}) => nodes.map(({html, failureSummary}) => `${id}: ${html} ${failureSummary}`));
        }"""
    )
    return found
