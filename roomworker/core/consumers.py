"""Handles consumers: a producer's media sent to one other peer (§enableConsumer … §setConsumerPreferredProfile).

A consumer *exists* for every producer and every other peer; it is *stored*, and has a record here, only once its
peer has touched it. A consumer's id and SSRCs follow from the producer, its parameters from the producer and the
receiver's capabilities.
"""

from typing import Final

from roomworker.core import transports
from roomworker.core.budget import CONSUMER_BYTES
from roomworker.core.media_steps import Steps, expect
from roomworker.core.model import Consumer, Peer, Producer
from roomworker.core.room import Room
from roomworker.core.rtp import ortc
from roomworker.core.rtp.ssrcs import derive_ssrcs
from shared.errors import Conflict, NotFound
from shared.protocol import client, media
from shared.protocol.rtp import EffectiveProfile, Profile, RtpParameters

PARAMETERS_KEPT: Final = 4096
"""Consumers' parameters that a room keeps: browsers of one kind have equal capabilities, hostile ones need not."""


def find(room: Room, peer: Peer, consumer_id: int) -> tuple[Consumer, Peer, Producer]:
    """Returns the peer's consumer, the sending peer and its producer. Raises `NotFound`.

    A consumer that its peer has not touched yet is made on the spot, and not stored.
    """
    sender, producer = room.producers_by_number.get(consumer_id, (None, None))
    if sender is None or producer is None or sender is peer:
        raise NotFound(f"id: no consumer {consumer_id}")
    return peer.consumers.get(consumer_id) or Consumer(id=consumer_id), sender, producer


def find_to_change(room: Room, peer: Peer, consumer_id: int) -> tuple[Consumer, Peer, Producer]:
    """Returns what `find` does. Raises what `Budget.check` raises if the consumer could not be stored."""
    if consumer_id not in peer.consumers:
        room.budget.check(peer.name, CONSUMER_BYTES, room.limits)
    return find(room, peer, consumer_id)


def save(room: Room, peer: Peer, consumer: Consumer) -> None:
    """Stores the consumer, which has changed since it was made."""
    if consumer.id not in peer.consumers:
        room.budget.add(peer.name, CONSUMER_BYTES)
    peer.consumers[consumer.id] = consumer
    room.save(peer.field_of(consumer), consumer)


def enable(room: Room, peer: Peer, message: client.EnableConsumer) -> Steps[client.ConsumerEnabled]:
    """Has the media node send the producer's media over the peer's transport (§enableConsumer)."""
    consumer, _, producer = find_to_change(room, peer, message.id)
    transport = transports.find(peer, message.transport_id, "transportId")
    if consumer.enabled:
        raise Conflict(f"id: consumer {message.id} is enabled")
    parameters = rtp_parameters(room, producer, peer)
    if not ortc.can_consume(parameters):
        raise Conflict(f"id: consumer {message.id} has no codec that this peer can receive")
    paused = consumer.paused or message.paused
    before = consumer.preferred_profile
    profile = message.preferred_profile or before
    engine = room.engine_id(peer, "consumer", message.id)
    request = media.Consume(
        router=room.router,
        transport=transport.engine,
        consumer=engine,
        producer=producer.engine,
        kind=producer.kind,
        rtp_parameters=parameters,
        producer_ssrcs=producer.mapped_ssrcs,
        paused=paused,
        preferred_profile=profile,
    )
    with room.releasing(peer, "consumer", engine) as guard:
        consumed = expect((yield request), media.Consumed)
        guard.check()
        consumer, _, current = find(room, peer, message.id)
        if current.engine != producer.engine or peer.transports.get(transport.id) is not transport:
            raise NotFound(f"id: consumer {message.id} lost its producer or transport")
    consumer.transport, consumer.engine = transport.id, engine
    consumer.effective_profile = room.take_early_profile(engine) or consumed.effective_profile
    consumer.remotely_paused = consumer.remotely_paused or message.paused
    room.consumers_by_engine[engine] = (peer, consumer)
    # the server may have paused it or chosen a profile meanwhile
    if consumer.paused != paused:
        _order_pause(room, consumer)
    if consumer.preferred_profile == before:
        consumer.preferred_profile = profile
    else:
        _order_profile(room, consumer)
    save(room, peer, consumer)
    return client.ConsumerEnabled(
        paused=current.paused or consumer.locally_paused,
        preferred_profile=consumer.preferred_profile,
        effective_profile=consumer.effective_profile,
    )


def pause(room: Room, peer: Peer, message: client.PauseConsumer) -> client.Nothing:
    """Pauses for the receiver itself; no peer is notified (§pauseConsumer)."""
    return _set_paused(room, peer, message.id, remotely=True)


def resume(room: Room, peer: Peer, message: client.ResumeConsumer) -> client.Nothing:
    """Resumes for the receiver itself; no peer is notified (§resumeConsumer)."""
    return _set_paused(room, peer, message.id, remotely=False)


def _set_paused(room: Room, peer: Peer, consumer_id: int, *, remotely: bool) -> client.Nothing:
    consumer, _, _ = find_to_change(room, peer, consumer_id)
    if consumer.remotely_paused != remotely:
        before = consumer.paused
        consumer.remotely_paused = remotely
        save(room, peer, consumer)
        if consumer.enabled and consumer.paused != before:
            _order_pause(room, consumer)
    return client.Nothing()


def _order_pause(room: Room, consumer: Consumer) -> None:
    kind = media.Pause if consumer.paused else media.Resume
    room.order(kind(object=consumer.engine, v=room.next_n, kind="consumer"))


