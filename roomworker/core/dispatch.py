"""Which handler a client message goes to: the one table of methods."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from roomworker.core import consumers, messages, peers, producers, stats, transports
from roomworker.core import room as rooms
from roomworker.core.media_steps import Steps
from roomworker.core.room import Room
from roomworker.core.sessions import Session
from shared.errors import BadPayload, Conflict
from shared.protocol import bus, client

Handled: TypeAlias = client.AnyAnswer | Steps[client.AnyAnswer]
Message: TypeAlias = client.FromClient | client.Message


class _Named(msgspec.Struct):
    method: str = ""


_named = msgspec.json.Decoder(_Named).decode


def method_of(kind: type[Message]) -> str:
    """As the protocol calls it."""
    return kind.__name__[0].lower() + kind.__name__[1:]


PEER_HANDLERS: Final[dict[type[client.FromClient], Callable[..., Any]]] = {
    client.Leave: peers.leave,
    client.CreateTransport: transports.create,
    client.UpdateTransport: transports.update,
    client.EnableTransportStats: stats.enable_transport,
    client.DisableTransportStats: stats.disable_transport,
    client.RestartTransport: transports.restart,
    client.CloseTransport: transports.close,
    client.CreateProducer: producers.create,
    client.UpdateProducer: producers.update,
    client.PauseProducer: producers.pause,
    client.ResumeProducer: producers.resume,
    client.CloseProducer: producers.close,
    client.EnableProducerStats: stats.enable_producer,
    client.DisableProducerStats: stats.disable_producer,
    client.EnableConsumer: consumers.enable,
    client.PauseConsumer: consumers.pause,
    client.ResumeConsumer: consumers.resume,
    client.SetConsumerPreferredProfile: consumers.set_preferred_profile,
    client.EnableConsumerStats: stats.enable_consumer,
    client.DisableConsumerStats: stats.disable_consumer,
}


_KINDS: Final[tuple[type[Message], ...]] = (client.QueryRoom, client.Join, *PEER_HANDLERS)
_BY_NAME: Final = {method_of(kind): kind for kind in _KINDS}


def read(item: bus.Input) -> Message:
    """What the client says. Raises `BadPayload`."""
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
            raise BadPayload(f"method: unknown method {item.method!r}")


def meant(item: bus.Input) -> type[Message] | None:
    """What kind of message one that cannot be read was to be, if that can be told."""
    if item.method == client.MESSAGE:
        return client.Message
    try:
        return _BY_NAME.get(_named(item.data).method)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def handle(room: Room, session: Session, message: Message) -> Handled:
    """Starts handling one client message. Raises `PlenaryError`; the state is then unchanged."""
    if isinstance(message, client.Message):
        return messages.relay(room, session, message)
    if isinstance(message, client.QueryRoom):
        return rooms.query(room, message)
    if isinstance(message, client.Join):
        return peers.join(room, session, message)
    joined = room.peers.get(session.peer)
    if joined is None:
        raise Conflict("peer: join first")
    handler = PEER_HANDLERS.get(type(message))
    if handler is None:
        raise BadPayload(f"method: unknown method {method_of(type(message))!r}")
    handled: Handled = handler(room, joined, message)
    return handled
