"""Handles peers, the participants that have joined (§join, §leave)."""

from roomworker.core import consumers, teardown, told_app_data
from roomworker.core.budget import size_of_peer
from roomworker.core.limits import check_count
from roomworker.core.model import Peer, PeerData, Session
from roomworker.core.room import Room
from roomworker.core.rtp import ortc
from shared.errors import Conflict, Forbidden, quoted
from shared.protocol import client


def join(room: Room, session: Session, message: client.Join) -> client.Joined:
    """Adds the session's peer to the room; the others are notified, unless it is a spy (§join)."""
    if message.peer_name != session.peer:
        raise Forbidden(f"peerName: this connection belongs to peer {quoted(session.peer)}")
    if session.peer in room.peers:
        raise Conflict("peerName: already joined")
    check_count(len(room.peers), room.limits.peers, "peers of a room")
    room.limits.check_app_data(message.app_data)
    told_app_data.check(room, None, message.app_data)
    ortc.assert_subset(message.rtp_capabilities, room.rtp_capabilities)
    size = size_of_peer(message.rtp_capabilities, message.app_data)
    room.budget.check(session.peer, size, room.limits)

    data = PeerData(
        name=session.peer,
        number=room.take_number(),
        rtp_capabilities=message.rtp_capabilities,
        spy=message.spy,
        app_data=client.copy_app_data(message.app_data),
    )
    room.budget.add(session.peer, size)
    peer = Peer(data, session)
    session.joins += 1
    others = list(room.peers.values())
    room.peers[peer.name] = peer
    room.save(peer.field, data)
    if not data.spy:
        room.notify(others, client.NewPeer(name=peer.name, app_data=data.app_data))
    return client.Joined(peers=[_describe(room, other, peer) for other in others if not other.data.spy])


def leave(room: Room, peer: Peer, message: client.Leave) -> client.Nothing:
    """Takes the peer out of the room; its session stays open (§leave)."""
    room.limits.check_app_data(message.app_data)
    teardown.close_peer(room, peer, message.app_data)
    return client.Nothing()


def _describe(room: Room, peer: Peer, receiver: Peer) -> client.PeerInfo:
    return client.PeerInfo(
        name=peer.name,
        consumers=[consumers.describe(room, peer, producer, receiver) for producer in peer.producers.values()],
        app_data=peer.data.app_data,
    )
