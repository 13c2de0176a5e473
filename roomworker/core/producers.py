"""Handles producers, the media that a peer sends (§createProducer … §closeProducer)."""

from collections import defaultdict
from zlib import crc32

from msgspec import UNSET, structs

from roomworker.core import consumers, teardown, told_app_data, transports
from roomworker.core.budget import size_of_producer
from roomworker.core.limits import check_count
from roomworker.core.media_steps import Steps
from roomworker.core.model import Peer, Producer, Transport
from roomworker.core.room import Room
from roomworker.core.rtp import ortc
from roomworker.core.rtp.ssrcs import SSRC_BLOCKS, derive_ssrcs
from shared.errors import BadPayload, Conflict, Forbidden, NotFound, PlenaryError
from shared.protocol import client, media
from shared.protocol.rtp import Kind, RtpParameters


def find(peer: Peer, producer_id: int) -> Producer:
    """Returns the peer's producer. Raises `NotFound`."""
    producer = peer.producers.get(producer_id)
    if producer is None:
        raise NotFound(f"id: no producer {producer_id}")
    return producer


def create(room: Room, peer: Peer, message: client.CreateProducer) -> Steps[client.Nothing]:
    """Makes a producer on the peer's sending transport; the others get a consumer of it (§createProducer)."""
    if message.id in peer.producers:
        raise Conflict(f"id: producer {message.id} exists")
    if peer.data.spy:
        raise Forbidden("peer: a spy cannot send")
    check_count(len(peer.producers), room.limits.producers_per_peer, "producers of a peer")
    room.limits.check_app_data(message.app_data)
    told_app_data.check(room, peer, message.app_data)
    transport = transports.find(peer, message.transport_id, "transportId")
    if transport.direction != "send":
        raise Conflict(f"transportId: transport {transport.id} is for receiving")
    size = size_of_producer(ortc.sort_encodings(message.rtp_parameters), message.app_data)
    with room.reserving(peer, size):
        producer = yield from _produce(
            room, peer, transport, message.id, message.kind, message.rtp_parameters, message.paused
        )
    producer.app_data = client.copy_app_data(message.app_data)
    _add(room, peer, producer)
    return client.Nothing()


def _produce(
    room: Room,
    peer: Peer,
    transport: Transport,
    producer_id: int,
    kind: Kind,
    rtp_parameters: RtpParameters,
    paused: bool,
    updates: int = 0,
) -> Steps[Producer]:
    """Makes a producer on the media node; the room does not have it yet."""
    payload_types = ortc.producer_mapping(rtp_parameters, kind, room.rtp_capabilities)
    sent = ortc.sort_encodings(rtp_parameters)
    engine = room.engine_id(peer, "producer", producer_id, updates)
    # derived from the engine id, not from a counter: a successor that redoes the message must find the same producer
    mapped = derive_ssrcs(crc32(engine.encode()) % SSRC_BLOCKS, len(sent.encodings)).mapped
    with room.releasing(peer, "producer", engine) as guard:
        yield media.Produce(
            router=room.router,
            transport=transport.engine,
            producer=engine,
            kind=kind,
            rtp_parameters=sent,
            payload_types=payload_types,
            mapped_ssrcs=mapped,
            paused=paused,
            updatable=is_updatable(sent),
        )
        guard.check()
        if peer.transports.get(transport.id) is not transport:
            raise NotFound(f"transportId: transport {transport.id} was closed")
    return Producer(
        id=producer_id,
        number=room.take_number(),
        engine=engine,
        transport=transport.id,
        kind=kind,
        rtp_parameters=sent,
        payload_types=payload_types,
        mapped_ssrcs=mapped,
        remotely_paused=paused,
        updates=updates,
    )


def is_updatable(sent: RtpParameters) -> bool:
    """Whether an `updateProducer` may follow: only clients without replaceTrack send it, and they send no muxId."""
    return not sent.mux_id and not ortc.is_simulcast(sent)


def _add(room: Room, peer: Peer, producer: Producer) -> None:
    peer.producers[producer.id] = producer
    room.producers_by_number[producer.number] = (peer, producer)
    room.save(peer.field_of(producer), producer)
    _announce(room, peer, producer)


def update(room: Room, peer: Peer, message: client.UpdateProducer) -> Steps[client.Nothing]:
    """Gives the producer other SSRCs, with which the client now sends the same media (§updateProducer).

    The producer's consumers continue. Where the engine cannot do that (`is_updatable`), the other peers get new
    consumers instead.
    """
    producer = find(peer, message.id)
    transport = transports.find(peer, producer.transport, "id")
    # the engine would find the predecessor by its muxId while it has both; SSRCs suffice
    rtp_parameters = structs.replace(message.rtp_parameters, mux_id=UNSET)
    if is_updatable(producer.rtp_parameters) and is_updatable(rtp_parameters):
        yield from _update_in_place(room, peer, producer, rtp_parameters)
        return client.Nothing()
    with room.reserving(peer, size_of_producer(ortc.sort_encodings(rtp_parameters), producer.app_data)):
        successor = yield from _produce(
            room,
            peer,
            transport,
            producer.id,
            producer.kind,
            rtp_parameters,
            producer.remotely_paused,
            producer.updates + 1,
        )
        if peer.producers.get(producer.id) is not producer:
            room.release(peer, "producer", successor.engine)
            raise NotFound(f"id: producer {producer.id} was closed")
    successor.app_data, successor.locally_paused = producer.app_data, producer.locally_paused
    successor.stats_interval = producer.stats_interval
    teardown.close_producer(room, peer, producer)
    if successor.locally_paused and not successor.remotely_paused:
        room.order(media.Pause(object=successor.engine, v=room.next_n, kind="producer"))
    _add(room, peer, successor)
    return client.Nothing()


