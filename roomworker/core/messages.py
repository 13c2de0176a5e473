"""Relays messages between peers: applications' own data, in order with the messages of the protocol."""

from msgspec import Raw

from roomworker.core.journal import RECEIVER_BYTES
from roomworker.core.model import Peer, Session
from roomworker.core.room import Room
from shared.errors import Conflict, NotFound, TooLarge, quoted
from shared.protocol import client, protoo


def relay(room: Room, session: Session, message: client.Message) -> client.Nothing:
    """Sends a peer's message to one other peer, or to all others."""
    sender = room.peers.get(session.peer)
    if sender is None:
        raise Conflict("peer: join first")
    receiver = None
    if message.to is not None:
        receiver = room.peers.get(message.to)
        if receiver is None:
            raise NotFound(f"to: no peer {quoted(message.to)}")
    receivers = len(room.peers) - 1 if receiver is None else 1
    size = len(message.data)
    cost = (size + RECEIVER_BYTES) * receivers
    room.fan_out.check_message(session.peer, cost, size, room.sent_bytes, room.kept_bytes, room.now)
    send(room, message.data, receiver, sender)
    return client.Nothing()


def send(room: Room, data: Raw, to: Peer | None, sender: Peer | None = None) -> None:
    """Sends `data` to one peer, or to all but the sender. `sender` None: the application's server."""
    if len(data) > room.limits.message_bytes:
        raise TooLarge(f"data: larger than {room.limits.message_bytes} bytes")
    receivers = [peer for peer in room.peers.values() if peer is not sender] if to is None else [to]
    room.send_to_peers(receivers, lambda: protoo.message_frame(data, sender.name if sender else None))
