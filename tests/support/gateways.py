"""The surroundings of a gateway under test: a broker that fails on demand, a worker that echoes, clients."""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fakeredis import FakeAsyncRedis
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from gateway.server import Gateway
from shared.broker import Broker, BrokerUnavailable, Delivery, Exchange, PublishRejected
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.protocol import bus
from shared.settings import GatewaySettings
from tests.support.waiting import PATIENCE, until


class FaultyBroker(MemoryBroker):
    """A gateway's link to the broker, whose faults a test turns on and off."""

    def __init__(self, hub: MemoryHub) -> None:
        super().__init__(hub)
        self.nack_next = 0
        self.forgetful = False
        self.published: list[tuple[str, bytes]] = []

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool = False, ttl: float | None = None
    ) -> "asyncio.Future[None]":
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.nack_next:
            self.nack_next -= 1
            answer.set_exception(PublishRejected("nack"))
            return answer
        self.published.append((key, body))
        if self.forgetful:
            answer.set_result(None)
            return answer
        return super().publish(exchange, key, body, mandatory=mandatory, ttl=ttl)


@dataclass
class KnownSession:
    """A session as the worker knows it. `connection` is 0 while a resumable session has none."""

    gateway: str
    connection: int
    token: str = ""
    attempt: int = 0
    last: int = 0
    stream: list[tuple[bytes, int]] = field(default_factory=list)


