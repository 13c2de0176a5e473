"""Cascades of closing: which object closes which others, and who is notified.

    room ─▶ sessions ─▶ peer ─▶ transports ─▶ producers ─▶ consumers of other peers
                             └▶ producers, consumers

Names follow one rule. `close_…_by_server` notifies the owner and then does the same as `close_…`; `close_…` notifies
the other peers and orders the engine to close; `remove_…` takes the object and everything on it out of the room and
notifies no peer.
"""

from msgspec import UNSET

from roomworker.core.budget import size_of, size_of_session
from roomworker.core.model import Consumer, Peer, Producer, Session, Transport
from roomworker.core.room import Room
from shared.errors import ROOM_CLOSED, CloseKind
from shared.protocol import client

# --- rooms ----------------------------------------------------------------------------------------------------


def close_room_by_server(room: Room, app_data: client.AppData = UNSET, why: CloseKind = ROOM_CLOSED) -> None:
    """Sends every peer `closed` and closes every socket with the close code of `why`.

    The settings that the room was created with are deleted.
    """
    room.notify(room.peers.values(), client.Closed(app_data=app_data))
    for peer in list(room.peers.values()):
        remove_peer(room, peer)  # all of them first, so that no remaining peer has to be notified
    for session in list(room.sessions.values()):
        close_session_by_server(room, session, why)
    forget_creation(room)


def forget_creation(room: Room) -> None:
    """Makes the room one that exists only while it has sessions."""
    room.meta.created = None
    room.configure()  # as a worker that loads the room would find it
    room.save_meta()


def lose_media_node(room: Room) -> None:
    """Closes every transport, after the room's media node or its engine has died, and takes the room off the node.

    The node is ordered to close what it has of the room, in case it is alive after all.
    """
    for peer in list(room.peers.values()):
        for transport in list(peer.transports.values()):
            close_transport_by_server(room, peer, transport)
    room.unplace()


# --- sessions and peers ---------------------------------------------------------------------------------------


def close_session_by_server(room: Room, session: Session, why: CloseKind, app_data: client.AppData = UNSET) -> None:
    """Closes the session and its socket, with the close code of `why`."""
    room.send(session, why.reason.encode(), why.code)
    close_session(room, session, app_data)


def close_session(room: Room, session: Session, app_data: client.AppData = UNSET) -> None:
    """Closes the session and its peer; its last numbers are recorded."""
    peer = room.peers.get(session.peer)
    if peer is not None and peer.session is session:
        close_peer(room, peer, app_data)
    del room.sessions[session.id]
    del room.session_of[session.peer]
    room.budget.add_to_room(-size_of_session(session))
    room.fan_out.depart(session.peer, room.now)
    room.delete(session.field)
    room.record_closed_session(session)


def close_peer(room: Room, peer: Peer, app_data: client.AppData = UNSET) -> None:
    """Closes the peer: the others are sent `peerClosed` and nothing about its objects (as in the published Peer)."""
    remove_peer(room, peer)
    if not peer.data.spy:
        room.notify(room.peers.values(), client.PeerClosed(name=peer.name, app_data=app_data))


def remove_peer(room: Room, peer: Peer) -> None:
    """Removes the peer with all its objects; the last peer's removal takes the room off its media node."""
    del room.peers[peer.name]
    for producer in list(peer.producers.values()):
        remove_producer(room, peer, producer)
    for consumer in list(peer.consumers.values()):
        remove_consumer(room, peer, consumer)
    for transport in list(peer.transports.values()):
        remove_transport(room, peer, transport)
    room.budget.add(peer.name, -size_of(peer.data))
    room.delete(peer.field)
    if not room.peers:
        room.unplace()


# --- transports -----------------------------------------------------------------------------------------------


def close_transport_by_server(room: Room, peer: Peer, transport: Transport, app_data: client.AppData = UNSET) -> None:
    """Closes the transport; its peer is sent `transportClosed`."""
    room.notify([peer], client.TransportClosed(id=transport.id, app_data=app_data))
    close_transport(room, peer, transport)


def close_transport(room: Room, peer: Peer, transport: Transport) -> None:
    """Closes the transport and its producers. Its consumers are only disabled: another transport may carry them."""
    for producer in [producer for producer in peer.producers.values() if producer.transport == transport.id]:
        _close_producer_on_transport(room, peer, producer)
    for consumer in list(peer.consumers.values()):
        if consumer.transport == transport.id:
            _disable_consumer(room, peer, consumer)
    remove_transport(room, peer, transport)


def remove_transport(room: Room, peer: Peer, transport: Transport) -> None:
    """Removes the transport, which the engine closes with everything on it."""
    del peer.transports[transport.id]
    room.budget.add(peer.name, -size_of(transport))
    room.delete(peer.field_of(transport))
    room.release(peer, "transport", transport.engine)


# --- producers ------------------------------------------------------------------------------------------------


def close_producer_by_server(room: Room, peer: Peer, producer: Producer, app_data: client.AppData) -> None:
    """Closes the producer; its peer is sent `producerClosed`."""
    room.notify([peer], client.ProducerClosed(id=producer.id, app_data=app_data))
    close_producer(room, peer, producer)


def close_producer(room: Room, peer: Peer, producer: Producer) -> None:
    """Closes the producer; every other peer loses a consumer and is sent `consumerClosed`."""
    _close_producer_on_transport(room, peer, producer)
    room.release(peer, "producer", producer.engine)


def _close_producer_on_transport(room: Room, peer: Peer, producer: Producer) -> None:
    """Closes the producer without an order to the engine, which closes it with its transport."""
    receivers = [other for other in room.peers.values() if other is not peer]
    remove_producer(room, peer, producer)
    room.notify(receivers, client.ConsumerClosed(id=producer.number, peer_name=peer.name))


def remove_producer(room: Room, peer: Peer, producer: Producer) -> None:
    """Removes the producer and its consumers; the engine closes it with its transport, or by an order."""
    del peer.producers[producer.id]
    room.budget.add(peer.name, -size_of(producer))
    del room.producers_by_number[producer.number]
    room.forget_consumer_parameters(producer)
    for receiver in room.peers.values():
        consumer = receiver.consumers.get(producer.number)
        if consumer is not None:
            remove_consumer(room, receiver, consumer)
    room.delete(peer.field_of(producer))


# --- consumers ------------------------------------------------------------------------------------------------


def remove_consumer(room: Room, peer: Peer, consumer: Consumer) -> None:
    """Removes the consumer; the engine closes it with its producer or its transport."""
    _forget_engine_id(room, consumer)
    del peer.consumers[consumer.id]
    room.budget.add(peer.name, -size_of(consumer))
    room.delete(peer.field_of(consumer))


def _disable_consumer(room: Room, peer: Peer, consumer: Consumer) -> None:
    """Disables a consumer whose transport has closed: it may be enabled again on another."""
    _forget_engine_id(room, consumer)
    consumer.transport, consumer.engine = None, ""
    room.save(peer.field_of(consumer), consumer)


def _forget_engine_id(room: Room, consumer: Consumer) -> None:
    if consumer.engine:
        del room.consumers_by_engine[consumer.engine]