def _update_in_place(room: Room, peer: Peer, producer: Producer, rtp_parameters: RtpParameters) -> Steps[None]:
    payload_types = ortc.producer_mapping(rtp_parameters, producer.kind, room.rtp_capabilities)
    if payload_types != producer.payload_types:
        raise BadPayload("rtpParameters.codecs: an update changes SSRCs only")
    if len(rtp_parameters.encodings) != len(producer.rtp_parameters.encodings):
        raise BadPayload(f"rtpParameters.encodings: expected {len(producer.rtp_parameters.encodings)}")
    sent = structs.replace(producer.rtp_parameters, encodings=ortc.sort_encodings(rtp_parameters).encodings)
    growth = size_of_producer(sent, UNSET) - size_of_producer(producer.rtp_parameters, UNSET)
    with room.reserving(peer, max(0, growth)):
        yield from _update_on_node(
            room,
            peer,
            producer,
            media.UpdateProducer(
                router=room.router,
                producer=producer.engine,
                rtp_parameters=sent,
                payload_types=payload_types,
                generation=producer.updates + 1,
            ),
        )
    producer.updates += 1
    producer.rtp_parameters = sent
    room.budget.add(peer.name, min(0, growth))
    room.save(peer.field_of(producer), producer)


def _update_on_node(room: Room, peer: Peer, producer: Producer, request: media.UpdateProducer) -> Steps[None]:
    guard = room.guard(peer)
    try:
        yield request
    except PlenaryError:
        if peer.producers.get(producer.id) is producer:
            # the node may have applied it: the next update must not have the same generation
            producer.updates += 1
            room.save(peer.field_of(producer), producer)
        raise
    guard.check()
    if peer.producers.get(producer.id) is not producer:
        raise NotFound(f"id: producer {producer.id} was closed")


def _announce(room: Room, peer: Peer, producer: Producer) -> None:
    """Sends every other peer `newConsumer`; receivers with equal capabilities share the message."""
    groups: dict[str, list[Peer]] = defaultdict(list)
    for other in room.peers.values():
        if other is not peer:
            groups[other.capability_key].append(other)
    for receivers in groups.values():
        room.notify(receivers, consumers.announcement(room, peer, producer, receivers[0]))


def pause(room: Room, peer: Peer, message: client.PauseProducer) -> client.Nothing:
    """Pauses for the producer's own client; receivers are notified (§pauseProducer)."""
    _set_paused(room, peer, find(peer, message.id), remotely=True)
    return client.Nothing()


def resume(room: Room, peer: Peer, message: client.ResumeProducer) -> client.Nothing:
    """Resumes for the producer's own client; receivers are notified (§resumeProducer)."""
    _set_paused(room, peer, find(peer, message.id), remotely=False)
    return client.Nothing()


def set_locally_paused(room: Room, peer: Peer, producer_id: int, *, paused: bool, app_data: client.AppData) -> None:
    """Pauses or resumes by the server: the sender (§producerPaused) and the receivers concerned are notified."""
    producer = find(peer, producer_id)
    if producer.locally_paused != paused:
        notification = client.ProducerPaused if paused else client.ProducerResumed
        room.notify([peer], notification(id=producer.id, app_data=app_data))
        _set_paused(room, peer, producer, locally=paused)


def _set_paused(
    room: Room, peer: Peer, producer: Producer, *, remotely: bool | None = None, locally: bool | None = None
) -> None:
    before = (producer.remotely_paused, producer.locally_paused)
    was_paused = producer.paused
    producer.remotely_paused = producer.remotely_paused if remotely is None else remotely
    producer.locally_paused = producer.locally_paused if locally is None else locally
    if (producer.remotely_paused, producer.locally_paused) != before:
        room.save(peer.field_of(producer), producer)
    if producer.paused != was_paused:
        order = media.Pause if producer.paused else media.Resume
        room.order(order(object=producer.engine, v=room.next_n, kind="producer"))
        consumers.producer_pause_changed(room, peer, producer)


def close(room: Room, peer: Peer, message: client.CloseProducer) -> client.Nothing:
    """Closes the producer. An unknown one is no error: the server may just have closed it (§closeProducer)."""
    producer = peer.producers.get(message.id)
    if producer is not None:
        teardown.close_producer(room, peer, producer)
    return client.Nothing()
