"""What one client can cost a gateway: floods of every kind of frame, unfinished messages, bytes left unread."""

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import uvloop

from gateway.protocol import frame_validation
from gateway.protocol.rate_limit import OVER_RATE_SWEEPS
from gateway.server import Gateway
from gateway.websocket import connection as connection_module
from gateway.websocket.budgets import STALL_SWEEPS
from gateway.websocket.connection import FRAME_BYTES, Connection
from gateway.websocket.frame_reader import PIECE_BYTES
from gateway.websocket.hub import PING_SWEEPS, SWEEP_EVERY
from shared import errors
from shared.protocol import bus
from tests.support.gateways import Client, EchoWorker, running_gateway
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1 = 0x80, 0x40
MIB = 2**20
REQUEST = b'{"request":true,"id":%d,"method":"m","data":"x"}'


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


def frame(first: int, payload: bytes = b"", size: int | None = None) -> bytes:
    """A frame with a mask of zeros; `first` is FIN, reserved bits and opcode, `size` the length that it claims."""
    length = len(payload) if size is None else size
    if length < 126:
        head = bytes([first, 0x80 | length])
    elif length < 65536:
        head = bytes([first, 0xFE]) + length.to_bytes(2)
    else:
        head = bytes([first, 0xFF]) + length.to_bytes(8)
    return head + bytes(4) + payload


