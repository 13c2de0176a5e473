"""Drives Firefox over WebDriver BiDi with the part of Playwright's `Page` that `App` needs.

Playwright itself drives a patched Firefox only.
"""

import asyncio
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.page import PATIENCE
from tests.support.waiting import until

FIREFOX = shutil.which("firefox-esr")

ADDRESS = "198.18.0.1"
"""The address of `own_network` besides 127.0.0.1, with which Firefox pairs no candidate."""

_CLONE_NEWNET = 0x40000000

# Firefox adds those that keep a browser under test from updates, telemetry and lists to download.
PREFERENCES: dict[str, bool | int] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # plugins to download, of which VP8 and Opus need none
    "media.gmp-manager.updateEnabled": False,
    "media.gmp-provider.enabled": False,
    "remote.active-protocols": 1,
}


@contextmanager
def own_network() -> Iterator[None]:
    """A network with nothing but 127.0.0.1 and `ADDRESS`, for this thread and what it starts in the meantime.

    It has no name and ends with the last process in it, so nothing is left even of a test that is killed. Raises
    PermissionError without the right to make one: root has it, less so in a container.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            # Of the machine's addresses Firefox offers the one it would reach the world from: there must be a route.
            for command in ("link set lo up", f"address add {ADDRESS}/32 dev lo", "route add default dev lo"):
                subprocess.run(["ip", *command.split()], check=True)
            yield
        finally:
            if libc.setns(before.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Message:
    """A line of a page's console."""

    type: str
    text: str


class Firefox:
    """A browser of its own with one page. `await start()` first, `await stop()` always."""

    def __init__(self, folder: Path) -> None:
        """`folder` keeps its profile, until it ends, and what it said."""
        self._profile = folder / "profile"
        self._log = folder / "firefox.log"
        self._listeners: dict[str, list[Callable[[Any], None]]] = {}
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._ending = AsyncExitStack()

    async def start(self) -> None:
        assert FIREFOX is not None
        self._profile.mkdir()
        self._ending.callback(shutil.rmtree, self._profile, ignore_errors=True)
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
        (self._profile / "user.js").write_text("".join(lines))
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                FIREFOX,
                *("--headless", "--no-remote", "--profile", self._profile, "--remote-debugging-port", "0"),
                env={**os.environ, "HOME": str(self._profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._ending.push_async_callback(self._kill)
        http = await self._ending.enter_async_context(aiohttp.ClientSession())
        address = await until(self._address, "Firefox's address for WebDriver BiDi")
        async with asyncio.timeout(PATIENCE):
            self._socket = await http.ws_connect(f"{address}/session", max_msg_size=0)
        reader = asyncio.create_task(self._read())
        self._ending.push_async_callback(asyncio.wait, [reader])
        self._ending.push_async_callback(self._socket.close)
        await self._call("session.new", capabilities={})
        await self._call("session.subscribe", events=["log.entryAdded"])
        self._tab = (await self._call("browsingContext.create", type="tab"))["context"]

    async def stop(self) -> None:
        """Ends all of its processes."""
        await self._ending.aclose()

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    # --- what Playwright's page has ------------------------------------------------------------------------------

    def on(self, event: str, listener: Callable[[Any], None]) -> None:
        """`console` gets a `Message`, `pageerror` a text."""
        self._listeners.setdefault(event, []).append(listener)

    async def goto(self, url: str) -> None:
        await self._call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    async def evaluate(self, function: str, argument: Any = None) -> Any:
        """The function's result, awaited if it is a promise. What it throws is raised as AssertionError."""
        answer = await self._call(
            "script.callFunction",
            functionDeclaration=f"async (it) => JSON.stringify((await ({function})(JSON.parse(it))) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            target={"context": self._tab},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise AssertionError(f"{answer['exceptionDetails']['text']} in {function}")
        return json.loads(answer["result"]["value"])

    # --- WebDriver BiDi --------------------------------------------------------------------------------------------

    def _address(self) -> str | None:
        """Returns the address that Firefox has printed, or None before."""
        if found := re.search(r"BiDi listening on (ws://\S+)", self.said()):
            return found[1]
        if self._process.returncode is not None:
            raise AssertionError(f"Firefox ended with {self._process.returncode}:\n{self.said()}")
        return None

    async def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_json({"id": number, "method": method, "params": params})
            async with asyncio.timeout(PATIENCE):
                return await answer
        finally:
            del self._pending[number]

    async def _read(self) -> None:
        async for frame in self._socket:
            message = json.loads(frame.data)
            if message["type"] == "event":
                self._entry(message["params"])
            elif (answer := self._pending.get(message["id"])) and not answer.done():
                if message["type"] == "success":
                    answer.set_result(message["result"])
                else:
                    answer.set_exception(AssertionError(f"{message['error']}: {message['message']}"))
        for answer in self._pending.values():
            answer.set_exception(AssertionError(f"Firefox has gone:\n{self.said()}"))

    def _entry(self, entry: dict[str, Any]) -> None:
        is_error = entry["type"] == "javascript"
        heard = entry["text"] if is_error else Message(entry["level"], entry["text"])
        for listener in self._listeners.get("pageerror" if is_error else "console", ()):
            listener(heard)
