"""A peer: a participant that has joined (§join, §leave)."""

from typing import TYPE_CHECKING

from msgspec import UNSET

from roomworker.core import consumers, producers, transports
from roomworker.core.limits import check_count
from roomworker.core.record import Record
from roomworker.core.rtp import ortc
from shared.errors import Conflict, Forbidden
from shared.protocol import client
from shared.protocol.rtp import RtpCapabilities

if TYPE_CHECKING:
    from roomworker.core.consumers import Consumer
    from roomworker.core.producers import Producer
    from roomworker.core.room import Room
    from roomworker.core.sessions import Session
    from roomworker.core.transports import Transport


class PeerData(Record):
    """Stored as `peer|<name>`. A `spy` sees the others, unseen.

    `number` orders peers by arrival. `generation` counts what the peer's media objects were closed, so that an
    engine id is never used twice.
    """

    name: str
    number: int
    rtp_capabilities: RtpCapabilities
    generation: int = 0
    spy: bool = False
    app_data: client.AppData = UNSET


class Peer:
    __slots__ = ("_capability_key", "consumers", "data", "name", "producers", "session", "transports")

    def __init__(self, data: PeerData, session: "Session") -> None:
        self.data = data
        self.name = data.name
        self.session = session
        self.transports: dict[int, Transport] = {}
        self.producers: dict[int, Producer] = {}
        self.consumers: dict[int, Consumer] = {}
        self._capability_key: str | None = None

    @property
    def field(self) -> str:
        return f"peer|{self.name}"

    @property
    def capability_key(self) -> str:
        """Equal for peers that are sent equal consumer parameters."""
        if self._capability_key is None:
            self._capability_key = ortc.capability_key(self.data.rtp_capabilities)
        return self._capability_key


def join(room: "Room", session: "Session", message: client.Join) -> client.Joined:
    if message.peer_name != session.peer:
        raise Forbidden(f"peerName: this connection belongs to peer {session.peer!r}")
    if session.peer in room.peers:
        raise Conflict("peerName: already joined")
    check_count(len(room.peers), room.limits.peers, "peers of a room")
    room.limits.check_app_data(message.app_data)
    ortc.assert_subset(message.rtp_capabilities, room.rtp_capabilities)

    data = PeerData(
        name=session.peer,
        number=room.take_number(),
        rtp_capabilities=message.rtp_capabilities,
        spy=message.spy,
        app_data=client.copy_app_data(message.app_data),
    )
    peer = Peer(data, session)
    session.joins += 1
    others = list(room.peers.values())
    room.peers[peer.name] = peer
    room.save(peer.field, data)
    if not data.spy:
        room.notify(others, client.NewPeer(name=peer.name, app_data=data.app_data))
    return client.Joined(peers=[_describe(room, other, peer) for other in others if not other.data.spy])


def leave(room: "Room", peer: Peer, message: client.Leave) -> client.Nothing:
    room.limits.check_app_data(message.app_data)
    close(room, peer, message.app_data)
    return client.Nothing()


def close(room: "Room", peer: Peer, app_data: client.AppData = UNSET) -> None:
    """The peer is gone: others learn that once, not object by object (as the published Peer does)."""
    discard(room, peer)
    if not peer.data.spy:
        room.notify(room.peers.values(), client.PeerClosed(name=peer.name, app_data=app_data))


def discard(room: "Room", peer: Peer) -> None:
    """Takes the peer and all that it has out of the room."""
    del room.peers[peer.name]
    for source in list(peer.producers.values()):
        producers.discard(room, peer, source)
    for fed in list(peer.consumers.values()):
        consumers.drop(room, peer, fed)
    for carrier in list(peer.transports.values()):
        transports.discard(room, peer, carrier)
    room.forget(peer.field)
    if not room.peers:
        room.unplace()


def _describe(room: "Room", peer: Peer, to: Peer) -> client.PeerInfo:
    return client.PeerInfo(
        name=peer.name,
        consumers=[consumers.describe(room, peer, source, to) for source in peer.producers.values()],
        app_data=peer.data.app_data,
    )
