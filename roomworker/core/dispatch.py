"""Decodes clients' messages and hands each to its handler."""

from typing import Final, TypeAlias, assert_never

import msgspec

from roomworker.core import consumers, messages, peers, producers, stats, transports
from roomworker.core.media_steps import Steps
from roomworker.core.model import Peer, Session
from roomworker.core.room import Room
from shared.errors import BadPayload, Conflict, quoted
from shared.protocol import bus, client

Handled: TypeAlias = client.AnyAnswer | Steps[client.AnyAnswer]
GROWING: Final = (
    client.Message,
    client.QueryRoom,
    client.Join,
    client.CreateTransport,
    client.CreateProducer,
    client.EnableConsumer,
    client.UpdateProducer,
    client.EnableTransportStats,
    client.EnableProducerStats,
    client.EnableConsumerStats,
)
"""The messages that add to what is stored of a room, or that only precede such a message."""
Message: TypeAlias = client.Message | client.QueryRoom | client.Join | client.PeerMessage


def read(item: bus.Input) -> Message:
    """Decodes a client's message. Raises `BadPayload` or `TooLarge`."""
    match item.method:
        case client.REQUEST:
            if item.id is None:
                raise BadPayload("request: a mediasoup-request must be a protoo request")
            return client.decode_request(item.data)
        case client.NOTIFICATION:
            return client.decode_notification(item.data)
        case client.MESSAGE:
            return client.decode_message(item.data)
        case _:
            raise BadPayload(f"method: unknown method {quoted(item.method)}")


class _Method(msgspec.Struct):
    method: str = ""


_decode_method = msgspec.json.Decoder(_Method).decode


def intended_kind(item: bus.Input) -> type[client.FromClient | client.Message] | None:
    """Returns the kind of a message that could not be decoded, by its method; None for an unknown method."""
    if item.method == client.MESSAGE:
        return client.Message
    try:
        return client.KIND_BY_METHOD.get(_decode_method(item.data).method)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_COSTLY = (
    client.Join,
    client.CreateTransport,
    client.RestartTransport,
    client.CreateProducer,
    client.UpdateProducer,
    client.EnableConsumer,
    client.EnableTransportStats,
    client.EnableProducerStats,
    client.EnableConsumerStats,
)
"""Messages that are refused while their peer has sent too much; those that close something never are."""


def handle(room: Room, session: Session, message: Message) -> Handled:
    """Starts handling one message. Raises `PlenaryError`; the room is then unchanged."""
    if room.limits.growth.refused and isinstance(message, GROWING):
        room.limits.growth.check()
    if isinstance(message, _COSTLY):
        room.fan_out.check(session.peer, room.sent_bytes, room.now)
    elif isinstance(message, client.PauseProducer | client.ResumeProducer):
        room.fan_out.check_pause(session.peer, room.now)
    match message:
        case client.Message():
            return messages.relay(room, session, message)
        case client.QueryRoom():
            return client.RoomInfo(rtp_capabilities=room.rtp_capabilities)
        case client.Join():
            return peers.join(room, session, message)
        case _:
            peer = room.peers.get(session.peer)
            if peer is None:
                raise Conflict("peer: join first")
            return _handle_of_peer(room, peer, message)


def _handle_of_peer(room: Room, peer: Peer, message: client.PeerMessage) -> Handled:
    """Starts handling a message that only a joined peer may send."""
    match message:
        case client.CreateTransport():
            return transports.create(room, peer, message)
        case client.UpdateTransport():
            return transports.update(room, peer, message)
        case client.CreateProducer():
            return producers.create(room, peer, message)
        case client.EnableConsumer():
            return consumers.enable(room, peer, message)
        case client.PauseProducer():
            return producers.pause(room, peer, message)
        case client.ResumeProducer():
            return producers.resume(room, peer, message)
        case client.UpdateProducer():
            return producers.update(room, peer, message)
        case client.CloseProducer():
            return producers.close(room, peer, message)
        case client.PauseConsumer():
            return consumers.pause(room, peer, message)
        case client.ResumeConsumer():
            return consumers.resume(room, peer, message)
        case client.SetConsumerPreferredProfile():
            return consumers.set_preferred_profile(room, peer, message)
        case client.RestartTransport():
            return transports.restart(room, peer, message)
        case client.CloseTransport():
            return transports.close(room, peer, message)
        case client.Leave():
            return peers.leave(room, peer, message)
        case client.EnableTransportStats():
            return stats.enable_transport(room, peer, message)
        case client.DisableTransportStats():
            return stats.disable_transport(room, peer, message)
        case client.EnableProducerStats():
            return stats.enable_producer(room, peer, message)
        case client.DisableProducerStats():
            return stats.disable_producer(room, peer, message)
        case client.EnableConsumerStats():
            return stats.enable_consumer(room, peer, message)
        case client.DisableConsumerStats():
            return stats.disable_consumer(room, peer, message)
        case _:
            assert_never(message)