class EchoWorker:
    """A worker that answers each request with the request's data, by the rules of the hop (`shared.protocol.bus`).

    Resumable sessions have no grace here: they wait for ever.

    With `ignores_input` it takes no delivery. `loses` is how many of the next answers are committed but never sent.
    API calls are answered with what they ask or with `answer_call`, and not at all with `ignores_calls`.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ignores_input = False
        self.loses = 0
        self.items: list[bus.SessionItem | bus.Replay | bus.Resume | bus.ConnectionLost] = []
        self.ignores_calls = False
        self.calls: list[bus.Call] = []
        self.answer_call: tuple[int, bytes] | None = None
        self.known: dict[str, KnownSession] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self, partitions: int) -> None:
        for partition in range(partitions):
            await self.broker.subscribe_partition(partition, self.receive, prefetch=64, on_lost=lambda: None)

    def receive(self, delivery: Delivery) -> None:
        if self.ignores_input:
            return
        origin, items = bus.split_batch(delivery.body)
        messages: list[bus.Message] = []
        reports: dict[str, bus.Applied] = {}
        answers: list[bus.CallAnswer] = []
        links: list[tuple[str, bus.Link]] = []
        for encoded in items:
            item = bus.decode_item(encoded)
            assert not isinstance(item, bus.MediaEvent | bus.Tick)
            match item:
                case bus.Call():
                    answers += self._call(item)
                case bus.Resume() | bus.ConnectionLost():
                    self.items.append(item)
                    links += self._resume(origin, item) if isinstance(item, bus.Resume) else self._lost(origin, item)
                case _:
                    messages += self._apply(origin, item, reports)
        delivery.ack()
        mine = [link for gateway, link in links if gateway == origin]
        answer = bus.encode_to_gateway(bus.ToGateway(messages, list(reports.values()), answers, mine))
        self._later(self._send(origin, answer))
        for gateway, link in links:
            if gateway != origin:
                self._later(self._send(gateway, bus.encode_to_gateway(bus.ToGateway([], [], [], [link]))))

    def _resume(self, origin: str, item: bus.Resume) -> list[tuple[str, bus.Link]]:
        known = self.known.get(item.session)
        if known is None or known.token != item.token or item.attempt <= known.attempt:
            return [(origin, bus.Link(item.connection, item.session, "refused"))]
        old = [(known.gateway, bus.Link(known.connection, item.session, "released"))] if known.connection else []
        known.gateway, known.connection, known.attempt = origin, item.connection, item.attempt
        return [*old, (origin, bus.Link(item.connection, item.session, "resumed", known.last, len(known.stream)))]

    def _lost(self, origin: str, item: bus.ConnectionLost) -> list[tuple[str, bus.Link]]:
        known = self.known.get(item.session)
        if known is not None and (known.gateway, known.connection) == (origin, item.connection):
            known.connection = 0
            if item.final:
                del self.known[item.session]
        return [(origin, bus.Link(item.connection, item.session, "released"))]

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _send(self, gateway: str, body: bytes) -> None:
        with contextlib.suppress(BrokerUnavailable):
            await self.broker.publish("notify", f"{gateway}.0", body)

    def _call(self, call: bus.Call) -> list[bus.CallAnswer]:
        self.calls.append(call)
        if self.ignores_calls:
            return []
        return [bus.CallAnswer(call.n, *(self.answer_call or (200, call.action)))]

    def _apply(
        self, origin: str, item: bus.SessionItem | bus.Replay, reports: dict[str, bus.Applied]
    ) -> list[bus.Message]:
        self.items.append(item)
        known = self.known.get(item.session)
        if isinstance(item, bus.Connect) and known is None:
            known = self.known[item.session] = KnownSession(origin, item.connection, item.token)
        if known is None:
            reports[item.session] = bus.Applied(item.connection, item.session, -1, 0)
            return []
        messages: list[bus.Message] = []
        again = False
        match item:
            case bus.Connect():
                pass
            case bus.Replay():
                messages = [self._addressed(item.session, at) for at in range(item.after, len(known.stream))]
            case _ if item.n == known.last + 1:
                known.last = item.n
                messages = self._answer(known, item)
            case _:
                again = item.n > known.last
        reports[item.session] = bus.Applied(item.connection, item.session, known.last, len(known.stream), again)
        return messages

    def _answer(self, known: KnownSession, item: bus.SessionItem) -> list[bus.Message]:
        match item:
            case bus.Input(id=id_, data=data) if id_ is not None:
                body = b'{"response":true,"id":%d,"ok":true,"data":%s}' % (id_, data)
            case bus.RejectedInput(id=id_, code=code, reason=reason) if id_ is not None:
                body = json.dumps({"response": True, "id": id_, "errorCode": code, "errorReason": reason}).encode()
            case _:
                return []
        messages = [self.add(item.session, body)]
        if self.loses:
            self.loses -= 1
            return []
        return messages

    def add(self, session: str, body: bytes, close: int = 0) -> bus.Message:
        """Commits one output of a session without sending it."""
        known = self.known[session]
        known.stream.append((body, close))
        return self._addressed(session, len(known.stream) - 1)

    def _addressed(self, session: str, at: int) -> bus.Message:
        known = self.known[session]
        body, close = known.stream[at]
        return bus.Message(body, [bus.Recipient(known.connection, session, at + 1)], close)

    async def send(self, session: str, body: bytes, close: int = 0) -> None:
        """Commits and sends one output of a session."""
        batch = bus.ToGateway([self.add(session, body, close)], [])
        await self._send(self.known[session].gateway, bus.encode_to_gateway(batch))

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    def numbers(self, session: str) -> list[int]:
        """The numbers of the inputs that came, in their order, repeated ones included."""
        mine = [item for item in self.items if item.session == session]
        numbered = (bus.Connect, bus.Input, bus.RejectedInput, bus.Disconnect)
        return [0 if isinstance(item, bus.Connect) else item.n for item in mine if isinstance(item, numbered)]


class Client(WSListener):
    """A WebSocket client that keeps the frames it received."""

    def __init__(self) -> None:
        self.frames: deque[dict[str, Any]] = deque()
        self.arrived = asyncio.Event()
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.subprotocol: str | None = None
        self._ids = itertools.count(1)
        self._parts = bytearray()
        self.transport: WSTransport

    @classmethod
    async def connect(cls, port: int, room: str = "room", peer: str = "alice", **options: Any) -> "Client":
        return await cls.at(f"ws://127.0.0.1:{port}/?roomId={quote(room)}&peerName={quote(peer)}", **options)

    @classmethod
    async def at(cls, url: str, **options: Any) -> "Client":
        headers = {"Sec-WebSocket-Protocol": "protoo"}
        options.setdefault("extra_headers", headers)
        _, client = await ws_connect(cls, url, max_frame_size=2**24, **options)
        assert isinstance(client, Client)
        return client

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.subprotocol = transport.response.headers.get("Sec-WebSocket-Protocol")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.frames.append(json.loads(frame.get_payload_as_bytes()))
            self.arrived.set()
        elif frame.msg_type == WSMsgType.CLOSE:
            if not self.closed.done():
                self.closed.set_result((frame.get_close_code().value, frame.get_close_reason() or ""))
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.closed.done():
            self.closed.set_result((1006, ""))

    def send(self, text: str | bytes, kind: WSMsgType = WSMsgType.TEXT, *, fin: bool = True) -> None:
        self.transport.send(kind, text, fin)

    def request(self, data: Any = None, method: str = "mediasoup-request") -> int:
        id_ = next(self._ids)
        self.send(json.dumps({"request": True, "id": id_, "method": method, "data": data}))
        return id_

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while not self.frames:
                self.arrived.clear()
                await self.arrived.wait()
        return self.frames.popleft()

    async def until_closed(self) -> tuple[int, str]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self.closed)


@contextlib.asynccontextmanager
async def running_gateway(**options: Any) -> AsyncIterator[tuple[Gateway, EchoWorker]]:
    """A gateway that listens on a port of its own, with a broker in the process and a worker that echoes."""
    queues, redis = MemoryHub(), FakeAsyncRedis()
    broker, workers_broker = FaultyBroker(queues), MemoryBroker(queues)
    await broker.connect()
    await workers_broker.connect()
    worker = EchoWorker(workers_broker)
    await worker.start(32)
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "page": "none", "name": "gw"}
    gateway = Gateway(GatewaySettings(**settings | options), broker, RedisCluster(redis))
    await gateway.start()
    try:
        yield gateway, worker
    finally:
        await gateway.close()
        await redis.aclose()


WEBSOCKET = (
    "Host: x",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
"""The headers of a valid request for a WebSocket."""


@dataclass(frozen=True)
class HttpAnswer:
    """A response as it came over a socket; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    port: int, line: str | bytes, *headers: str, head: Sequence[bytes] = (), body: bytes = b""
) -> HttpAnswer:
    """Sends one request, byte for byte, and returns all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = line.encode() if isinstance(line, str) else line
    writer.write(b"\r\n".join([start, *(header.encode() for header in headers), *head, b"", body]))
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return read_answer(answer)


def read_answer(data: bytes) -> HttpAnswer:
    """Splits the bytes of one response."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    return HttpAnswer(int(status.split()[1]), {name.lower(): value for name, value in pairs}, body)


