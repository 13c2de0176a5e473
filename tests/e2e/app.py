"""Drives the harness (`harness/harness.js`) in one browser page."""

import json
from typing import Any

from playwright.async_api import Page

from tests.e2e.firefox import Firefox
from tests.e2e.page import PATIENCE
from tests.support.waiting import until


class App:
    """One participant with the bare clients: `app` in the page's scripts is its `App` object."""

    def __init__(self, page: "Page | Firefox", url: str) -> None:
        self.page = page
        self.url = url
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))

    async def open(self) -> None:
        await self.page.goto(self.url)
        await self.page.evaluate("url => { window.app = new App(url); }", self.url.replace("http", "ws", 1))

    async def run(self, script: str, argument: Any = None) -> Any:
        """Evaluates an expression in which `app` and `it` (the argument) are known; awaited if it is a promise."""
        return await self.page.evaluate(f"async (it) => {{ const app = window.app; return {script}; }}", argument)

    async def until(self, condition: str, argument: Any = None) -> Any:
        """Waits until the expression is truthy, and returns it."""
        return await until(lambda: self.run(condition, argument), condition, within=PATIENCE)

    async def join(self, room: str, name: str, **options: Any) -> list[str]:
        peers: list[str] = await self.run("await app.join(it[0], it[1], it[2])", [room, name, options])
        await self.run("await app.transports()")
        return peers

    async def produce(self, kind: str, **options: Any) -> int:
        producer: int = await self.run(f"await app.produce({json.dumps(kind)}, it)", options)
        return producer

    async def receive(self, peer: str, kind: str) -> int:
        """Waits for the other's consumer and enables it."""
        await self.until("app.room.getPeerByName(it[0]) && app.consumer(it[0], it[1])", [peer, kind])
        consumer: int = await self.run("await app.receive(it[0], it[1])", [peer, kind])
        return consumer

    async def more_of(self, peer: str, kind: str) -> None:
        """Waits until more has been received than now: frames of video, packets of audio."""
        counter = "frames" if kind == "video" else "packets"
        before = (await self.run("await app.received(it[0], it[1])", [peer, kind]))[counter]
        await self.until(f"(await app.received(it[0], it[1])).{counter} > it[2] + 5", [peer, kind, before])

    async def event(self, kind: str, name: str, event: str, count: int = 1) -> list[Any]:
        """Waits until the object has emitted the event `count` times; returns the data of each."""
        seen = await self.until(
            "app.seen(it[0], it[1], it[2]).length >= it[3] && app.seen(it[0], it[1], it[2])",
            [kind, name, event, count],
        )
        return [entry["data"] for entry in seen]