class RawSocket:
    """A WebSocket whose frames a test writes byte for byte. What comes is read, and kept by kind."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self.head = head
        self.texts: list[dict[str, Any]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        self.code = 0
        """The code with which the gateway closed; 1006 if it cut the connection off."""
        self._reader = reader
        self._writer = writer
        self._reading: asyncio.Task[None] | None = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, peer: str = "raw", extra: str = "", headers: str = "") -> "RawSocket":
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=16 * MIB)
        writer.write(
            f"GET /?roomId=room&peerName={peer}{extra} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"{headers}\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        return cls(reader, writer, head)

    async def _read(self) -> None:
        try:
            while not self.code:
                first, size = await self._reader.readexactly(2)
                if size >= 126:
                    size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
                self._receive(first & 0x0F, await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.code = self.code or 1006

    def _receive(self, opcode: int, payload: bytes) -> None:
        match opcode:
            case 0x1:
                self.texts.append(json.loads(payload))
            case 0x8:
                self.code = int.from_bytes(payload[:2])
            case 0x9:
                self.pings += 1
                self.send(frame(FIN | PONG, payload))
            case 0xA:
                self.pongs.append(payload)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def stop_reading(self) -> None:
        """Leaves everything unread from now on."""
        assert self._reading is not None
        self._reading.cancel()
        cast("asyncio.Transport", self._writer.transport).pause_reading()

    async def closed_with(self) -> int:
        await until(lambda: self.code > 0)
        return self.code

    def abort(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._writer.transport.abort()


@dataclass
class Setup:
    gateway: Gateway
    worker: EchoWorker
    sockets: list[RawSocket]

    async def raw(self, peer: str = "raw", **options: str) -> RawSocket:
        self.sockets.append(socket := await RawSocket.open(self.gateway.port, peer, **options))
        return socket

    async def client(self, peer: str = "alice") -> Client:
        return await Client.connect(self.gateway.port, "room", peer)

    async def echo(self, client: Client, data: Any) -> None:
        id_ = client.request(data)
        assert await client.receive() == {"response": True, "id": id_, "ok": True, "data": data}

    def connection(self, number: int = 1) -> Connection:
        return cast("Connection", self.gateway.hub.connections[number])

    async def sweep(self, times: int) -> None:
        for _ in range(times):
            await self.gateway.hub.sweep()

    @property
    def cuts(self) -> dict[str, int]:
        return cast("dict[str, int]", self.gateway.counters.cuts)


@pytest.fixture
async def setup(request: pytest.FixtureRequest) -> AsyncIterator[Setup]:
    async with running_gateway(**getattr(request, "param", {})) as (gateway, worker):
        setup = Setup(gateway, worker, [])
        yield setup
        for raw in setup.sockets:
            raw.abort()


def settings(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setup", [options], indirect=True, ids=[""])


# --- floods -----------------------------------------------------------------------------------------------------

FLOODS: dict[str, tuple[bytes, bytes]] = {
    "pings": (b"", frame(FIN | PING)),
    "pings of 125 bytes": (b"", frame(FIN | PING, b"x" * 125)),
    "pongs": (b"", frame(FIN | PONG)),
    "empty fragments": (frame(TEXT, b"x"), frame(CONTINUATION)),
    "fragments of one byte": (frame(TEXT, b"x"), frame(CONTINUATION, b"x")),
    "binary fragments": (frame(BINARY, b"x"), frame(CONTINUATION, b"x")),
    "empty texts": (b"", frame(FIN | TEXT)),
    "binaries": (b"", frame(FIN | BINARY, b"x")),
    "notifications": (b"", frame(FIN | TEXT, b'{"notification":true,"method":"m"}')),
    "responses": (b"", frame(FIN | TEXT, b'{"response":true,"id":1,"ok":true}')),
    "requests": (b"", frame(FIN | TEXT, REQUEST % 1)),
}
"""For each flood what precedes it, and the frame that is sent again and again."""


@pytest.mark.parametrize(("first", "repeated"), FLOODS.values(), ids=FLOODS)
@settings(message_rate=1, message_burst=20)
async def test_a_flood_of_frames_is_read_in_portions_and_closed_with_1008(
    setup: Setup, first: bytes, repeated: bytes
) -> None:
    flooder, victim = await setup.raw(), await setup.client("victim")
    await setup.echo(victim, "before")
    counters, connection = setup.gateway.counters, setup.connection()
    flooder.send(first + repeated * (MIB // len(repeated)))
    await until(lambda: counters.rate_limited_total > 50)
    await until(lambda: not connection.is_read)
    await setup.echo(victim, "during")
    assert counters.rate_limited_total < 250  # 50 at once and 20 a second
    assert len(flooder.pongs) <= 30
    await setup.sweep(OVER_RATE_SWEEPS + 1)
    assert await flooder.closed_with() == errors.OVER_RATE.code
    assert setup.cuts == {"over_rate": 1}
    assert not connection.is_read
    refused = counters.rate_limited_total
    await setup.echo(victim, "afterwards")
    assert counters.rate_limited_total == refused


async def test_pings_within_the_rate_are_each_answered(setup: Setup) -> None:
    socket = await setup.raw()
    payloads = [b"%d" % number for number in range(100)]
    for payload in payloads:
        socket.send(frame(FIN | PING, payload))
    await until(lambda: len(socket.pongs) == 100)
    assert socket.pongs == payloads
    assert not setup.gateway.counters.rate_limited_total


@settings(message_rate=0)
async def test_without_a_message_limit_a_flood_of_pings_is_still_closed(setup: Setup) -> None:
    flooder, victim = await setup.raw(), await setup.client("victim")
    flooder.send(frame(FIN | PING) * 200_000)
    await until(lambda: setup.gateway.counters.rate_limited_total > 0)
    await setup.echo(victim, "during")
    await setup.sweep(OVER_RATE_SWEEPS + 1)
    assert await flooder.closed_with() == errors.OVER_RATE.code
    assert len(flooder.pongs) < 1000


@settings(message_rate=0.001, message_burst=3)
async def test_frames_above_the_rate_are_refused_before_they_are_validated(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[str] = []
    validate = frame_validation.validate

    def recorded(text: str, size: int, limit: int) -> Any:
        validated.append(text)
        return validate(text, size, limit)

    monkeypatch.setattr(connection_module, "validate", recorded)
    client = await setup.client()
    for _ in range(10):
        client.request("x" * 1000)
    answers = [await client.receive() for _ in range(10)]
    assert [answer.get("errorCode") for answer in answers] == [None] * 3 + [429] * 7
    assert len(validated) == 3


@settings(message_rate=50, message_burst=50)
async def test_refusals_that_go_through_the_room_are_bounded(setup: Setup) -> None:
    flooder = await setup.raw()
    flooder.send(b"".join(frame(FIN | TEXT, REQUEST % id_) for id_ in range(20_000)))
    await until(lambda: not setup.connection().is_read)
    await setup.sweep(OVER_RATE_SWEEPS + 1)
    await flooder.closed_with()
    refused = [item for item in setup.worker.items if isinstance(item, bus.RejectedInput)]
    assert 50 <= len(refused) < 500
    assert [answer["id"] for answer in flooder.texts] == list(range(len(flooder.texts)))


@settings(message_rate=0.01, message_burst=20)
async def test_a_client_that_connects_again_has_no_new_burst(setup: Setup) -> None:
    for accepted in (20, 0, 0):
        client = await setup.client()
        answers = [await client.receive() for _ in [client.request(1) for _ in range(20)]]
        assert sum("errorCode" not in answer for answer in answers) == accepted
        client.transport.disconnect()


async def test_a_client_over_its_rate_for_a_moment_stays_connected(setup: Setup) -> None:
    client = await setup.client()
    ids = [client.request(1) for _ in range(300)]
    answers = [await client.receive() for _ in ids]
    assert [answer["id"] for answer in answers] == ids
    assert {answer.get("errorCode") for answer in answers} == {None, 429}
    await setup.sweep(OVER_RATE_SWEEPS - 5)
    assert not setup.gateway.hub.over_rate
    assert setup.cuts == {}


@settings(message_rate=1, message_burst=5)
async def test_a_resumable_session_over_its_rate_for_long_ends(setup: Setup) -> None:
    flooder = await setup.raw(extra="&resumable=1")
    await until(lambda: bool(flooder.texts))
    text = '{"request":true,"id":%d,"method":"m","data":"x","cseq":%d}'
    flooder.send(b"".join(frame(FIN | TEXT, (text % (n, n)).encode()) for n in range(1, 1000)))
    await until(lambda: not setup.connection().is_read)
    await setup.sweep(OVER_RATE_SWEEPS + 1)
    assert await flooder.closed_with() == errors.OVER_RATE.code
    await until(lambda: not setup.worker.known)
    lost = [item for item in setup.worker.items if isinstance(item, bus.ConnectionLost)]
    assert [item.final for item in lost] == [True]


@settings(byte_rate=64 * 1024, message_rate=0)
async def test_bytes_above_the_rate_are_read_later_and_lose_nothing(setup: Setup) -> None:
    client = await setup.client()
    ids = [client.request("x" * 10_000) for _ in range(30)]
    await until(lambda: not setup.connection().is_read)
    assert [(await client.receive())["id"] for _ in ids] == ids
    assert setup.cuts == {}


# --- unfinished messages ----------------------------------------------------------------------------------------


@settings(unfinished_limit=MIB)
@pytest.mark.parametrize("fragmented", [True, False], ids=["fragments", "one frame"])
async def test_largest_unfinished_messages_are_given_up_above_the_budget(setup: Setup, fragmented: bool) -> None:
    def unfinished(size: int) -> bytes:
        if fragmented:
            return frame(TEXT, b"x" * (size // 2)) + frame(CONTINUATION, b"x" * (size // 2))
        return frame(FIN | TEXT, b"x" * size, size=FRAME_BYTES)

    hub = setup.gateway.hub
    small, large, last = [await setup.raw(peer) for peer in ("small", "large", "last")]
    small.send(unfinished(200_000))
    large.send(unfinished(500_000))
    await until(lambda: hub.unfinished.total > 690_000)
    assert hub.unfinished.total < 720_000
    last.send(unfinished(400_000))
    assert await large.closed_with() == errors.UNAVAILABLE.code
    await until(lambda: hub.unfinished.total > 590_000)
    assert hub.unfinished.total < MIB
    assert setup.cuts == {"unfinished_total": 1}
    assert (small.code, last.code) == (0, 0)


@pytest.mark.parametrize(
    "unfinished",
    [
        frame(TEXT, b"x" * 5000),
        frame(TEXT, b"x"),
        frame(TEXT),
        frame(BINARY, b"x"),
        frame(FIN | TEXT, b"x" * 9000, 9999),
    ],
    ids=["text", "one byte", "empty", "binary", "one frame"],
)
async def test_a_message_without_progress_for_ten_seconds_is_given_up(setup: Setup, unfinished: bytes) -> None:
    socket, other = await setup.raw(), await setup.client()
    socket.send(unfinished)
    await until(lambda: setup.connection().unfinished_bytes > 0)
    await setup.sweep(STALL_SWEEPS)
    assert await socket.closed_with() == errors.STALLED.code
    assert setup.cuts == {"unfinished_stalled": 1}
    assert setup.gateway.hub.unfinished.total == 0
    await setup.echo(other, "fine")


async def test_a_message_that_ends_or_whose_socket_closes_is_not_counted(setup: Setup) -> None:
    hub = setup.gateway.hub
    first, second = await setup.raw("first"), await setup.raw("second")
    first.send(frame(TEXT, b'{"request":true,"id":1,"method":"m",') + frame(FIN | CONTINUATION, b'"data":"x"}'))
    await until(lambda: bool(first.texts))
    assert hub.unfinished.total == 0
    second.send(frame(TEXT, b"x" * 10_000))
    await until(lambda: hub.unfinished.total >= 10_000)
    second.abort()
    await until(lambda: hub.unfinished.total == 0)


@pytest.mark.parametrize(
    "sent",
    [
        frame(FIN | TEXT, size=FRAME_BYTES + 1),
        frame(FIN | BINARY, size=2**62),
        frame(TEXT, b"x") + frame(CONTINUATION, size=FRAME_BYTES),
    ],
    ids=["text", "binary", "continuation"],
)
async def test_a_claimed_length_above_1_mib_closes_before_its_bytes_come(setup: Setup, sent: bytes) -> None:
    socket = await setup.raw()
    socket.send(sent)
    assert await socket.closed_with() == errors.TOO_BIG.code


async def test_a_long_message_leaves_no_large_buffer(setup: Setup) -> None:
    client = await setup.client()
    for size in (200_000, 5000, 250_000):
        await setup.echo(client, "x" * size)
    picows = setup.connection().reader._picows
    assert len(picows.get_buffer(-1)) <= 2 * PIECE_BYTES


async def test_compression_is_not_agreed_on(setup: Setup) -> None:
    socket = await setup.raw(headers="Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
    assert b"extensions" not in socket.head.lower()
    socket.send(frame(FIN | RSV1 | TEXT, b"x"))
    assert await socket.closed_with() == errors.PROTOCOL.code


# --- unsent bytes -----------------------------------------------------------------------------------------------


async def fill(setup: Setup, numbers: list[int], done: Callable[[], Any]) -> None:
    """Sends to each of the connections in turn, until that is enough."""
    chunk = b'{"notification":true,"data":"%s"}' % (b"x" * 30_000)
    async with asyncio.timeout(PATIENCE):
        while not done():
            for number in numbers:
                await setup.worker.send(f"{setup.gateway.id}.{number}", chunk)


@settings(unsent_limit=MIB, send_buffer=2 * MIB)
async def test_clients_with_the_most_unsent_bytes_are_dropped_above_the_budget(setup: Setup) -> None:
    most, less, quick = await setup.raw("most"), await setup.raw("less"), await setup.client("quick")
    for socket in (most, less):
        socket.stop_reading()
    hub = setup.gateway.hub
    await fill(setup, [2], lambda: setup.connection(2).unsent_bytes > 100_000)
    assert not setup.cuts
    await fill(setup, [1], lambda: setup.cuts)
    assert setup.cuts == {"unsent_total": 1}
    assert hub.unsent.total < MIB
    await setup.worker.until(lambda: any(isinstance(item, bus.Disconnect) for item in setup.worker.items))
    assert not setup.connection(2).closing
    await setup.echo(quick, "fine")
    assert setup.gateway.counters.closes == {errors.TOO_SLOW.code: 1}


@settings(send_buffer=256 * 1024, unsent_limit=16 * MIB)
async def test_a_message_larger_than_the_send_buffer_makes_no_client_too_slow(setup: Setup) -> None:
    client, reads_nothing = await setup.client(), await setup.raw()
    await setup.echo(client, 0)
    large = b'{"notification":true,"data":"%s"}' % (b"x" * 3 * MIB)
    for _ in range(2):
        await setup.worker.send(f"{setup.gateway.id}.1", large)
        assert await client.receive() == json.loads(large)
    reads_nothing.stop_reading()

    unsent = []
    while not setup.cuts:
        await setup.worker.send(f"{setup.gateway.id}.2", large)
        unsent.append(setup.connection(2).unsent_bytes)

    assert setup.cuts == {"unsent": 1}
    assert max(unsent) <= 2 * len(large)
    await setup.echo(client, "fine")


@settings(socket_buffer=32 * 1024)
async def test_the_kernel_keeps_little_of_each_connection(setup: Setup) -> None:
    await setup.raw()
    accepted = setup.connection().transport.underlying_transport.get_extra_info("socket")
    for option in (sockets.SO_SNDBUF, sockets.SO_RCVBUF):
        assert accepted.getsockopt(sockets.SOL_SOCKET, option) == 2 * 32 * 1024  # Linux counts twice


async def test_unsent_bytes_of_a_lost_socket_are_not_counted(setup: Setup) -> None:
    socket = await setup.raw()
    socket.stop_reading()
    hub = setup.gateway.hub
    await fill(setup, [1], lambda: hub.unsent.total > 100_000)
    socket.abort()
    await until(lambda: hub.unsent.total == 0)


# --- pings of the gateway ---------------------------------------------------------------------------------------


async def test_an_idle_client_is_pinged_at_least_every_twenty_seconds(setup: Setup) -> None:
    assert PING_SWEEPS * SWEEP_EVERY < 20
    socket = await setup.raw()
    for pings in range(1, 4):
        for _ in range(PING_SWEEPS):
            await setup.gateway.hub.sweep()
        await until(lambda pings=pings: socket.pings >= pings)  # type: ignore[misc]
        await until(lambda: setup.connection().received_since_check)
    assert not socket.code
