"""What is taken from RabbitMQ's bytes before aiormq sees them; the bytes are written by pamqp."""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from shared.broker.amqp import wire
from shared.broker.amqp.intake import AT_ONCE, Incoming, Intake
from tests.support.frames import decoded

FRAME_MAX = 64
"""Bodies in one frame; small, so that there are some of several."""
ALIVE = frame.marshal(Heartbeat(), 0)


@dataclass
class Seen:
    """What the intakes of channel 1 (messages) and 2 (confirms and returns) were told."""

    told: list[tuple[Any, ...]] = field(default_factory=list)

    def deliver(self, tag: int, redelivered: bool, body: bytes, /) -> None:
        self.told.append(("deliver", tag, redelivered, body))

    def confirm(self, tag: int, multiple: bool, /, *, refused: bool) -> None:
        self.told.append(("confirm", tag, multiple, refused))

    def returned(self, message_id: str, why: str, /) -> None:
        self.told.append(("return", message_id, why))


def incoming(seen: Seen) -> Incoming:
    it = Incoming(asyncio.get_running_loop())
    it.listen(1, Intake(deliver=seen.deliver))
    it.listen(2, Intake(confirm=seen.confirm, returned=seen.returned))
    return it


def content(channel: int, method: Any, body: bytes, message_id: str = "") -> bytes:
    properties = commands.Basic.Properties(delivery_mode=1, expiration="3000", message_id=message_id or None)
    parts = [ContentBody(body[at : at + FRAME_MAX]) for at in range(0, len(body), FRAME_MAX)]
    frames = [method, ContentHeader(body_size=len(body), properties=properties), *parts]
    return b"".join(frame.marshal(it, channel) for it in frames)


def delivery(channel: int, tag: int, redelivered: bool, body: bytes) -> bytes:
    return content(channel, commands.Basic.Deliver("ctag1.é", tag, redelivered, "rooms", "7"), body)


def returning(channel: int, message_id: str) -> bytes:
    return content(channel, commands.Basic.Return(312, "NO_ROUTE", "notify", "gw1.5"), b"lost", message_id)


BODIES = st.binary(max_size=3 * FRAME_MAX)
TAGS = st.integers(1, 2**63 - 1)
HOT = st.one_of(
    st.builds(lambda *it: (delivery(1, *it), ("deliver", *it)), TAGS, st.booleans(), BODIES),
    st.builds(lambda *it: (frame.marshal(commands.Basic.Ack(*it), 2), ("confirm", *it, False)), TAGS, st.booleans()),
    st.builds(lambda *it: (frame.marshal(commands.Basic.Nack(*it), 2), ("confirm", *it, True)), TAGS, st.booleans()),
    st.builds(lambda n: (returning(2, str(n)), ("return", str(n), "notify gw1.5: NO_ROUTE")), TAGS),
)
COLD = st.one_of(
    st.just(ALIVE),
    st.just(frame.marshal(commands.Channel.Close(404, "gone", 0, 0), 1)),
    st.just(frame.marshal(commands.Basic.Cancel("ctag1", nowait=True), 1)),
    st.builds(lambda tag: frame.marshal(commands.Basic.Ack(tag), 1), TAGS),  # none publishes there
    st.builds(lambda body: delivery(3, 1, False, body), BODIES),  # somebody else's channel
    st.builds(lambda body: content(1, commands.Basic.GetOk(1, False, "", "q", 0), body), BODIES),
)


def split(encoded: bytes) -> list[bytes]:
    """Frames, but for those that say no more than that the connection lives."""
    frames = []
    while encoded:
        size = 8 + int.from_bytes(encoded[3:7], "big")
        frames.append(encoded[:size])
        encoded = encoded[size:]
    return [it for it in frames if it != ALIVE]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HOT | COLD.map(lambda it: (it, None)), max_size=12), st.data())
async def test_each_frame_gets_where_it_belongs_however_bytes_come(
    frames: list[tuple[bytes, tuple[Any, ...] | None]], data: st.DataObject
) -> None:
    seen = Seen()
    stream = incoming(seen)
    whole = b"".join(encoded for encoded, _ in frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {0, len(whole)})
    for start, end in pairwise(cuts):
        stream.feed_data(whole[start:end])
    stream.feed_eof()

    assert seen.told == [told for _, told in frames if told is not None]
    cold = b"".join(encoded for encoded, told in frames if told is None)
    assert split(await stream.read()) == split(cold)


async def test_aiormq_is_told_that_the_connection_lives_when_all_that_comes_is_hot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    stream = incoming(Seen())
    for _ in range(200):
        now += 0.01
        stream.feed_data(delivery(1, 1, False, b"x"))
    monkeypatch.undo()
    stream.feed_eof()
    beats = await stream.read()
    count = len(beats) // len(ALIVE)
    assert beats == ALIVE * count
    assert 3 <= count <= 5


async def test_what_is_no_amqp_is_aiormqs_to_judge() -> None:
    stream = incoming(Seen())
    stream.feed_data(b"AMQP\x00\x00\x09\x01")
    stream.feed_eof()
    assert await stream.read() == b"AMQP\x00\x00\x09\x01"


async def test_a_receiver_that_fails_does_not_stop_those_behind_it() -> None:
    told: list[int] = []

    def deliver(tag: int, redelivered: bool, body: bytes, /) -> None:
        told.append(tag)
        raise ZeroDivisionError

    stream = Incoming(asyncio.get_running_loop())
    stream.listen(1, Intake(deliver=deliver))
    stream.feed_data(delivery(1, 1, False, b"a") + delivery(1, 2, False, b""))
    assert told == [1, 2]


async def test_what_wire_writes_is_what_comes_back() -> None:
    """A returned message bears the id that it was published with."""
    _, (_, header), *_ = decoded(wire.publish(2, "notify", "gw1.5", b"x", returnable_as="41", ttl=3, frame_max=4096))
    seen = Seen()
    what = frame.marshal(commands.Basic.Return(312, "NO_ROUTE", "notify", "gw1.5"), 2)
    incoming(seen).feed_data(what + frame.marshal(header, 2) + frame.marshal(ContentBody(b"x"), 2))
    assert seen.told == [("return", "41", "notify gw1.5: NO_ROUTE")]


class Socket(asyncio.ReadTransport):
    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


async def test_a_backlog_lets_others_have_their_turn() -> None:
    stream, socket = incoming(Seen()), Socket()
    stream.set_transport(socket)
    one = delivery(1, 1, False, b"x" * 1000)
    for _ in range(AT_ONCE // len(one)):
        stream.feed_data(one)
    assert socket.reading
    stream.feed_data(one)
    assert not socket.reading
    await asyncio.sleep(0)
    assert socket.reading


async def test_what_aiormq_has_not_read_keeps_the_socket_paused() -> None:
    stream, socket = incoming(Seen()), Socket()
    stream.set_transport(socket)
    cold = delivery(3, 1, False, b"x" * 1000)
    for _ in range(AT_ONCE // len(cold) + 1):
        stream.feed_data(cold)
    await asyncio.sleep(0)
    assert not socket.reading
    await stream.readexactly(AT_ONCE)
    assert socket.reading
