"""A WebRTC transport of a peer (§createTransport … §closeTransport)."""

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

from roomworker.core import consumers, producers
from roomworker.core.limits import check_count
from roomworker.core.media_steps import Steps, expect
from roomworker.core.record import Record
from shared.errors import Conflict, NotFound, PlenaryError
from shared.protocol import client, media

if TYPE_CHECKING:
    from roomworker.core.peers import Peer
    from roomworker.core.room import Room


class Transport(Record):
    """Stored as `transport|<id>|<peer>`. `engine` is its engine id; `connected` once DTLS parameters are known."""

    id: int
    engine: str
    direction: Literal["send", "recv"]
    connected: bool = False
    restarts: int = 0
    stats_interval: int = 0
    app_data: client.AppData = UNSET


def field(peer: "Peer", transport_id: int) -> str:
    return f"transport|{transport_id}|{peer.name}"


def find(peer: "Peer", transport_id: int, named: str = "id") -> Transport:
    transport = peer.transports.get(transport_id)
    if transport is None:
        raise NotFound(f"{named}: no transport {transport_id}")
    return transport


def create(room: "Room", peer: "Peer", message: client.CreateTransport) -> Steps[client.TransportInfo]:
    if message.id in peer.transports:
        raise Conflict(f"id: transport {message.id} exists")
    check_count(len(peer.transports), room.limits.transports_per_peer, "transports of a peer")
    room.limits.check_app_data(message.app_data)
    yield from room.place()
    options = message.options or client.TransportOptions()
    engine = room.engine_id(peer, "transport", message.id)
    with room.releasing(peer, "transport", engine) as here:
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
        here.check()
    transport = Transport(
        id=message.id,
        engine=engine,
        direction=message.direction,
        connected=message.dtls_parameters is not None,
        app_data=client.copy_app_data(message.app_data),
    )
    peer.transports[transport.id] = transport
    room.save(field(peer, transport.id), transport)
    if transport.direction == "send" and room.limits.max_incoming_bitrate:
        limit_bitrate(room, transport, room.limits.max_incoming_bitrate)
    return client.TransportInfo(
        ice_parameters=created.ice_parameters,
        ice_candidates=created.ice_candidates,
        dtls_parameters=created.dtls_parameters,
    )


def update(room: "Room", peer: "Peer", message: client.UpdateTransport) -> Steps[client.Nothing]:
    """Connects a receiving transport. One that cannot be connected is closed, as in the published Peer."""
    transport = find(peer, message.id)
    if message.dtls_parameters is None:
        return client.Nothing()
    if transport.connected:
        raise Conflict(f"id: transport {message.id} is connected")
    here = room.here(peer)
    try:
        yield media.ConnectTransport(
            router=room.router, transport=transport.engine, dtls_parameters=message.dtls_parameters
        )
    except PlenaryError:
        if peer.transports.get(message.id) is transport:
            shut(room, peer, transport)
        raise
    here.check()
    if find(peer, message.id) is not transport:
        raise NotFound(f"id: transport {message.id} was replaced")
    transport.connected = True
    room.save(field(peer, transport.id), transport)
    return client.Nothing()


def restart(room: "Room", peer: "Peer", message: client.RestartTransport) -> Steps[client.TransportRestarted]:
    transport = find(peer, message.id)
    here = room.here(peer)
    restarted = expect(
        (yield media.RestartIce(router=room.router, transport=transport.engine, generation=transport.restarts + 1)),
        media.IceRestarted,
    )
    here.check()
    if peer.transports.get(message.id) is not transport:
        raise NotFound(f"id: transport {message.id} was closed")
    transport.restarts += 1
    room.save(field(peer, transport.id), transport)
    return client.TransportRestarted(ice_parameters=restarted.ice_parameters)


def limit_bitrate(room: "Room", transport: Transport, bitrate: int) -> None:
    """What a sending transport may bring at most, bits per second; 0: no limit."""
    room.order(media.SetMaxIncomingBitrate(object=transport.engine, v=room.next_n, bitrate=bitrate))


def close(room: "Room", peer: "Peer", message: client.CloseTransport) -> client.Nothing:
    """Closes its producers too; its consumers are only disabled."""
    _end(room, peer, find(peer, message.id))
    return client.Nothing()


def shut(room: "Room", peer: "Peer", transport: Transport, app_data: client.AppData = UNSET) -> None:
    """The server closes it: the peer is told (§transportClosed)."""
    room.notify([peer], client.TransportClosed(id=transport.id, app_data=app_data))
    _end(room, peer, transport)


def _end(room: "Room", peer: "Peer", transport: Transport) -> None:
    for source in [source for source in peer.producers.values() if source.transport == transport.id]:
        producers.end(room, peer, source)
    for fed in list(peer.consumers.values()):
        if fed.transport == transport.id:
            consumers.disable(room, peer, fed)
    discard(room, peer, transport)


def discard(room: "Room", peer: "Peer", transport: Transport) -> None:
    del peer.transports[transport.id]
    room.forget(field(peer, transport.id))
    room.release(peer, "transport", transport.engine)
