"""The frames written by hand, read back by pamqp; the acks of a channel."""

import asyncio
from typing import Any

import pytest
from pamqp import commands
from pamqp.header import ContentHeader

from shared.broker.amqp import wire
from shared.broker.amqp.subscriptions import Acks
from tests.support.frames import decoded


def published(body: bytes, *, returnable_as: str = "", ttl: float | None = None) -> list[tuple[int, Any]]:
    return decoded(wire.publish(7, "notify", "gw1.é", body, returnable_as=returnable_as, ttl=ttl, frame_max=4096))


def test_a_message_is_transient_and_by_default_nothing_else() -> None:
    (channel, method), (_, header), (_, content) = published(b"hello")

    assert channel == 7
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == ("notify", "gw1.é")
    assert (method.mandatory, method.immediate) == (False, False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == 5
    assert {name: value for name, value in header.properties if value} == {"delivery_mode": 1}
    assert content.value == b"hello"


def test_a_mandatory_message_bears_its_id_and_a_short_lived_one_its_milliseconds() -> None:
    (_, method), (_, header) = published(b"", returnable_as="41", ttl=1.5)

    assert method.mandatory is True
    assert header.properties.message_id == "41"
    assert header.properties.expiration == "1500"


@pytest.mark.parametrize(("size", "parts"), [(0, 0), (4088, 1), (4089, 2), (10_000, 3)])
def test_a_long_body_is_split_at_the_frame_limit(size: int, parts: int) -> None:
    body = bytes(number % 251 for number in range(size))

    frames = published(body)

    assert frames[1][1].body_size == size
    assert len(frames) == 2 + parts
    assert b"".join(content.value for _, content in frames[2:]) == body


def test_a_routing_key_too_long_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="255"):
        wire.publish(1, "rooms", "x" * 256, b"", returnable_as="", ttl=None, frame_max=4096)


class FakeConnection:
    def __init__(self) -> None:
        self.write_queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=10)

    def written(self) -> list[tuple[int, bool]]:
        frames = []
        while not self.write_queue.empty():
            piece = self.write_queue.get_nowait()
            piece.drain()
            frames += decoded(piece.payload)
        return [(ack.delivery_tag, ack.multiple) for _, ack in frames]


@pytest.fixture
async def connection() -> FakeConnection:
    return FakeConnection()


@pytest.fixture
async def acks(connection: FakeConnection) -> Acks:
    return Acks(3, wire.Outlet(connection, patience=0), prefetch=64)  # type: ignore[arg-type]


async def turn() -> None:
    """Lets the event loop run what is scheduled now."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_acks_of_one_turn_go_out_as_one(acks: Acks, connection: FakeConnection) -> None:
    for tag in (1, 2, 3):
        acks.finish(tag)
    await turn()

    assert connection.written() == [(3, True)]


async def test_what_finished_early_is_acked_alone_and_never_named_again(
    acks: Acks, connection: FakeConnection
) -> None:
    acks.finish(3)
    await turn()
    assert connection.written() == [(3, False)]

    acks.finish(1)
    acks.finish(2)
    acks.finish(3)
    await turn()

    assert connection.written() == [(2, True)]


async def test_acks_wait_a_little_for_others_and_leave_with_whatever_is_written(connection: FakeConnection) -> None:
    outlet = wire.Outlet(connection, patience=60)  # type: ignore[arg-type]
    acks = Acks(3, outlet, prefetch=64)
    for tag in (1, 2):
        acks.finish(tag)
        await turn()
    assert connection.written() == []

    outlet.write(wire.ack(4, 9, multiple=False))
    await turn()
    assert connection.written() == [(9, False), (2, True)]

    acks.finish(3)
    await turn()
    flushed = asyncio.ensure_future(outlet.flush())
    await turn()
    assert connection.written() == [(3, False)]
    await flushed


async def test_many_acks_do_not_wait(connection: FakeConnection) -> None:
    acks = Acks(3, wire.Outlet(connection, patience=60), prefetch=8)  # type: ignore[arg-type]
    for tag in (1, 2):
        acks.finish(tag)
        await turn()
    assert connection.written() == [(2, True)]

    acks.finish(3)  # and the next are not forgotten, though the socket has not taken the last
    acks.finish(4)
    await turn()
    assert connection.written() == [(4, True)]


async def test_a_closed_channel_acks_nothing(acks: Acks, connection: FakeConnection) -> None:
    """Nor what was finished before: RabbitMQ closes the connection over it, or takes it for the next channel's."""
    acks.finish(1)
    acks.closed = True
    acks.finish(2)
    await asyncio.sleep(0.001)
    await turn()

    assert connection.written() == []


async def test_flush_waits_for_a_place_in_a_full_queue_and_keeps_the_order(connection: FakeConnection) -> None:
    outlet = wire.Outlet(connection)  # type: ignore[arg-type]
    for _ in range(10):
        connection.write_queue.put_nowait(None)
    outlet.write(wire.ack(3, 1, multiple=False))
    await turn()
    flushed = asyncio.ensure_future(outlet.flush())
    await turn()
    outlet.write(wire.ack(3, 2, multiple=False))
    assert not flushed.done()

    for _ in range(10):
        connection.write_queue.get_nowait()
    await flushed
    assert connection.written() == [(1, False), (2, False)]


async def test_acks_that_found_the_queue_full_are_not_sent_after_their_channel_closed(
    acks: Acks, connection: FakeConnection
) -> None:
    for _ in range(10):
        connection.write_queue.put_nowait(None)
    acks.finish(1)
    await asyncio.sleep(0.001)
    await turn()
    acks.closed = True
    for _ in range(10):
        connection.write_queue.get_nowait()
    await asyncio.sleep(0.02)
    assert connection.written() == []


async def test_flush_gives_up_on_a_connection_that_takes_nothing(
    connection: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "FLUSH_WITHIN", 0.05)
    outlet = wire.Outlet(connection)  # type: ignore[arg-type]
    for _ in range(10):
        connection.write_queue.put_nowait(None)
    outlet.write(b"x")
    await outlet.flush()


async def test_flush_does_not_wait_until_the_socket_has_taken_it(connection: FakeConnection) -> None:
    """The writer may have ended: it takes nothing any more."""
    outlet = wire.Outlet(connection)  # type: ignore[arg-type]
    outlet.write(wire.ack(3, 1, multiple=False))
    await turn()
    outlet.write(wire.ack(3, 2, multiple=False))
    await outlet.flush()
    assert connection.write_queue.qsize() == 2


async def test_nothing_more_is_written_until_the_socket_took_the_last(acks: Acks, connection: FakeConnection) -> None:
    acks.finish(1)
    await turn()
    acks.finish(2)
    await turn()
    acks.finish(3)
    await turn()
    assert connection.write_queue.qsize() == 1

    assert connection.written() == [(1, False)]
    await turn()
    assert connection.written() == [(3, True)]
