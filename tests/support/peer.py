"""A participant without a browser: speaks the protocol as the unmodified client does, media left out."""

import asyncio
import itertools
from typing import Any
from urllib.parse import quote

from tests.support.gateways import PATIENCE, Client

FINGERPRINT = {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": "A1:B2:C3"}]}


class Refusal(Exception):
    """The answer was an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def audio(ssrc: int) -> dict[str, Any]:
    """rtpParameters of a microphone."""
    return {
        "codecs": [
            {
                "name": "opus",
                "mimeType": "audio/opus",
                "kind": "audio",
                "payloadType": 111,
                "clockRate": 48000,
                "channels": 2,
                "rtcpFeedback": [],
                "parameters": {"minptime": 10, "useinbandfec": 1},
            }
        ],
        "headerExtensions": [],
        "encodings": [{"ssrc": ssrc}],
        "rtcp": {"cname": f"cname-{ssrc}", "reducedSize": True, "mux": True},
    }


class Peer:
    """`notifications` has what came, oldest first; `consumers` what it may enable."""

    def __init__(self, client: Client, name: str) -> None:
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
        address = f"{url.replace('http', 'ws', 1)}/ws?roomId={quote(room, safe='')}&peerName={quote(name, safe='')}"
        return cls(await Client.at(address), name)

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
                gone = [id_ for id_, consumer in self.consumers.items() if consumer["peerName"] == data["name"]]
                for id_ in gone:
                    del self.consumers[id_]
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
        self.client.transport.send_close(1000)
        await self.client.until_closed()