def set_preferred_profile(room: Room, peer: Peer, message: client.SetConsumerPreferredProfile) -> client.Nothing:
    """Sets the layer that the receiver wants; the engine sends at most that one (§setConsumerPreferredProfile)."""
    consumer, _, _ = find_to_change(room, peer, message.id)
    if consumer.preferred_profile != message.profile:
        _prefer(room, peer, consumer, message.profile)
    return client.Nothing()


def _prefer(room: Room, peer: Peer, consumer: Consumer, profile: Profile) -> None:
    consumer.preferred_profile = profile
    save(room, peer, consumer)
    if consumer.enabled:
        _order_profile(room, consumer)


def _order_profile(room: Room, consumer: Consumer) -> None:
    room.order(media.SetPreferredProfile(object=consumer.engine, v=room.next_n, profile=consumer.preferred_profile))


def set_locally_paused(room: Room, peer: Peer, consumer_id: int, *, paused: bool, app_data: client.AppData) -> None:
    """Pauses or resumes by the server: the peer is notified, unless nothing changes for it (§consumerPaused)."""
    consumer, sender, producer = find_to_change(room, peer, consumer_id)
    if consumer.locally_paused == paused:
        return
    before = consumer.paused
    consumer.locally_paused = paused
    save(room, peer, consumer)
    if not consumer.enabled:
        return
    if not producer.paused:
        notification = client.ConsumerPaused if paused else client.ConsumerResumed
        room.notify([peer], notification(id=consumer.id, peer_name=sender.name, app_data=app_data))
    if consumer.paused != before:
        _order_pause(room, consumer)


def set_preferred_profile_by_server(room: Room, peer: Peer, consumer_id: int, profile: Profile) -> None:
    """Sets the preferred profile by the server: the peer is notified (§consumerPreferredProfileSet)."""
    consumer, sender, _ = find_to_change(room, peer, consumer_id)
    if consumer.preferred_profile != profile:
        _prefer(room, peer, consumer, profile)
        room.notify(
            [peer],
            client.ConsumerPreferredProfileSet(id=consumer.id, peer_name=sender.name, profile=profile),
        )


def request_key_frame(room: Room, peer: Peer, consumer_id: int) -> None:
    """Asks the engine for a key frame. Raises `Conflict` if the consumer is sending no video."""
    consumer, _, producer = find(room, peer, consumer_id)
    if not consumer.enabled or consumer.paused or producer.paused or producer.kind != "video":
        raise Conflict(f"id: consumer {consumer_id} is sending no video")
    room.order(media.RequestKeyFrame(object=consumer.engine, v=room.next_n))


def profile_changed(room: Room, peer: Peer, consumer: Consumer, profile: EffectiveProfile) -> None:
    """Notes that the engine sends another layer than before (§consumerEffectiveProfileChanged)."""
    if consumer.effective_profile == profile:
        return
    consumer.effective_profile = profile
    save(room, peer, consumer)
    sender, _ = room.producers_by_number[consumer.id]
    room.notify(
        [peer],
        client.ConsumerEffectiveProfileChanged(id=consumer.id, peer_name=sender.name, profile=profile),
    )


def producer_pause_changed(room: Room, sender: Peer, producer: Producer) -> None:
    """Notifies receivers that the producer was paused or resumed.

    Receivers whose consumer is disabled, or paused by the server anyway, are not notified.
    """
    receivers = [
        other
        for other in room.peers.values()
        if (consumer := other.consumers.get(producer.number)) and consumer.enabled and not consumer.locally_paused
    ]
    notification = client.ConsumerPaused if producer.paused else client.ConsumerResumed
    room.notify(receivers, notification(id=producer.number, peer_name=sender.name))


def describe(room: Room, sender: Peer, producer: Producer, receiver: Peer) -> client.ConsumerInfo:
    """Returns the receiver's consumer as `join` describes it."""
    consumer = receiver.consumers.get(producer.number) or Consumer(id=producer.number)
    return client.ConsumerInfo(
        id=producer.number,
        kind=producer.kind,
        rtp_parameters=rtp_parameters(room, producer, receiver),
        paused=producer.paused or consumer.paused,
        peer_name=sender.name,
        preferred_profile=consumer.preferred_profile,
        effective_profile=consumer.effective_profile,
        app_data=producer.app_data,
    )


def announcement(room: Room, sender: Peer, producer: Producer, receiver: Peer) -> client.NewConsumer:
    """Returns the notification by which a receiver learns of its new consumer."""
    return client.NewConsumer(
        id=producer.number,
        kind=producer.kind,
        peer_name=sender.name,
        rtp_parameters=rtp_parameters(room, producer, receiver),
        paused=producer.paused,
        preferred_profile="default",
        effective_profile=None,
        app_data=producer.app_data,
    )


def rtp_parameters(room: Room, producer: Producer, receiver: Peer) -> RtpParameters:
    """Returns the consumer's parameters, computed once for all receivers with equal capabilities."""
    key = (producer.number, receiver.capability_key)
    known = room.consumer_parameters.get(key)
    if known is None:
        consumable = ortc.consumable(
            producer.rtp_parameters, producer.kind, room.rtp_capabilities, producer.payload_types
        )
        block = derive_ssrcs(producer.number, 1)
        known = ortc.consumer_parameters(consumable, receiver.data.rtp_capabilities, block.consumer, block.rtx)
        room.consumer_parameters[key] = known
        if len(room.consumer_parameters) > PARAMETERS_KEPT:
            del room.consumer_parameters[next(iter(room.consumer_parameters))]
    return known
