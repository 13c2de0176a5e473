"""A consumer: a producer's media on its way to one other peer (§enableConsumer … §setConsumerPreferredProfile).

A consumer *exists* for every producer and every other peer; it is *stored*, and has an object here, only once
its peer has touched it. Its id and SSRCs follow from the producer, its parameters from the producer and the
receiver's capabilities.
"""

from typing import TYPE_CHECKING

from roomworker.core import transports
from roomworker.core.media_steps import Steps, expect
from roomworker.core.record import Record
from roomworker.core.rtp import ortc
from shared.errors import Conflict, NotFound
from shared.protocol import client, media
from shared.protocol.rtp import EffectiveProfile, Profile, RtpParameters

if TYPE_CHECKING:
    from roomworker.core.peers import Peer
    from roomworker.core.producers import Producer
    from roomworker.core.room import Room


class Consumer(Record):
    """Stored as `consumer|<id>|<peer>`. Enabled while it has a `transport` (its peer's transport id).

    Paused remotely is by its own client, locally by the server; the source's pause is the producer's.
    """

    id: int
    transport: int | None = None
    engine: str = ""
    remotely_paused: bool = False
    locally_paused: bool = False
    preferred_profile: Profile = "default"
    effective_profile: EffectiveProfile | None = None
    stats_interval: int = 0

    @property
    def enabled(self) -> bool:
        return self.transport is not None

    @property
    def paused(self) -> bool:
        return self.remotely_paused or self.locally_paused


def field(peer: "Peer", consumer_id: int) -> str:
    return f"consumer|{consumer_id}|{peer.name}"


def find(room: "Room", peer: "Peer", consumer_id: int) -> "tuple[Consumer, Peer, Producer]":
    """The peer's consumer with its source; one that nobody touched yet is made on the spot (not stored)."""
    sender, source = room.sources.get(consumer_id, (None, None))
    if sender is None or source is None or sender is peer:
        raise NotFound(f"id: no consumer {consumer_id}")
    return peer.consumers.get(consumer_id) or Consumer(id=consumer_id), sender, source


def keep(room: "Room", peer: "Peer", consumer: Consumer) -> None:
    """It is not as it was made: from now on it is stored."""
    peer.consumers[consumer.id] = consumer
    room.save(field(peer, consumer.id), consumer)


def enable(room: "Room", peer: "Peer", message: client.EnableConsumer) -> Steps[client.ConsumerEnabled]:
    consumer, _, source = find(room, peer, message.id)
    carrier = transports.find(peer, message.transport_id, "transportId")
    if consumer.enabled:
        raise Conflict(f"id: consumer {message.id} is enabled")
    parameters = rtp_parameters(room, source, peer)
    if not ortc.can_consume(parameters):
        raise Conflict(f"id: consumer {message.id} has no codec that this peer can receive")
    paused = consumer.paused or message.paused
    before = consumer.preferred_profile
    profile = message.preferred_profile or before
    engine = room.engine_id(peer, "consumer", message.id)
    with room.releasing(peer, "consumer", engine) as here:
        consumed = expect(
            (
                yield media.Consume(
                    router=room.router,
                    transport=carrier.engine,
                    consumer=engine,
                    producer=source.engine,
                    kind=source.kind,
                    rtp_parameters=parameters,
                    producer_ssrcs=source.mapped_ssrcs,
                    paused=paused,
                    preferred_profile=profile,
                )
            ),
            media.Consumed,
        )
        here.check()
        consumer, _, still = find(room, peer, message.id)
        if still.engine != source.engine or peer.transports.get(carrier.id) is not carrier:
            raise NotFound(f"id: consumer {message.id} lost its producer or transport")
    consumer.transport, consumer.engine = carrier.id, engine
    consumer.effective_profile = room.take_early_profile(engine) or consumed.effective_profile
    consumer.remotely_paused = consumer.remotely_paused or message.paused
    room.consumers_by_engine[engine] = (peer, consumer)
    # meanwhile the server may have had its way with it
    if consumer.paused != paused:
        _order_pause(room, consumer)
    if consumer.preferred_profile == before:
        consumer.preferred_profile = profile
    else:
        _order_profile(room, consumer)
    keep(room, peer, consumer)
    return client.ConsumerEnabled(
        paused=still.paused or consumer.locally_paused,
        preferred_profile=consumer.preferred_profile,
        effective_profile=consumer.effective_profile,
    )


def pause(room: "Room", peer: "Peer", message: client.PauseConsumer) -> client.Nothing:
    return _set_paused(room, peer, message.id, remotely=True)


def resume(room: "Room", peer: "Peer", message: client.ResumeConsumer) -> client.Nothing:
    return _set_paused(room, peer, message.id, remotely=False)


def _set_paused(room: "Room", peer: "Peer", consumer_id: int, *, remotely: bool) -> client.Nothing:
    consumer, _, _ = find(room, peer, consumer_id)
    if consumer.remotely_paused != remotely:
        before = consumer.paused
        consumer.remotely_paused = remotely
        keep(room, peer, consumer)
        if consumer.enabled and consumer.paused != before:
            _order_pause(room, consumer)
    return client.Nothing()


def _order_pause(room: "Room", consumer: Consumer) -> None:
    kind = media.Pause if consumer.paused else media.Resume
    room.order(kind(object=consumer.engine, v=room.next_n, kind="consumer"))


