"""The asyncio side of a connection: a transport that the test plays, and a server that says what the test wants."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from shared.broker import BrokerError, BrokerUnavailable
from shared.broker.addresses import Address
from shared.broker.amqp import connection as module
from shared.broker.amqp.connection import BYTES_PER_TURN, AmqpConnection, Channel, ChannelClosedByServer
from shared.broker.amqp.frames import HEARTBEAT_FRAME
from tests.support.amqp_frames import decoded
from tests.unit.shared.broker.amqp.fake_transport import FakeTransport, turn


class Server:
    """A connection whose handshake is complete, and the bytes of the other side."""

    def __init__(self, heartbeat: int = 0) -> None:
        self.transport = FakeTransport()
        self.connection = AmqpConnection(Address("server", 5672), "test", heartbeat)
        self.connection.connection_made(self.transport)
        self.say(commands.Connection.Start())
        self.say(commands.Connection.Tune(0, 0, 0))
        self.say(commands.Connection.OpenOk())

    def say(self, method: Any, channel: int = 0) -> None:
        self.connection.data_received(frame.marshal(method, channel))

    async def channel(self) -> Channel:
        opening = asyncio.create_task(self.connection.open_channel())
        await turn()
        channel = max(channel for channel, _ in self.heard())
        self.say(commands.Channel.OpenOk(), channel)
        return await opening

    def heard(self) -> list[tuple[int, Any]]:
        """Takes what the client wrote, but the protocol header."""
        data, self.transport.pieces = b"".join(self.transport.pieces), []
        return decoded(data.removeprefix(b"AMQP\x00\x00\x09\x01"))


def delivery(channel: int, tag: int, body: bytes) -> bytes:
    parts: list[Any] = [commands.Basic.Deliver("ctag", tag, False, "rooms", "0"), ContentHeader(body_size=len(body))]
    return b"".join(frame.marshal(it, channel) for it in [*parts, ContentBody(body)])


@pytest.fixture
async def server() -> Server:
    return Server()


async def test_closing_connection_writes_earlier_frames_first(server: Server) -> None:
    channel = await server.channel()
    server.connection.writer.write_from(lambda: b"")
    closing = asyncio.create_task(server.connection.close())
    await turn()
    assert [method.name for _, method in server.heard()] == ["Connection.Close"]
    server.say(commands.Connection.CloseOk())
    await closing

    assert not channel.is_open
    assert server.transport.closing


async def test_malformed_frame_tells_the_server_and_fails_pending_calls(server: Server) -> None:
    channel = await server.channel()
    call = asyncio.create_task(channel.call(commands.Basic.Qos(prefetch_count=1)))
    await turn()
    server.heard()

    server.connection.data_received(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(BrokerUnavailable, match="501: this is not AMQP"):
        await call
    ((_, close),) = server.heard()
    assert (close.name, close.reply_code) == ("Connection.Close", 501)
    assert server.transport.closing


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5))
async def test_data_received_raises_nothing_for_junk(junk: list[bytes]) -> None:
    server = Server()
    channel = await server.channel()
    for data in junk:
        server.connection.data_received(data)
    server.connection.eof_received()
    server.connection.connection_lost(None)

    assert server.connection.closed.done()
    assert not channel.is_open


async def test_receiver_that_raises_does_not_stop_later_messages(server: Server) -> None:
    channel = await server.channel()
    tags: list[int] = []

    def deliver(tag: int, _: bool, __: bytes) -> None:
        tags.append(tag)
        raise ZeroDivisionError

    channel.on_deliver = deliver
    server.connection.data_received(delivery(channel.number, 1, b"a") + delivery(channel.number, 2, b"b"))

    assert tags == [1, 2]
    assert server.connection.is_open


async def test_receiver_may_end_the_connection(server: Server) -> None:
    channel = await server.channel()
    channel.on_deliver = lambda *_: server.connection.abort("enough")
    call = asyncio.create_task(channel.call(commands.Basic.Qos(prefetch_count=1)))
    await turn()

    answer = frame.marshal(commands.Basic.QosOk(), channel.number)
    server.connection.data_received(delivery(channel.number, 1, b"a") + answer)

    with pytest.raises(BrokerUnavailable, match="enough"):
        await call


async def test_on_closed_is_called_before_anything_else_is_written(server: Server) -> None:
    channel = await server.channel()
    failures: list[BrokerError] = []
    channel.on_closed = failures.append

    server.say(commands.Channel.Close(406, "PRECONDITION_FAILED", 0, 0), channel.number)

    assert [type(it) for it in failures] == [ChannelClosedByServer]
    assert server.transport.pieces == []
    await turn()
    assert [method.name for _, method in server.heard()] == ["Channel.CloseOk"]


async def test_call_without_an_answer_fails_after_its_deadline(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await server.channel()
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.01)

    with pytest.raises(BrokerUnavailable, match=r"did not answer Basic\.Qos"):
        await channel.call(commands.Basic.Qos(prefetch_count=1))

    later = asyncio.create_task(channel.call(commands.Queue.Declare(queue="x")))
    await turn()
    server.say(commands.Basic.QosOk(), channel.number)
    server.say(commands.Queue.DeclareOk("x", 0, 0), channel.number)
    assert (await later).queue == "x"


async def test_calls_during_closing_fail_at_once(server: Server) -> None:
    channel = await server.channel()
    closing = asyncio.create_task(server.connection.close())
    await turn()

    with pytest.raises(BrokerUnavailable):
        await channel.call(commands.Basic.Qos(prefetch_count=1))
    with pytest.raises(BrokerUnavailable):
        await server.connection.open_channel()
    server.say(commands.Connection.CloseOk())
    await closing


async def test_backlog_lets_the_event_loop_do_other_work(server: Server) -> None:
    channel = await server.channel()
    one = delivery(channel.number, 1, b"x" * 1000)
    for _ in range(BYTES_PER_TURN // len(one) + 1):
        server.connection.data_received(one)
    assert not server.transport.reading

    await turn()

    assert server.transport.reading


async def test_blocked_connection_reports_the_reason_and_the_end(server: Server) -> None:
    reasons: list[str | None] = []
    server.connection.on_blocked = reasons.append

    server.say(commands.Connection.Blocked("low on memory"))
    assert server.connection.blocked == "low on memory"
    server.say(commands.Connection.Unblocked())

    assert reasons == ["low on memory", None]
    assert server.connection.blocked is None


class Clock:
    """Runs the heartbeat timer of a connection by hand."""

    def __init__(self, server: Server) -> None:
        self._connection = server.connection

    async def beat(self, times: int = 1) -> None:
        for _ in range(times):
            self._connection._beat()
            await turn()


async def test_heartbeat_is_sent_only_when_nothing_else_was() -> None:
    server = Server(heartbeat=60)
    clock = Clock(server)
    await turn()
    await clock.beat()
    server.transport.pieces.clear()

    await clock.beat()
    assert server.transport.pieces == [HEARTBEAT_FRAME]

    server.connection.writer.write(b"")
    await turn()
    server.transport.pieces.clear()
    await clock.beat(1)
    assert server.transport.pieces == []
    server.connection.abort("end of the test")


async def test_silent_connection_is_aborted_and_a_talking_one_is_not() -> None:
    server = Server(heartbeat=60)
    clock = Clock(server)
    for _ in range(3):
        await clock.beat(5)
        server.connection.data_received(HEARTBEAT_FRAME)
    assert server.connection.is_open

    await clock.beat(7)

    assert "sent nothing for 180 s" in str(server.connection.closed.result())
    assert server.transport.aborted


async def test_paused_transport_gets_no_heartbeats_on_top(server: Server) -> None:
    server = Server(heartbeat=60)
    await turn()
    server.transport.pieces.clear()
    server.connection.pause_writing()
    server.connection.writer.write(b"x")

    await Clock(server).beat(3)
    server.connection.resume_writing()
    await turn()

    assert server.transport.pieces == [b"x"]
    server.connection.abort("end of the test")
