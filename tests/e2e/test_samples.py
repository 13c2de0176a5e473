"""The client samples of README and tutorial run as they are printed, with the unmodified libraries, and reconnect."""

import os
import re
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page

from devtools.cluster import Role, all_in_one
from tests.e2e.conftest import WEB
from tests.e2e.page import CallPage
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.xdist_group("samples")]

ROOT = Path(__file__).parents[2]
ADDRESS = "ws://localhost:8080/"
EXPOSED = "\nglobalThis.sample = { peer, get room() { return room; } };\n"


def blocks(document: str) -> list[str]:
    """The JavaScript blocks of a document."""
    return re.findall(r"^```js\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def simple_client() -> str:
    return blocks("README.md")[0]


def calling_client() -> str:
    """The tutorial's client with its second step done as the text says."""
    simple, join, call = blocks("docs/tutorial/first-client.md")
    joined = re.sub(r"^  room\.join\(.*\n", join, simple, flags=re.MULTILINE)
    assert joined != simple
    return joined + call


def test_readme_and_tutorial_show_the_same_client() -> None:
    assert simple_client() == blocks("docs/tutorial/first-client.md")[0]


class Sample(CallPage):
    """A page with a sample; the connection runs through a proxy."""

    def __init__(self, page: Page, name: str, proxy: Proxy) -> None:
        super().__init__(page, name)
        self.proxy = proxy

    async def until_joined(self) -> None:
        await self.until("() => globalThis.sample?.room?.joined")

    async def cut(self) -> None:
        """Cuts the connection, and returns when the sample has joined with another Room."""
        await self.page.evaluate("() => { globalThis.before = sample.room; }")
        self.proxy.cut()
        await self.until("() => sample.room !== before && sample.room.joined")

    async def until_seeing(self, other: str) -> None:
        """Waits until the picture of the other moves, and nothing of an earlier connection is left."""
        await self.until("(name) => sample.room.getPeerByName(name)?.consumers.length === 2", other)
        await self.until("() => document.querySelectorAll('video').length === 1")
        await self.until("() => document.querySelector('video').videoWidth > 0")
        before = await self.page.evaluate("() => document.querySelector('video').currentTime")
        await self.until("(before) => document.querySelector('video')?.currentTime > before", before)


Run = Callable[[str, str], Awaitable[Sample]]


@pytest.fixture
async def run(needs: None, launch: Callable[[], Awaitable[Any]], tmp_path: Path) -> AsyncIterator[Run]:
    """Bundles a sample, changing nothing but its address and name, and opens it in a browser of its own."""
    folder = tmp_path / "page"
    folder.mkdir()
    proxies: list[Proxy] = []
    samples: list[Sample] = []

    async def run(source: str, name: str) -> Sample:
        proxy = Proxy(*_address(role))
        await proxy.start()
        proxies.append(proxy)
        bundle(folder, name, source.replace(ADDRESS, f"ws://127.0.0.1:{proxy.port}/").replace("alice", name))
        browser = await launch()
        samples.append(Sample(await browser.new_page(), name, proxy))
        await until(lambda: served(role, name) == built(folder, name), f"{name}.js from the gateway", in_thread=True)
        await samples[-1].page.goto(f"{role.url}/{name}.html")
        await samples[-1].until_joined()
        return samples[-1]

    for name in ("index", "alice", "bob"):
        (folder / f"{name}.html").write_text(f"<!doctype html>\n<body></body>\n<script src={name}.js></script>\n")
        (folder / f"{name}.js").touch()
    with all_in_one(tmp_path, "--page", str(folder)) as role:
        yield run
        for sample in samples:
            print(f"--- console of {sample.name}", *sample.console, sep="\n")
        for proxy in proxies:
            await proxy.stop()


def _address(role: Role) -> tuple[str, int]:
    address = urlsplit(role.url)
    assert address.hostname is not None
    assert address.port is not None
    return address.hostname, address.port


def bundle(folder: Path, name: str, source: str) -> None:
    """Does what the tutorial says: esbuild, with `global` as `globalThis`."""
    esbuild = WEB / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        pytest.skip("esbuild is not installed: make page")
    subprocess.run(
        [esbuild, "--bundle", "--define:global=globalThis", f"--outfile={folder / name}.js", "--log-level=warning"],
        input=source + EXPOSED,
        text=True,
        check=True,
        env={**os.environ, "NODE_PATH": str(WEB / "node_modules")},
    )


def built(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.js").read_bytes()


def served(role: Role, name: str) -> bytes:
    """The script as the gateway has it: it reads changed files once a second."""
    with urllib.request.urlopen(f"{role.url}/{name}.js", timeout=20) as answer:
        return bytes(answer.read())


def uncaught(sample: Sample) -> list[str]:
    return [line for line in sample.console if "uncaught" in line or "InvalidStateError" in line]


async def test_simple_client_joins_again_after_a_lost_connection(run: Run) -> None:
    alice = await run(simple_client(), "alice")
    for _ in range(2):
        await alice.cut()
    assert not uncaught(alice)


async def test_tutorial_clients_see_each_other_again_after_a_lost_connection(run: Run) -> None:
    alice = await run(calling_client(), "alice")
    bob = await run(calling_client(), "bob")
    await alice.until_seeing("bob")
    await bob.until_seeing("alice")

    await alice.cut()

    await alice.until_seeing("bob")
    await bob.until_seeing("alice")
    assert not uncaught(alice)
    assert not uncaught(bob)
