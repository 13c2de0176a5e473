"""Drives the demo page as a person does, and reads `window.plenary` for what a person would see."""

from typing import Any

from playwright.async_api import Page

from tests.support.waiting import until

PATIENCE = 30.0


class CallPage:
    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))

    async def join(self, url: str, room: str) -> None:
        await self.page.goto(f"{url}/?room={room}&name={self.name}&peer={self.name}&autojoin=1")
        await self.until("() => plenary.state === 'joined'")

    async def until(self, condition: str, argument: Any = None) -> None:
        """Waits until the condition holds in the page; it may be async (so Playwright's own waiting will not do)."""
        await until(lambda: self.page.evaluate(condition, argument), f"{self.name}: {condition}", within=PATIENCE)

    async def click(self, test_id: str) -> None:
        await self.page.get_by_test_id(test_id).click()

    async def peers(self) -> list[str]:
        names: list[str] = await self.page.evaluate("() => plenary.call.peers.map(({name}) => name)")
        return names

    async def sees(self, *names: str) -> None:
        """Waits until exactly these others are in the call."""
        await self.until(
            "(names) => plenary.call.peers.map(({name}) => name).sort().join() === names", ",".join(sorted(names))
        )

    async def hears_and_sees(self, name: str) -> None:
        """Waits until the other's video has been decoded and its audio has arrived, more of both than before."""
        before = await self.page.evaluate(_COUNTS, name) or {"frames": 0, "packets": 0}
        await self.until(_RECEIVED, {"name": name, **before})

    async def video_stands_still(self, name: str) -> None:
        """Waits until the other's video has brought no new frame for a second of the page's own clock."""
        await self.page.evaluate("() => { window.still = {frames: -1, since: 0}; }")
        await self.until(_STILL, name)

    async def consumer(self, name: str, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.page.evaluate(
            "([name, kind]) => plenary.call.peers.find((peer) => peer.name === name)"
            ".consumers.find((consumer) => consumer.kind === kind)",
            [name, kind],
        )
        return found


_COUNTS = """async (name) => {
  const streams = ((await plenary.stats()).recv?.consumers ?? []).filter(({peerName}) => peerName === name);
  const video = streams.find(({kind}) => kind === 'video');
  const audio = streams.find(({kind}) => kind === 'audio');
  return video && audio ? {frames: video.framesDecoded, packets: audio.packetsReceived} : null;
}"""

_RECEIVED = f"""async ({{name, frames, packets}}) => {{
  const now = await ({_COUNTS})(name);
  return now !== null && now.frames > frames + 5 && now.packets > packets + 5;
}}"""

_STILL = """async (name) => {
  const streams = (await plenary.stats()).recv.consumers;
  const {framesDecoded} = streams.find(({peerName, kind}) => peerName === name && kind === 'video');
  const now = performance.now();
  if (framesDecoded !== window.still.frames) window.still = {frames: framesDecoded, since: now};
  return now - window.still.since > 1000;
}"""
