"""A producer: media that a peer sends (§createProducer … §closeProducer)."""

from collections import defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

from msgspec import UNSET

from roomworker import consumer, ortc, transport
from roomworker.record import Record
from roomworker.steps import Steps
from shared.errors import Conflict, NotFound
from shared.protocol import client, media
from shared.protocol.rtp import Kind, PayloadTypeMapping, RtpParameters

if TYPE_CHECKING:
    from roomworker.peer import Peer
    from roomworker.room import Room


class Producer(Record):
    """Stored as `producer|<id>|<peer>`.

    `number` is its number in the room; its consumers have it as their id, for every receiver, so that receivers
    can share one message (DELIVERY O4). Paused remotely is by its own client, locally by the server.
    """

    id: int
    number: int
    engine: str
    transport: int
    kind: Kind
    rtp_parameters: RtpParameters
    payload_types: list[PayloadTypeMapping]
    mapped_ssrcs: list[int]
    remotely_paused: bool = False
    locally_paused: bool = False
    app_data: client.AppData = UNSET

    @property
    def paused(self) -> bool:
        return self.remotely_paused or self.locally_paused


def field(peer: "Peer", producer_id: int) -> str:
    return f"producer|{producer_id}|{peer.name}"


def find(peer: "Peer", producer_id: int) -> Producer:
    producer = peer.producers.get(producer_id)
    if producer is None:
        raise NotFound(f"id: no producer {producer_id}")
    return producer


def create(room: "Room", peer: "Peer", message: client.CreateProducer) -> Steps[client.Nothing]:
    if message.id in peer.producers:
        raise Conflict(f"id: producer {message.id} exists")
    carrier = transport.find(peer, message.transport_id, "transportId")
    if carrier.direction != "send":
        raise Conflict(f"transportId: transport {carrier.id} is for receiving")
    payload_types = ortc.producer_mapping(message.rtp_parameters, message.kind, room.rtp_capabilities)
    sent = ortc.sort_encodings(message.rtp_parameters)
    engine = room.engine_id(peer, "producer", message.id)
    # from the engine id, not from a counter: a successor that redoes this message must find the same producer
    mapped = ortc.ssrcs(crc32(engine.encode()) % ortc.SSRC_BLOCKS, len(sent.encodings)).mapped
    with room.releasing(peer, "producer", engine) as here:
        yield media.Produce(
            router=room.router,
            transport=carrier.engine,
            producer=engine,
            kind=message.kind,
            rtp_parameters=sent,
            payload_types=payload_types,
            mapped_ssrcs=mapped,
            paused=message.paused,
        )
        here.check()
        if peer.transports.get(carrier.id) is not carrier:
            raise NotFound(f"transportId: transport {carrier.id} was closed")
    producer = Producer(
        id=message.id,
        number=room.take_number(),
        engine=engine,
        transport=carrier.id,
        kind=message.kind,
        rtp_parameters=sent,
        payload_types=payload_types,
        mapped_ssrcs=mapped,
        remotely_paused=message.paused,
        app_data=client.kept(message.app_data),
    )
    peer.producers[producer.id] = producer
    room.sources[producer.number] = (peer, producer)
    room.save(field(peer, producer.id), producer)
    _announce(room, peer, producer)
    return client.Nothing()


def _announce(room: "Room", peer: "Peer", producer: Producer) -> None:
    """newConsumer for everybody else; receivers with equal capabilities share the message."""
    groups: dict[str, list[Peer]] = defaultdict(list)
    for other in room.peers.values():
        if other is not peer:
            groups[other.capability_key].append(other)
    for receivers in groups.values():
        room.notify(receivers, consumer.announcement(room, peer, producer, receivers[0]))


def pause(room: "Room", peer: "Peer", message: client.PauseProducer) -> client.Nothing:
    producer = find(peer, message.id)
    _set_paused(room, peer, producer, remotely=True)
    return client.Nothing()


def resume(room: "Room", peer: "Peer", message: client.ResumeProducer) -> client.Nothing:
    producer = find(peer, message.id)
    _set_paused(room, peer, producer, remotely=False)
    return client.Nothing()


def _set_paused(room: "Room", peer: "Peer", producer: Producer, *, remotely: bool) -> None:
    if producer.remotely_paused == remotely:
        return
    before = producer.paused
    producer.remotely_paused = remotely
    room.save(field(peer, producer.id), producer)
    if producer.paused == before:
        return
    if producer.paused:
        room.order(media.Pause(object=producer.engine, v=room.next_n, kind="producer"))
    else:
        room.order(media.Resume(object=producer.engine, v=room.next_n, kind="producer"))
    consumer.source_changed(room, peer, producer)


def close(room: "Room", peer: "Peer", message: client.CloseProducer) -> client.Nothing:
    """An unknown producer is not an error: the client may close one that the server just closed."""
    producer = peer.producers.get(message.id)
    if producer is not None:
        end(room, peer, producer)
        room.release(peer, "producer", producer.engine)
    return client.Nothing()


def end(room: "Room", peer: "Peer", producer: Producer) -> None:
    """It is closed; every other peer loses a consumer (consumerClosed)."""
    receivers = [other for other in room.peers.values() if other is not peer]
    discard(room, peer, producer)
    room.notify(receivers, client.ConsumerClosed(id=producer.number, peer_name=peer.name))


def discard(room: "Room", peer: "Peer", producer: Producer) -> None:
    """Takes it and its consumers out of the room; the engine closes them with the transport, or is told to."""
    del peer.producers[producer.id]
    del room.sources[producer.number]
    room.forget_derived(producer)
    for other in room.peers.values():
        fed = other.consumers.get(producer.number)
        if fed is not None:
            consumer.drop(room, other, fed)
    room.forget(field(peer, producer.id))