class RawWebSocket:
    """A WebSocket whose handshake and frames a test writes byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, target: str | bytes = "/?roomId=r&peerName=p", *before: bytes) -> "RawWebSocket":
        """Opens a WebSocket; `before` is sent ahead of the request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path = target.encode() if isinstance(target, str) else target
        headers = [b"GET " + path + b" HTTP/1.1", *(header.encode() for header in WEBSOCKET), b"", b""]
        writer.write(b"".join(before) + b"\r\n".join(headers))
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self) -> tuple[int, bytes]:
        """The opcode and the payload of the next frame; the first byte of a frame is 0x80 and its opcode."""
        async with asyncio.timeout(PATIENCE):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def closed_with(self) -> int:
        """The code of the close frame that comes next, after answers perhaps; the client then ends the connection."""
        while True:
            opcode, payload = await self.receive()
            if opcode == 8:
                self.writer.close()
                return int.from_bytes(payload[:2]) if payload else 1005

    def close(self) -> None:
        self.writer.close()


def client_frame(
    first: int, payload: bytes = b"", *, mask: bytes | None = b"\x01\x02\x03\x04", size: bytes = b""
) -> bytes:
    """A frame of a client: `first` is FIN, reserved bits and opcode; `size` replaces the encoded length."""
    if not size:
        length = len(payload)
        if length < 126:
            size = bytes([length])
        elif length < 65536:
            size = b"\x7e" + length.to_bytes(2)
        else:
            size = b"\x7f" + length.to_bytes(8)
    if mask is None:
        return bytes([first]) + size + payload
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first, size[0] | 0x80]) + size[1:] + mask + masked
