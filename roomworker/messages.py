"""Messages between peers: whatever applications tell each other beside the protocol, in order with it."""

from typing import TYPE_CHECKING

from msgspec import Raw

from roomworker.peer import Peer
from shared.errors import Conflict, NotFound, TooLarge
from shared.protocol import client

if TYPE_CHECKING:
    from roomworker.room import Room
    from roomworker.session import Session


def relay(room: "Room", session: "Session", message: client.Message) -> client.Nothing:
    """From one peer to another, or to all others."""
    sender = room.peers.get(session.peer)
    if sender is None:
        raise Conflict("peer: join first")
    send(room, message.data, message.to or None, sender)
    return client.Nothing()


def send(room: "Room", data: Raw, to: str | None, sender: Peer | None = None) -> None:
    """`sender` None: the application's server."""
    if len(data) > room.limits.message_bytes:
        raise TooLarge(f"data: larger than {room.limits.message_bytes} bytes")
    if to is None:
        receivers = [peer for peer in room.peers.values() if peer is not sender]
    elif (receiver := room.peers.get(to)) is not None:
        receivers = [receiver]
    else:
        raise NotFound(f"to: no peer {to!r}")
    room.tell(receivers, lambda: client.message_frame(data, sender.name if sender else None))