def set_preferred_profile(room: "Room", peer: "Peer", message: client.SetConsumerPreferredProfile) -> client.Nothing:
    consumer, _, _ = find(room, peer, message.id)
    if consumer.preferred_profile != message.profile:
        _prefer(room, peer, consumer, message.profile)
    return client.Nothing()


def _prefer(room: "Room", peer: "Peer", consumer: Consumer, profile: Profile) -> None:
    consumer.preferred_profile = profile
    keep(room, peer, consumer)
    if consumer.enabled:
        _order_profile(room, consumer)


def _order_profile(room: "Room", consumer: Consumer) -> None:
    room.order(media.SetPreferredProfile(object=consumer.engine, v=room.next_n, profile=consumer.preferred_profile))


def set_locally_paused(
    room: "Room", peer: "Peer", consumer_id: int, *, paused: bool, app_data: client.AppData
) -> None:
    """By the server: the peer is told, unless it would make no difference to it (§consumerPaused)."""
    consumer, sender, source = find(room, peer, consumer_id)
    if consumer.locally_paused == paused:
        return
    before = consumer.paused
    consumer.locally_paused = paused
    keep(room, peer, consumer)
    if not consumer.enabled:
        return
    if not source.paused:
        notification = client.ConsumerPaused if paused else client.ConsumerResumed
        room.notify([peer], notification(id=consumer.id, peer_name=sender.name, app_data=app_data))
    if consumer.paused != before:
        _order_pause(room, consumer)


def prefer_profile(room: "Room", peer: "Peer", consumer_id: int, profile: Profile) -> None:
    """By the server (§consumerPreferredProfileSet)."""
    consumer, sender, _ = find(room, peer, consumer_id)
    if consumer.preferred_profile != profile:
        _prefer(room, peer, consumer, profile)
        room.notify(
            [peer],
            client.ConsumerPreferredProfileSet(id=consumer.id, peer_name=sender.name, profile=profile),
        )


def request_key_frame(room: "Room", peer: "Peer", consumer_id: int) -> None:
    consumer, _, source = find(room, peer, consumer_id)
    if not consumer.enabled or consumer.paused or source.paused or source.kind != "video":
        raise Conflict(f"id: consumer {consumer_id} is sending no video")
    room.order(media.RequestKeyFrame(object=consumer.engine, v=room.next_n))


def profile_changed(room: "Room", peer: "Peer", consumer: Consumer, profile: EffectiveProfile) -> None:
    """The engine sends another layer than before (§consumerEffectiveProfileChanged)."""
    if consumer.effective_profile == profile:
        return
    consumer.effective_profile = profile
    keep(room, peer, consumer)
    sender, _ = room.sources[consumer.id]
    room.notify(
        [peer],
        client.ConsumerEffectiveProfileChanged(id=consumer.id, peer_name=sender.name, profile=profile),
    )


def source_changed(room: "Room", sender: "Peer", source: "Producer") -> None:
    """The producer was paused or resumed: told to whoever is enabled and not paused by the server anyway."""
    told = [
        other
        for other in room.peers.values()
        if (fed := other.consumers.get(source.number)) and fed.enabled and not fed.locally_paused
    ]
    notification = client.ConsumerPaused if source.paused else client.ConsumerResumed
    room.notify(told, notification(id=source.number, peer_name=sender.name))


def describe(room: "Room", sender: "Peer", source: "Producer", to: "Peer") -> client.ConsumerInfo:
    consumer = to.consumers.get(source.number) or Consumer(id=source.number)
    return client.ConsumerInfo(
        id=source.number,
        kind=source.kind,
        rtp_parameters=rtp_parameters(room, source, to),
        paused=source.paused or consumer.paused,
        peer_name=sender.name,
        preferred_profile=consumer.preferred_profile,
        effective_profile=consumer.effective_profile,
        app_data=source.app_data,
    )


def announcement(room: "Room", sender: "Peer", source: "Producer", to: "Peer") -> client.NewConsumer:
    return client.NewConsumer(
        id=source.number,
        kind=source.kind,
        peer_name=sender.name,
        rtp_parameters=rtp_parameters(room, source, to),
        paused=source.paused,
        preferred_profile="default",
        effective_profile=None,
        app_data=source.app_data,
    )


def rtp_parameters(room: "Room", source: "Producer", to: "Peer") -> RtpParameters:
    """What `to` receives of `source`; computed once per producer and kind of receiver."""
    key = (source.number, to.capability_key)
    known = room.derived.get(key)
    if known is None:
        consumable = ortc.consumable(source.rtp_parameters, source.kind, room.rtp_capabilities, source.payload_types)
        block = ortc.ssrcs(source.number, 1)
        known = ortc.consumer_parameters(consumable, to.data.rtp_capabilities, block.consumer, block.rtx)
        room.derived[key] = known
    return known


def disable(room: "Room", peer: "Peer", consumer: Consumer) -> None:
    """Its transport has closed: it may be enabled again on another."""
    _unbind(room, consumer)
    consumer.transport, consumer.engine = None, ""
    keep(room, peer, consumer)


def drop(room: "Room", peer: "Peer", consumer: Consumer) -> None:
    """Its producer or its peer has closed; the engine closes it with the producer or the transport."""
    _unbind(room, consumer)
    del peer.consumers[consumer.id]
    room.forget(field(peer, consumer.id))


def _unbind(room: "Room", consumer: Consumer) -> None:
    if consumer.engine:
        del room.consumers_by_engine[consumer.engine]
