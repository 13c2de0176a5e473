"""Fuzzes the AMQP protocol with a server's bytes, changed and cut anywhere."""

from random import Random
from typing import Any, Final

from pamqp import body, commands, header
from pamqp.frame import marshal

from shared.broker.amqp.events import Closed
from shared.broker.amqp.protocol import FRAME_MAX, AmqpProtocol
from tests.fuzz.mutations import changed_bytes

_CHANNEL: Final = 1
_PROPERTIES: Final = commands.Basic.Properties(delivery_mode=1, message_id="7")


def _handshake() -> list[bytes]:
    start = commands.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN AMQPLAIN", "en_US")
    return [
        marshal(start, 0),
        marshal(commands.Connection.Tune(2047, FRAME_MAX, 60), 0),
        marshal(commands.Connection.OpenOk(), 0),
    ]


def _delivery(tag: int, payload: bytes) -> list[bytes]:
    frames: list[Any] = [commands.Basic.Deliver("consumer", tag, False, "exchange", "key")]
    frames += [header.ContentHeader(0, len(payload), _PROPERTIES)]
    frames += [body.ContentBody(payload)] if payload else []
    return [marshal(frame, _CHANNEL) for frame in frames]


_SAMPLES: Final = [
    *_delivery(1, b'{"a":1}'),
    *_delivery(2, b""),
    *_delivery(3, b"x" * 5000),
    marshal(commands.Basic.Ack(9, True), _CHANNEL),
    marshal(commands.Basic.Nack(9, False, False), _CHANNEL),
    marshal(commands.Basic.Return(312, "NO_ROUTE", "exchange", "key"), _CHANNEL),
    marshal(header.ContentHeader(0, 3, _PROPERTIES), _CHANNEL),
    marshal(body.ContentBody(b"abc"), _CHANNEL),
    marshal(commands.Basic.Cancel("consumer", True), _CHANNEL),
    marshal(commands.Basic.QosOk(), _CHANNEL),
    marshal(commands.Channel.Close(404, "no queue", 60, 20), _CHANNEL),
    marshal(commands.Channel.CloseOk(), _CHANNEL),
    marshal(commands.Connection.Blocked("low on memory"), 0),
    marshal(commands.Connection.Unblocked(), 0),
    marshal(commands.Connection.Close(320, "shutdown", 0, 0), 0),
    b"\x08\x00\x00\x00\x00\x00\x00\xce",
    b"AMQP\x00\x00\x09\x01",
]


class AmqpTarget:
    """A connection that gets its handshake, and then frames of which some are changed."""

    name = "amqp"

    def check(self, rng: Random) -> str:
        """Sends one input and returns its outcome. Raises if the protocol raises or goes on after it has closed."""
        protocol = AmqpProtocol(user="u", password="p", virtual_host="/", name="fuzzed", heartbeat=10)
        frames = _handshake()
        opened = rng.random() < 0.9
        if opened:
            for frame in frames:
                protocol.receive(frame)
            protocol.open_channel()
            protocol.receive(marshal(commands.Channel.OpenOk(), _CHANNEL))
            frames = [rng.choice(_SAMPLES) for _ in range(rng.randint(1, 5))]
        changed = rng.randrange(len(frames))
        frames[changed] = changed_bytes(rng, frames[changed], _SAMPLES)
        received = b"".join(frames)
        events: list[Any] = []
        while received:
            size = rng.randint(1, len(received))
            events += protocol.receive(received[:size])
            received = received[size:]
        protocol.take_output()
        if any(isinstance(event, Closed) for event in events[:-1]):
            raise AssertionError(f"events after the connection was closed: {events}")
        if events and isinstance(events[-1], Closed):
            if protocol.is_open or protocol.receive(_SAMPLES[0]):
                raise AssertionError("a closed connection takes bytes")
            return f"closed with {events[-1].code}"
        return "open" if opened else "waits for the rest of the handshake"
