"""A client that costs little: answers are matched by id, notifications only counted."""

import asyncio
import time
from typing import Any
from urllib.parse import quote

import orjson
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.support.peer import FINGERPRINT, audio

_ANSWER = b'{"response":true,"id":'


class FloodClient(WSListener):
    def __init__(self) -> None:
        self.peer = ""
        self.notifications = 0
        self._last_id = 0
        self._waiting: dict[int, tuple[float, asyncio.Future[float]]] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._consumers: list[int] = []
        self._paused = False
        self.transport: WSTransport

    @classmethod
    async def open(cls, url: str, room: str, peer: str) -> "FloodClient":
        address = f"{url.replace('http', 'ws', 1)}/ws?roomId={quote(room)}&peerName={quote(peer)}"
        _, client = await ws_connect(cls, address, extra_headers={"Sec-WebSocket-Protocol": "protoo"})
        assert isinstance(client, FloodClient)
        client.peer = peer
        return client

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        body = frame.get_payload_as_bytes()
        if not body.startswith(_ANSWER):
            self.notifications += 1
            if b'"method":"newConsumer"' in body[:90]:
                self._consumers.append(orjson.loads(body)["data"]["id"])
            return
        id_ = int(body[len(_ANSWER) : body.index(b",", len(_ANSWER))])
        began, answered = self._waiting.pop(id_)
        if b'"ok":true' not in body[:64]:
            answered.set_exception(AssertionError(body.decode()))
            return
        if len(body) > 64:
            self._answers[id_] = orjson.loads(body)["data"]
        answered.set_result(time.perf_counter() - began)

    def send(self, method: str, data: dict[str, Any]) -> "asyncio.Future[float]":
        """The future gives the seconds until the answer."""
        self._last_id += 1
        answered: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        frame = orjson.dumps({"request": True, "id": self._last_id, "method": method, "data": data})
        self._waiting[self._last_id] = (time.perf_counter(), answered)
        self.transport.send(WSMsgType.TEXT, frame)
        return answered

    async def prepare(self) -> None:
        """Joins and sends one microphone."""
        await self.send("mediasoup-request", {"method": "queryRoom"})
        capabilities = self._answers.pop(self._last_id)["rtpCapabilities"]
        join = {"method": "join", "peerName": self.peer, "rtpCapabilities": capabilities}
        await self.send("mediasoup-request", join)
        for peer in self._answers.pop(self._last_id, {"peers": []})["peers"]:
            self._consumers += [consumer["id"] for consumer in peer["consumers"]]
        transport = {"id": 1, "direction": "send", "options": {}, "dtlsParameters": FINGERPRINT}
        await self.send("mediasoup-request", {"method": "createTransport", **transport})
        producer = {"id": 2, "kind": "audio", "transportId": 1, "rtpParameters": audio(1000)}
        await self.send("mediasoup-request", {"method": "createProducer", **producer})
        self._answers.clear()

    async def enable(self) -> None:
        """Receives everybody else in the room."""
        await self.send("mediasoup-request", {"method": "createTransport", "id": 3, "direction": "recv"})
        for consumer in self._consumers:
            await self.send("mediasoup-request", {"method": "enableConsumer", "id": consumer, "transportId": 3})
        self._answers.clear()

    def ask(self) -> "asyncio.Future[float]":
        self._paused = not self._paused
        method = "pauseProducer" if self._paused else "resumeProducer"
        return self.send("mediasoup-notification", {"method": method, "id": 2})

    async def flood(self, until: float, window: int) -> list[float]:
        """Keeps `window` requests in flight until then; the latencies."""
        latencies: list[float] = []

        async def one_after_another() -> None:
            while time.perf_counter() < until:
                latencies.append(await self.ask())

        await asyncio.gather(*(one_after_another() for _ in range(window)))
        return latencies

    def close(self) -> None:
        self.transport.disconnect()
