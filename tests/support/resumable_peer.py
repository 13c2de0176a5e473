"""Participants whose sessions outlive their connections."""

from collections.abc import Sequence
from typing import Any

from loadtest.client.protoo import ProtooClient
from shared.protocol.client import MESSAGE
from tests.support.peer import Frames, Peer


class ResumablePeer(Peer):
    """`messages` are those of other peers, in the order in which they came."""

    def __init__(self, client: Frames, name: str) -> None:
        super().__init__(client, name)
        self.messages: list[Any] = []

    @classmethod
    async def at(cls, urls: Sequence[str], room: str, name: str) -> "ResumablePeer":
        """`urls` are gateways (http://…), tried in turn."""
        client = _Frames(urls, room, name, resumable=True)
        peer = cls(client, name)
        client.messages = peer.messages
        await client.protoo.open()
        return peer

    @property
    def protoo(self) -> ProtooClient:
        return self.client.protoo

    def say(self, data: Any) -> None:
        """Sends a message to all others, in one frame that is not answered."""
        self.protoo.notify({"data": data}, MESSAGE)

    async def hears(self, count: int) -> None:
        """Waits until that many messages of others have come."""
        while len(self.messages) < count:
            await self.take()

    def check(self) -> None:
        """Asserts that the server's numbers had no gap and no repetition."""
        ledger = self.protoo.ledger
        assert (ledger.duplicates, ledger.gaps) == (0, 0)


class _Frames(Frames):
    """Keeps the messages of other peers as soon as they come, whether or not anybody reads frames."""

    messages: list[Any]

    def notified(self, method: str, data: Any) -> None:
        if method == MESSAGE:
            self.messages.append(data["data"])
        super().notified(method, data)
