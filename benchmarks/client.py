"""A client that costs little: answers are matched by id, notifications only counted."""

import asyncio
import time
from typing import Any

import orjson

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from loadtest.client.rtp import FINGERPRINT, audio
from shared.protocol.client import NOTIFICATION

_NOTIFICATION = b'{"notification":true'
_NEW_CONSUMER = b'"method":"newConsumer"'
_METHOD_WITHIN = 90
"""Bytes of a frame within which the method of a notification stands."""


class FloodClient:
    """A peer of a room. `url` is http://…"""

    def __init__(self, url: str, room: str, peer: str) -> None:
        hooks = Hooks(frame=self._count)
        self._protoo = ProtooClient(url.replace("http", "ws", 1), room, peer, resumable=False, hooks=hooks)
        self._peer = peer
        self._consumers: list[int] = []
        self._paused = False
        self.notifications = 0

    @classmethod
    async def open(cls, url: str, room: str, peer: str) -> "FloodClient":
        client = cls(url, room, peer)
        await client._protoo.open()
        return client

    def _count(self, body: bytes) -> bool:
        """Handles notifications without parsing them; answers are the shared client's."""
        if not body.startswith(_NOTIFICATION):
            return False
        self.notifications += 1
        if _NEW_CONSUMER in body[:_METHOD_WITHIN]:
            self._consumers.append(orjson.loads(body)["data"]["id"])
        return True

    async def _request(self, method: str, **fields: Any) -> Any:
        return await self._protoo.request({"method": method, **fields})

    async def prepare(self) -> None:
        """Joins and sends one microphone."""
        capabilities = (await self._request("queryRoom"))["rtpCapabilities"]
        joined = await self._request("join", peerName=self._peer, rtpCapabilities=capabilities)
        for peer in joined["peers"]:
            self._consumers += [consumer["id"] for consumer in peer["consumers"]]
        await self._request("createTransport", id=1, direction="send", options={}, dtlsParameters=FINGERPRINT)
        await self._request("createProducer", id=2, kind="audio", transportId=1, rtpParameters=audio(1000))

    async def enable(self) -> None:
        """Receives everybody else in the room."""
        await self._request("createTransport", id=3, direction="recv")
        for consumer in self._consumers:
            await self._request("enableConsumer", id=consumer, transportId=3)

    def ask(self) -> "asyncio.Future[float]":
        """Pauses or resumes the microphone. The future gives the seconds until the answer."""
        self._paused = not self._paused
        seconds: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()

        def answered(_: Any, failure: Refusal | Ended | None) -> None:
            if failure is None:
                seconds.set_result(time.perf_counter() - began)
            else:
                seconds.set_exception(failure)

        method = "pauseProducer" if self._paused else "resumeProducer"
        self._protoo.post({"method": method, "id": 2}, answered, NOTIFICATION)
        return seconds

    async def flood(self, until: float, window: int) -> list[float]:
        """Keeps `window` requests in flight until then; returns the latencies."""
        latencies: list[float] = []

        async def one_after_another() -> None:
            while time.perf_counter() < until:
                latencies.append(await self.ask())

        await asyncio.gather(*(one_after_another() for _ in range(window)))
        return latencies

    def close(self) -> None:
        self._protoo.cut()
