"""Fixtures for real browsers with the unmodified clients, on one process in memory and on a cluster."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from devtools.cluster import Cluster, address, all_in_one
from medianode.toolchain.install import find_engine
from tests.e2e.page import CallPage
from tests.support.proxy import Proxy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WEB = Path(__file__).parents[2] / "web"
PAGE = WEB / "dist" / "index.html"
CHROMIUM_FLAGS = [
    # Encoding 20 pictures a second, the default, takes most of what the browsers' tests cost.
    "--use-fake-device-for-media-stream=fps=10",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


Launch = Callable[[], Awaitable[Browser]]


@dataclass(frozen=True)
class Deployment:
    """The addresses at which the first and the second browser connect."""

    name: str
    urls: tuple[str, str]
    cluster: Cluster | None = None


@pytest.fixture(scope="session")
def needs() -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    if not PAGE.exists():
        pytest.skip("the page is not built: make page")
    if find_engine() is None:
        pytest.skip("no media engine: make engine")


@pytest.fixture
async def cluster(needs: None, redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two gateways, two room workers, one media node, on real servers."""
    cluster = Cluster(redis_url, amqp_url, tmp_path)
    async with cluster.running_async("mediasoup"):
        yield cluster


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    """The one address of the cluster's gateways; it passes connections to gateway 1 at first."""
    proxy = Proxy(*address(cluster.roles["gateway1"]))
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture(params=["embedded", "cluster"])
def deployment(request: pytest.FixtureRequest, needs: None, tmp_path: Path) -> Iterator[Deployment]:
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        yield Deployment("cluster", (cluster.roles["gateway1"].url, cluster.roles["gateway2"].url), cluster)
        return
    with all_in_one(tmp_path) as role:
        yield Deployment("embedded", (role.url, role.url))
        print(role.said())


class Browsers:
    """Opens pages, each with storage of its own, and keeps what their consoles said."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.pages: list[CallPage] = []

    async def open(self, url: str, name: str, room: str = "demo") -> CallPage:
        browser = await self._launch()
        page = CallPage(await browser.new_page(viewport={"width": 1100, "height": 700}), name)
        self.pages.append(page)
        await page.join(url, room)
        return page


@asynccontextmanager
async def chromium() -> AsyncIterator[Launch]:
    """Gives a function that returns a browser, which it starts once, and closes the browser at the end.

    Each page of `browser.new_page` has a process and storage of its own.
    """
    browser: Browser | None = None
    async with async_playwright() as playwright:

        async def launch() -> Browser:
            nonlocal browser
            if browser is None:
                browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            return browser

        yield launch
        if browser is not None:
            await browser.close()


@pytest.fixture
async def launch(needs: None) -> AsyncIterator[Launch]:
    """Returns the test's browser, starting it at the first call."""
    async with chromium() as launch:
        yield launch


@pytest.fixture
async def browsers(launch: Launch) -> AsyncIterator[Browsers]:
    browsers = Browsers(launch)
    yield browsers
    for page in browsers.pages:
        print(f"--- {page.name}'s console", *page.console, sep="\n")


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harness's page, built with what the demo page is built with."""
    esbuild = WEB / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        pytest.skip("esbuild is not installed: make page")
    folder = tmp_path_factory.mktemp("harness")
    source = Path(__file__).parent / "harness"
    subprocess.run(
        [esbuild, source / "harness.js", "--bundle", "--define:global=globalThis", f"--outdir={folder}"],
        check=True,
        env={**os.environ, "NODE_PATH": str(WEB / "node_modules")},
    )
    shutil.copy(source / "index.html", folder)
    return folder
