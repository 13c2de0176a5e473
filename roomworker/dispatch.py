"""Which handler a client message goes to: the one table of methods."""

from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias

from roomworker import consumer, messages, peer, producer, stats, transport
from roomworker import room as rooms
from roomworker.room import Room
from roomworker.session import Session
from roomworker.steps import Steps
from shared.errors import BadPayload, Conflict
from shared.protocol import bus, client

Handled: TypeAlias = client.AnyAnswer | Steps[client.AnyAnswer]

PEER_HANDLERS: Final[dict[type[client.FromClient], Callable[..., Any]]] = {
    client.Leave: peer.leave,
    client.CreateTransport: transport.create,
    client.UpdateTransport: transport.update,
    client.EnableTransportStats: stats.enable_transport,
    client.DisableTransportStats: stats.disable_transport,
    client.RestartTransport: transport.restart,
    client.CloseTransport: transport.close,
    client.CreateProducer: producer.create,
    client.UpdateProducer: producer.update,
    client.PauseProducer: producer.pause,
    client.ResumeProducer: producer.resume,
    client.CloseProducer: producer.close,
    client.EnableProducerStats: stats.enable_producer,
    client.DisableProducerStats: stats.disable_producer,
    client.EnableConsumer: consumer.enable,
    client.PauseConsumer: consumer.pause,
    client.ResumeConsumer: consumer.resume,
    client.SetConsumerPreferredProfile: consumer.set_preferred_profile,
    client.EnableConsumerStats: stats.enable_consumer,
    client.DisableConsumerStats: stats.disable_consumer,
}


def handle(room: Room, session: Session, item: bus.Input) -> Handled:
    """Starts handling one client message. Raises `PlenaryError`; the state is then unchanged."""
    match item.method:
        case client.REQUEST:
            if item.id is None:
                raise BadPayload("request: a mediasoup-request must be a protoo request")
            message: client.FromClient = client.decode_request(item.data)
        case client.NOTIFICATION:
            message = client.decode_notification(item.data)
        case client.MESSAGE:
            return messages.relay(room, session, client.decode_message(item.data))
        case _:
            raise BadPayload(f"method: unknown method {item.method!r}")

    if isinstance(message, client.QueryRoom):
        return rooms.query(room, message)
    if isinstance(message, client.Join):
        return peer.join(room, session, message)
    joined = room.peers.get(session.peer)
    if joined is None:
        raise Conflict("peer: join first")
    handler = PEER_HANDLERS.get(type(message))
    if handler is None:
        raise BadPayload(f"method: unknown method {method_of(message)!r}")
    handled: Handled = handler(room, joined, message)
    return handled


def method_of(message: client.FromClient) -> str:
    name = type(message).__name__
    return name[0].lower() + name[1:]


def is_steps(handled: Handled) -> bool:
    return isinstance(handled, Generator)
