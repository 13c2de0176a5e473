"""A participant without a browser: speaks the protocol as the unmodified client does, media left out."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from loadtest.client.rtp import FINGERPRINT, audio
from shared.protocol.client import REQUEST
from tests.support.waiting import PATIENCE

__all__ = ["Peer", "Refusal"]


class Frames:
    """The shared client, read one frame after another: notifications and answers in the order in which they came.

    `closed` gets code and reason of the close that ended the session.
    """

    def __init__(self, urls: Sequence[str], room: str, name: str, *, resumable: bool) -> None:
        self.frames: deque[dict[str, Any]] = deque()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._arrived = asyncio.Event()
        self._ids = itertools.count(1)
        addresses = [url.replace("http", "ws", 1) for url in urls]
        self._typed: set[Any] = set()
        """Ids of requests that were given to `send` as text."""
        hooks = Hooks(notified=self.notified, frame=self._answers_text)
        self.protoo = ProtooClient(addresses[0], room, name, urls=addresses, resumable=resumable, hooks=hooks)
        self.protoo.ended.add_done_callback(lambda ended: self._ended(ended.result()))

    def _ended(self, why: Ended) -> None:
        self.closed.set_result((why.code, why.reason))

    def notified(self, method: str, data: Any) -> None:
        self._add({"notification": True, "method": method, "data": data})

    def _add(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        self._arrived.set()

    def request(self, data: Any = None, method: str = REQUEST) -> int:
        """Sends a request; its answer is the frame with the id that this returns."""
        id_ = next(self._ids)

        def answered(result: Any, failure: Refusal | Ended | None) -> None:
            frame = {"response": True, "id": id_}
            match failure:
                case None:
                    self._add(frame | {"ok": True, "data": result})
                case Refusal(code=code, reason=reason):
                    self._add(frame | {"errorCode": code, "errorReason": reason})
                case Ended():
                    self._add(frame | {"errorCode": 0, "errorReason": repr(failure)})

        self.protoo.post(data, answered, method)
        return id_

    def send(self, text: str | bytes) -> None:
        """Sends any text, whether it is a frame of the protocol or not."""
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            self._typed.add(orjson.loads(text)["id"])
        self.protoo.send_encoded(text.encode() if isinstance(text, str) else text)

    def _answers_text(self, body: bytes) -> bool:
        """Takes an answer to what was sent as text: the client does not know of that request."""
        if not self._typed:
            return False
        frame = orjson.loads(body)
        if not frame.get("response") or frame["id"] not in self._typed:
            return False
        self._add(frame)
        return True

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not self.frames:
                self._arrived.clear()
                await self._arrived.wait()
        return self.frames.popleft()

    async def until_closed(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self.closed)


class Peer:
    """`notifications` has what came, oldest first; `consumers` what it may enable."""

    def __init__(self, client: Frames, name: str) -> None:
        self.client = client
        self.name = name
        self.notifications: list[dict[str, Any]] = []
        self.consumers: dict[int, dict[str, Any]] = {}
        self.capabilities: dict[str, Any] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count(1000)

    @classmethod
    async def connect(cls, url: str, room: str, name: str) -> "Peer":
        """`url` is a gateway's, http://…"""
        client = Frames([url], room, name, resumable=False)
        await client.protoo.open()
        return cls(client, name)

    async def take(self) -> dict[str, Any]:
        """The next frame, sorted where it belongs."""
        frame = await self.client.receive()
        if frame.get("response"):
            self._answers[frame["id"]] = frame
        elif frame["method"] == "mediasoup-notification":
            data = frame["data"]
            self.notifications.append(data)
            if data["method"] == "newConsumer":
                self.consumers[data["id"]] = data
            elif data["method"] == "consumerClosed":
                self.consumers.pop(data["id"], None)
            elif data["method"] == "peerClosed":
                others = {i: it for i, it in self.consumers.items() if it["peerName"] != data["name"]}
                self.consumers = others
        return frame

    async def answer(self, id_: int) -> Any:
        """Raises `Refusal`."""
        while id_ not in self._answers:
            await self.take()
        frame = self._answers.pop(id_)
        if not frame.get("ok"):
            raise Refusal(frame["errorCode"], frame["errorReason"])
        return frame["data"]

    async def request(self, method: str, **fields: Any) -> Any:
        return await self.answer(self.client.request({"method": method, **fields}))

    async def confirmed(self, method: str, **fields: Any) -> Any:
        """A mediasoup notification sent as a protoo request, so that its being applied is seen."""
        message = {"method": method, "notification": True, **fields}
        return await self.answer(self.client.request(message, "mediasoup-notification"))

    async def notified(self, method: str, **fields: Any) -> dict[str, Any]:
        """Waits for a notification with these fields; it is taken from the list."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, notification in enumerate(self.notifications):
                    if notification["method"] == method and fields.items() <= notification.items():
                        return self.notifications.pop(at)
                await self.take()

    async def join(self, **fields: Any) -> list[dict[str, Any]]:
        """The peers that are there."""
        self.capabilities = (await self.request("queryRoom"))["rtpCapabilities"]
        joined = await self.request("join", peerName=self.name, rtpCapabilities=self.capabilities, **fields)
        peers: list[dict[str, Any]] = joined["peers"]
        for peer in peers:
            for consumer in peer["consumers"]:
                self.consumers[consumer["id"]] = consumer
        return peers

    async def transports(self) -> tuple[int, int]:
        """A sending and a receiving transport; their ids."""
        send, recv = next(self._ids), next(self._ids)
        await self.request("createTransport", id=send, direction="send", options={}, dtlsParameters=FINGERPRINT)
        await self.request("createTransport", id=recv, direction="recv", options={})
        await self.confirmed("updateTransport", id=recv, dtlsParameters=FINGERPRINT)
        return send, recv

    async def offered_transport(self) -> int | None:
        """A sending transport; None while there is no media node."""
        try:
            return (await self.transports())[0]
        except Refusal as refusal:
            if refusal.code != 503:
                raise
            return None

    async def produce(self, transport: int) -> int:
        producer = next(self._ids)
        await self.request(
            "createProducer", id=producer, kind="audio", transportId=transport, rtpParameters=audio(producer)
        )
        return producer

    async def close(self) -> None:
        await self.client.protoo.close()
