"""Participants whose sessions outlive their connections."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from loadtest.client.protoo import ProtooClient, Refusal
from shared.protocol.client import MESSAGE
from tests.support.gateways import PATIENCE, Client
from tests.support.peer import Peer


class _Frames:
    """Looks to a `Peer` like a `Client`: one frame after another."""

    def __init__(self) -> None:
        self.protoo: ProtooClient
        self._frames: deque[dict[str, Any]] = deque()
        self._arrived = asyncio.Event()

    def add(self, frame: dict[str, Any]) -> None:
        self._frames.append(frame)
        self._arrived.set()

    def request(self, data: Any = None, method: str = "mediasoup-request") -> int:
        answer = self.protoo.ask(data, method)
        id_ = id(answer)
        answer.add_done_callback(lambda answer: self._answered(id_, answer))
        return id_

    def _answered(self, id_: int, answer: "asyncio.Future[Any]") -> None:
        match answer.exception():
            case None:
                self.add({"response": True, "id": id_, "ok": True, "data": answer.result()})
            case Refusal(code=code, reason=reason):
                self.add({"response": True, "id": id_, "errorCode": code, "errorReason": reason})
            case failed:
                self.add({"response": True, "id": id_, "errorCode": 0, "errorReason": repr(failed)})

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not self._frames:
                self._arrived.clear()
                await self._arrived.wait()
        return self._frames.popleft()


class ResumingPeer(Peer):
    """`messages` are those of other peers, in the order in which they came."""

    def __init__(self, frames: _Frames, name: str) -> None:
        super().__init__(cast("Client", frames), name)
        self._frames = frames
        self.messages: list[Any] = []

    @classmethod
    async def at(cls, urls: Sequence[str], room: str, name: str) -> "ResumingPeer":
        """`urls` are gateways (http://…), tried in turn."""
        frames = _Frames()
        peer = cls(frames, name)
        addresses = [url.replace("http", "ws", 1) for url in urls]
        frames.protoo = ProtooClient(addresses[0], room, name, urls=addresses, on_notification=peer._notified)
        await frames.protoo.open()
        return peer

    @property
    def protoo(self) -> ProtooClient:
        return self._frames.protoo

    def _notified(self, method: str, data: Any) -> None:
        if method == MESSAGE:
            self.messages.append(data["data"])
        self._frames.add({"notification": True, "method": method, "data": data})

    def say(self, data: Any) -> None:
        """To all others, in one frame that nobody answers."""
        self.protoo.notify({"data": data}, MESSAGE)

    async def hears(self, count: int) -> None:
        """Waits until that many messages of others have come."""
        while len(self.messages) < count:
            await self.take()

    def check(self) -> None:
        """That the server's numbers were without gap or repetition."""
        ledger = self.protoo.ledger
        assert (ledger.duplicates, ledger.gaps) == (0, 0)

    async def close(self) -> None:
        await self.protoo.close()
