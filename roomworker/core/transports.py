"""Handles transports, a peer's WebRTC transports (§createTransport … §closeTransport)."""

from roomworker.core import teardown
from roomworker.core.budget import size_of_transport
from roomworker.core.limits import check_count
from roomworker.core.media_steps import Steps, expect
from roomworker.core.model import Peer, Transport
from roomworker.core.room import Room
from shared.errors import Conflict, NotFound, PlenaryError
from shared.protocol import client, media


def find(peer: Peer, transport_id: int, field: str = "id") -> Transport:
    """Returns the peer's transport. Raises `NotFound`, whose reason names the message's `field`."""
    transport = peer.transports.get(transport_id)
    if transport is None:
        raise NotFound(f"{field}: no transport {transport_id}")
    return transport


def create(room: Room, peer: Peer, message: client.CreateTransport) -> Steps[client.TransportInfo]:
    """Makes a transport on the room's media node, which the room gets if it has none (§createTransport)."""
    if message.id in peer.transports:
        raise Conflict(f"id: transport {message.id} exists")
    check_count(len(peer.transports), room.limits.transports_per_peer, "transports of a peer")
    room.limits.check_app_data(message.app_data)
    with room.reserving(peer, size_of_transport(message.app_data)):
        yield from room.place()
        transport, created = yield from _make(room, peer, message)
    peer.transports[transport.id] = transport
    room.save(peer.field_of(transport), transport)
    if transport.direction == "send" and room.limits.max_incoming_bitrate:
        limit_bitrate(room, transport, room.limits.max_incoming_bitrate)
    return client.TransportInfo(
        ice_parameters=created.ice_parameters,
        ice_candidates=created.ice_candidates,
        dtls_parameters=created.dtls_parameters,
    )


def _make(room: Room, peer: Peer, message: client.CreateTransport) -> Steps[tuple[Transport, media.TransportCreated]]:
    """Makes a transport on the media node; the room does not have it yet."""
    options = message.options or client.TransportOptions()
    engine = room.engine_id(peer, "transport", message.id)
    with room.releasing(peer, "transport", engine) as guard:
        created = expect(
            (
                yield media.CreateTransport(
                    router=room.router,
                    transport=engine,
                    udp=options.udp,
                    tcp=options.tcp,
                    prefer_udp=options.prefer_udp,
                    prefer_tcp=options.prefer_tcp,
                    dtls_parameters=message.dtls_parameters,
                )
            ),
            media.TransportCreated,
        )
        guard.check()
    transport = Transport(
        id=message.id,
        engine=engine,
        direction=message.direction,
        connected=message.dtls_parameters is not None,
        app_data=client.copy_app_data(message.app_data),
    )
    return transport, created


def update(room: Room, peer: Peer, message: client.UpdateTransport) -> Steps[client.Nothing]:
    """Connects a receiving transport. One that cannot be connected is closed, as by the published Peer."""
    transport = find(peer, message.id)
    if message.dtls_parameters is None:
        return client.Nothing()
    if transport.connected:
        raise Conflict(f"id: transport {message.id} is connected")
    guard = room.guard(peer)
    try:
        yield media.ConnectTransport(
            router=room.router, transport=transport.engine, dtls_parameters=message.dtls_parameters
        )
    except PlenaryError:
        if peer.transports.get(message.id) is transport:
            teardown.close_transport_by_server(room, peer, transport)
        raise
    guard.check()
    if find(peer, message.id) is not transport:
        raise NotFound(f"id: transport {message.id} was replaced")
    transport.connected = True
    room.save(peer.field_of(transport), transport)
    return client.Nothing()


def restart(room: Room, peer: Peer, message: client.RestartTransport) -> Steps[client.TransportRestarted]:
    """Restarts ICE: the client gets new ICE parameters (§restartTransport)."""
    transport = find(peer, message.id)
    guard = room.guard(peer)
    restarted = expect(
        (yield media.RestartIce(router=room.router, transport=transport.engine, generation=transport.restarts + 1)),
        media.IceRestarted,
    )
    guard.check()
    if peer.transports.get(message.id) is not transport:
        raise NotFound(f"id: transport {message.id} was closed")
    transport.restarts += 1
    room.save(peer.field_of(transport), transport)
    return client.TransportRestarted(ice_parameters=restarted.ice_parameters)


def limit_bitrate(room: Room, transport: Transport, bitrate: int) -> None:
    """Limits the incoming bitrate of a sending transport, bits per second; 0 removes the limit."""
    room.order(media.SetMaxIncomingBitrate(object=transport.engine, v=room.next_n, bitrate=bitrate))


def close(room: Room, peer: Peer, message: client.CloseTransport) -> client.Nothing:
    """Closes the transport and its producers; its consumers are disabled (§closeTransport)."""
    teardown.close_transport(room, peer, find(peer, message.id))
    return client.Nothing()
