"""A client that costs little: requests of a flood are encoded beforehand, answers are matched by id only."""

import asyncio
import time
from typing import Any

import orjson

from loadtest.client.protoo import Ended, Hooks, ProtooClient
from loadtest.client.rtp import FINGERPRINT, audio

_NOTIFICATION = b'{"notification":true'
_ANSWER = b'{"response":true,"id":'
_OK = b'"ok":true'
_OK_WITHIN = 64
"""Bytes of an answer within which `_OK` stands."""
_PAUSE, _RESUME = (
    b'{"request":true,"id":%d,"method":"mediasoup-notification","data":{"method":"' + method + b'","id":2}}'
    for method in (b"pauseProducer", b"resumeProducer")
)
_FIRST_ID = 1_000_000
"""The shared client numbers its own requests from 1."""
_NEW_CONSUMER = b'"method":"newConsumer"'
_METHOD_WITHIN = 90
"""Bytes of a frame within which the method of a notification stands."""


class FloodClient:
    """A peer of a room that floods requests. `url` is http://…"""

    def __init__(self, url: str, room: str, peer: str) -> None:
        hooks = Hooks(frame=self._received)
        self._protoo = ProtooClient(url.replace("http", "ws", 1), room, peer, resumable=False, hooks=hooks)
        self._peer = peer
        self._consumers: list[int] = []
        self._paused = False
        self._last_id = _FIRST_ID
        self._asked: dict[int, tuple[float, asyncio.Future[float]]] = {}
        self.notifications = 0

    @classmethod
    async def open(cls, url: str, room: str, peer: str) -> "FloodClient":
        client = cls(url, room, peer)
        await client._protoo.open()
        client._protoo.ended.add_done_callback(client._ended)
        return client

    def _received(self, body: bytes) -> bool:
        """Takes notifications and the answers to `ask`; other answers are the shared client's."""
        if body.startswith(_NOTIFICATION):
            self.notifications += 1
            if _NEW_CONSUMER in body[:_METHOD_WITHIN]:
                self._consumers.append(orjson.loads(body)["data"]["id"])
            return True
        if not body.startswith(_ANSWER):
            return False
        asked = self._asked.pop(int(body[len(_ANSWER) : body.index(b",", len(_ANSWER))]), None)
        if asked is None:
            return False
        began, seconds = asked
        if _OK in body[:_OK_WITHIN]:
            seconds.set_result(time.perf_counter() - began)
        else:
            seconds.set_exception(AssertionError(body.decode()))
        return True

    def _ended(self, ended: "asyncio.Future[Ended]") -> None:
        asked, self._asked = self._asked, {}
        for _, seconds in asked.values():
            seconds.set_exception(ended.result())

    async def _request(self, method: str, **fields: Any) -> Any:
        return await self._protoo.request({"method": method, **fields})

    async def prepare(self) -> None:
        """Joins and produces one microphone."""
        capabilities = (await self._request("queryRoom"))["rtpCapabilities"]
        joined = await self._request("join", peerName=self._peer, rtpCapabilities=capabilities)
        for peer in joined["peers"]:
            self._consumers += [consumer["id"] for consumer in peer["consumers"]]
        await self._request("createTransport", id=1, direction="send", options={}, dtlsParameters=FINGERPRINT)
        await self._request("createProducer", id=2, kind="audio", transportId=1, rtpParameters=audio(1000))

    async def enable(self) -> None:
        """Enables the consumers of all other peers in the room."""
        await self._request("createTransport", id=3, direction="recv")
        for consumer in self._consumers:
            await self._request("enableConsumer", id=consumer, transportId=3)

    def ask(self) -> "asyncio.Future[float]":
        """Pauses or resumes the microphone. The result of the future is the seconds until the answer."""
        self._paused = not self._paused
        self._last_id += 1
        seconds: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._asked[self._last_id] = (time.perf_counter(), seconds)
        self._protoo.send_encoded((_PAUSE if self._paused else _RESUME) % self._last_id)
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
        self._protoo.drop_connection()
