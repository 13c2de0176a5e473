"""A gateway with real sockets, a broker in the process and a room worker that echoes."""

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
import uvloop
from fakeredis import FakeAsyncRedis
from picows import WSMsgType
from redis.exceptions import ConnectionError as RedisGone
from structlog.testing import capture_logs

from devtools import servers
from gateway.http import site
from gateway.protocol.repeat_timer import LONGEST_INTERVAL
from gateway.server import Gateway
from gateway.websocket import hub
from gateway.websocket.connection import Connection
from gateway.websocket.socket import CLOSING_SWEEPS
from shared import errors
from shared.broker.amqp import AmqpBroker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.errors import CloseKind
from shared.protocol import bus
from shared.settings import GatewaySettings
from tests.support.gateways import Client, EchoWorker, FaultyBroker
from tests.support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@dataclass
class Setup:
    gateway: Gateway
    queues: MemoryHub
    broker: FaultyBroker
    worker: EchoWorker
    redis: Any

    async def client(self, room: str = "room", peer: str = "alice") -> Client:
        return await Client.connect(self.gateway.port, room, peer)

    async def echo(self, client: Client, data: Any) -> None:
        id_ = client.request(data)
        assert await client.receive() == {"response": True, "id": id_, "ok": True, "data": data}

    def session(self, number: int = 1) -> str:
        return f"{self.gateway.id}.{number}"

    async def sweep(self, times: int = LONGEST_INTERVAL) -> None:
        for _ in range(times):
            await self.gateway.hub.sweep()


@pytest.fixture
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<h1>Plenary</h1>" * 50)
    (page / "assets" / "app.js").write_text("run()")
    (tmp_path / "secret.txt").write_text("secret")
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "page": str(page), "name": "gw"}
    options |= getattr(request, "param", {})
    queues, redis = MemoryHub(), FakeAsyncRedis()
    broker, workers_broker = FaultyBroker(queues), MemoryBroker(queues)
    await broker.connect()
    await workers_broker.connect()
    worker = EchoWorker(workers_broker)
    await worker.start(32)
    gateway = Gateway(GatewaySettings(**options), broker, RedisCluster(redis))
    await gateway.start()
    yield Setup(gateway, queues, broker, worker, redis)
    await gateway.close()
    await redis.aclose()


def settings(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setup", [options], indirect=True, ids=[""])


def closing(kind: CloseKind) -> tuple[int, str]:
    return kind.code, kind.reason


# --- the way of a message -----------------------------------------------------------------------------------


async def test_requests_of_a_connection_are_answered_in_order(setup: Setup) -> None:
    client = await setup.client("räum 1", "Zoë")
    assert client.subprotocol == "protoo"
    ids = [client.request({"number": number}) for number in range(100)]
    answers = [await client.receive() for _ in ids]
    assert [answer["id"] for answer in answers] == ids
    assert [answer["data"]["number"] for answer in answers] == list(range(100))
    connect = setup.worker.items[0]
    assert isinstance(connect, bus.Connect)
    assert (connect.room, connect.peer, connect.session) == ("räum 1", "Zoë", setup.session())
    assert setup.worker.numbers(setup.session()) == list(range(101))


async def test_inputs_of_a_room_are_published_to_its_partition(setup: Setup) -> None:
    for room in ("one", "two", "three"):
        await setup.echo(await setup.client(room), room)
    assert {key for key, _ in setup.broker.published} == {
        str(bus.partition_of(room, 32)) for room in ("one", "two", "three")
    }


async def test_a_closed_socket_is_reported_and_its_record_removed(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    client.transport.send_close(1000)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await setup.gateway.hub.empty.wait()
    assert isinstance(setup.worker.items[-1], bus.Disconnect)


async def test_a_client_without_the_subprotocol_is_accepted(setup: Setup) -> None:
    url = f"ws://127.0.0.1:{setup.gateway.port}/ws?roomId=r&peerName=p"
    client = await Client.at(url, extra_headers=[("Sec-WebSocket-Protocol", "other")])
    assert client.subprotocol is None
    await setup.echo(client, 1)


async def test_a_message_reaches_its_recipients_and_no_other_session(setup: Setup) -> None:
    alice, bob = await setup.client(peer="alice"), await setup.client(peer="bob")
    await setup.echo(alice, 0)
    await setup.echo(bob, 0)
    to = [
        bus.Recipient(1, setup.session(1), 2),
        bus.Recipient(2, setup.session(2), 2),
        bus.Recipient(1, "gw-of-before.1", 2),
        bus.Recipient(99, setup.session(99), 1),
    ]
    body = bus.encode_to_gateway(bus.ToGateway([bus.Message(b'{"notification":true}', to)], []))
    await setup.worker.broker.publish("notify", f"{setup.gateway.id}.1", body)
    assert await alice.receive() == await bob.receive() == {"notification": True}
    assert setup.gateway.counters.undeliverable_total == 2


async def test_large_messages_pass_unchanged_in_both_directions(setup: Setup) -> None:
    client = await setup.client()
    for size in (8180, 9000, 70_000, 200_000, 10):
        client.request("x" * size)
    assert [len((await client.receive())["data"]) for _ in range(5)] == [8180, 9000, 70_000, 200_000, 10]


async def test_fragments_are_joined(setup: Setup) -> None:
    client = await setup.client()
    client.send('{"request":true,"id":9,"method":"m",', fin=False)
    client.send('"data":"\u00e9"'.encode()[:-2], WSMsgType.CONTINUATION, fin=False)
    client.transport.send_ping(b"between")
    client.send(b'\xa9"}', WSMsgType.CONTINUATION)
    assert (await client.receive())["data"] == "é"


# --- faults of the broker and the worker ----------------------------------------------------------------------


async def test_a_lost_output_is_replayed(setup: Setup) -> None:
    client = await setup.client()
    setup.worker.loses = 1
    ids = [client.request(1), client.request(2)]
    assert [(await client.receive())["id"] for _ in ids] == ids
    assert any(isinstance(item, bus.Replay) for item in setup.worker.items)


async def test_outputs_lost_with_the_notify_queue_are_replayed(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.queues.drop(setup.broker, heal=False)
    assert "broker" in setup.gateway.trouble()
    await setup.worker.send(setup.session(), b'{"notification":true}')
    setup.queues.restore(setup.broker)
    assert await client.receive() == {"notification": True}
    assert setup.gateway.trouble() == ""


async def test_inputs_sent_during_a_broker_outage_arrive_afterwards(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.queues.drop(setup.broker, heal=False)
    ids = [client.request(number) for number in range(5)]
    late = await setup.client(peer="bob")
    late_id = late.request("late")
    setup.queues.restore(setup.broker)
    assert [(await client.receive())["id"] for _ in ids] == ids
    assert (await late.receive())["id"] == late_id


async def test_unpublished_requests_are_answered_503_in_a_long_broker_outage(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """protoo-client gives up after 22 s, and cannot know then whether its request was done."""
    monkeypatch.setattr(hub, "DEPENDENCY_SWEEPS", 2)
    client = await setup.client()
    await setup.echo(client, 1)
    setup.queues.drop(setup.broker, heal=False)
    ids = [client.request(number) for number in range(5)]
    for id_ in ids:
        answer = await client.receive()
        assert (answer["id"], answer["errorCode"]) == (id_, 503)
    ids.append(client.request("later"))
    assert (await client.receive())["errorCode"] == 503
    setup.queues.restore(setup.broker)
    await until(lambda: not setup.gateway.hub.dependencies_down)
    await setup.echo(client, "afterwards")
    assert not [item for item in setup.worker.items if isinstance(item, bus.Input) and item.id in ids]
    assert setup.gateway.counters.rejected_frames_total("unavailable") == 6


async def test_requests_are_answered_503_at_once_in_a_long_redis_outage(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "DEPENDENCY_SWEEPS", 2)
    client = await setup.client()
    await setup.echo(client, 1)
    with monkeypatch.context() as gone:
        gone.setattr(setup.redis, "hset", _fail)
        await until(lambda: setup.gateway.hub.dependencies_down)
        client.request(2)
        assert (await client.receive())["errorCode"] == 503
    await until(lambda: not setup.gateway.hub.dependencies_down)
    await setup.echo(client, 3)


async def test_inputs_confirmed_and_lost_by_the_broker_are_published_again(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.broker.forgetful = True
    before = len(setup.broker.published)
    id_ = client.request("forgotten")
    await until(lambda: len(setup.broker.published) > before)
    setup.broker.forgetful = False
    await setup.sweep()
    assert (await client.receive())["id"] == id_
    assert setup.worker.numbers(setup.session()) == [0, 1, 2]


async def test_a_gap_reported_by_the_worker_is_filled(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.broker.forgetful = True
    before = len(setup.broker.published)
    first = client.request("forgotten")
    await until(lambda: len(setup.broker.published) > before)
    setup.broker.forgetful = False
    second = client.request("arrives")
    assert [(await client.receive())["id"], (await client.receive())["id"]] == [first, second]


async def test_a_rejected_publish_is_repeated_in_order(setup: Setup) -> None:
    setup.broker.nack_next = 2
    client = await setup.client()
    ids = [client.request(number) for number in range(3)]
    assert [(await client.receive())["id"] for _ in ids] == ids
    assert setup.worker.numbers(setup.session()) == [0, 1, 2, 3]


async def test_a_session_unknown_to_the_worker_is_closed(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.worker.known.clear()
    client.request(2)
    assert await client.until_closed() == closing(errors.SESSION_UNKNOWN)
    async with asyncio.timeout(20):
        await setup.gateway.hub.empty.wait()


async def test_an_invalid_batch_from_a_worker_disturbs_no_client(setup: Setup) -> None:
    client = await setup.client()
    await setup.worker.broker.publish("notify", f"{setup.gateway.id}.1", b"\xc1nonsense")
    await setup.echo(client, 1)


# --- bad frames -----------------------------------------------------------------------------------------------


async def test_malformed_frames_are_answered_and_disturb_no_other_client(setup: Setup) -> None:
    bad, good = await setup.client(peer="bad"), await setup.client(peer="good")
    for frame in (b"", b"{", b"[]", b'{"request":true,"method":"m"}', b"[" * 100_000):
        bad.send(frame)
        complaint = await bad.receive()
        assert (complaint["method"], complaint["data"]["errorCode"]) == ("error", 400)
        await setup.echo(good, "fine")
    bad.send(b"\x00\x01", WSMsgType.BINARY)
    assert "binary" in (await bad.receive())["data"]["errorReason"]
    bad.send('{"response":true,"id":3,"ok":true}')
    bad.send('{"notification":true}')
    await setup.echo(bad, "still here")


@settings(frame_limit=2000)
async def test_a_rejected_request_is_answered_in_its_turn(setup: Setup) -> None:
    client = await setup.client()
    client.send('{"request":true,"id":101}')
    client.send(json.dumps({"request": True, "id": 102, "method": "m", "data": "x" * 3000}))
    client.send(json.dumps({"request": True, "id": 103, "method": "m", "data": json.loads("[" * 65 + "]" * 65)}))
    client.send(json.dumps({"request": True, "id": 104, "method": "m", "data": "fine"}))
    answers = [await client.receive() for _ in range(4)]
    assert [(answer["id"], answer.get("errorCode")) for answer in answers] == [
        (101, 400),
        (102, 413),
        (103, 400),
        (104, None),
    ]


async def test_a_frame_above_1_mib_closes_the_connection(setup: Setup) -> None:
    client = await setup.client()
    client.send("x" * (1024 * 1024 + 1))
    assert (await client.until_closed())[0] == errors.TOO_BIG.code


async def test_fragments_above_1_mib_close_the_connection(setup: Setup) -> None:
    client = await setup.client()
    client.send("x" * 700_000, fin=False)
    client.send("x" * 700_000, WSMsgType.CONTINUATION)
    assert await client.until_closed() == closing(errors.TOO_BIG)


async def test_a_continuation_without_a_start_closes_the_connection(setup: Setup) -> None:
    client = await setup.client()
    client.send("x", WSMsgType.CONTINUATION)
    assert await client.until_closed() == closing(errors.PROTOCOL)


# --- closing, slowness, bounds ----------------------------------------------------------------------------------


async def test_a_close_from_the_room_follows_earlier_messages(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    session = setup.session()
    await setup.worker.send(session, b'{"notification":true,"method":"last"}')
    await setup.worker.send(session, b"replaced by a newer connection of this peer", errors.REPLACED.code)
    assert (await client.receive())["method"] == "last"
    assert await client.until_closed() == closing(errors.REPLACED)


@settings(send_buffer=64 * 1024)
async def test_a_client_that_does_not_read_is_closed_and_delays_no_other(setup: Setup) -> None:
    slow, quick = await setup.client(peer="slow"), await setup.client(peer="quick")
    await setup.echo(slow, 0)
    slow.transport.underlying_transport.pause_reading()
    chunk = b'{"notification":true,"data":"%s"}' % (b"x" * 100_000)
    while not setup.gateway.counters.too_slow_total:
        await setup.worker.send(setup.session(1), chunk)
    await setup.echo(quick, "fine")
    await setup.sweep(CLOSING_SWEEPS + 1)
    await setup.worker.until(lambda: any(isinstance(item, bus.Disconnect) for item in setup.worker.items))


@settings(send_buffer=64 * 1024)
async def test_a_slow_client_that_recovers_gets_close_code_4003(setup: Setup) -> None:
    slow = await setup.client()
    await setup.echo(slow, 0)
    slow.transport.underlying_transport.pause_reading()
    chunk = b'{"notification":true,"data":"%s"}' % (b"x" * 100_000)
    while not setup.gateway.counters.too_slow_total:
        await setup.worker.send(setup.session(1), chunk)
    slow.transport.underlying_transport.resume_reading()
    assert await slow.until_closed() == closing(errors.TOO_SLOW)
    assert slow.frames
    assert all(frame == json.loads(chunk) for frame in slow.frames)


@settings(unapplied_limit=8)
async def test_a_socket_is_not_read_while_too_many_inputs_are_unapplied(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 0)
    setup.worker.ignores_input = True
    ids = [client.request("x" * 3000) for _ in range(100)]
    hub = setup.gateway.hub
    await until(lambda: hub.paused)
    assert hub.connections[1].session.unapplied < 50
    setup.worker.ignores_input = False
    await setup.sweep()
    assert [(await client.receive())["id"] for _ in ids] == ids
    assert not hub.paused
    assert hub.unapplied_bytes.total == 0


async def test_a_client_that_answers_no_ping_is_cut_off(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 0)
    client.transport.underlying_transport.pause_reading()
    connection = cast("Connection", setup.gateway.hub.connections[1])
    connection.check_alive()
    connection.check_alive()
    assert connection.ping_unanswered
    connection.check_alive()
    await setup.worker.until(lambda: isinstance(setup.worker.items[-1], bus.Disconnect))


async def test_a_client_that_answers_pings_stays_connected(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 0)
    connection = cast("Connection", setup.gateway.hub.connections[1])
    for _ in range(3):
        connection.check_alive()
        await until(lambda: connection.received_since_check or not connection.ping_unanswered)
    await setup.echo(client, 1)


# --- who may come in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "",
        "roomId=r",
        "peerName=p",
        "roomId=&peerName=p",
        "roomId=r&roomId=s&peerName=p",
        f"roomId={'r' * 129}&peerName=p",
        f"roomId=r&peerName={quote('é' * 65)}",
        "roomId=r&peerName=a%00b",
        "roomId=r&peerName=%c2%85",
        "roomId=%ff&peerName=p",
        "&".join("a=b" for _ in range(100)) + "&roomId=r&peerName=p",
    ],
)
async def test_a_socket_with_invalid_names_gets_a_close_code(setup: Setup, query: str) -> None:
    client = await Client.at(f"ws://127.0.0.1:{setup.gateway.port}/?{query}")
    assert await client.until_closed() == closing(errors.BAD_REQUEST)
    assert setup.worker.items == []


async def test_names_of_the_maximum_length_are_accepted(setup: Setup) -> None:
    await setup.echo(await setup.client("é" * 64, "x" * 128), 1)


async def test_tls_serves_page_and_websocket(setup: Setup, tmp_path: Path) -> None:
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate with")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 1 -subj /CN=localhost"
    await (await asyncio.create_subprocess_exec(openssl, *command.split(), stderr=asyncio.subprocess.DEVNULL)).wait()
    options = GatewaySettings(host="127.0.0.1", port=0, page="none", tls_cert=str(cert), tls_key=str(key))
    gateway = Gateway(options, setup.broker, RedisCluster(setup.redis))
    await gateway.start()
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.check_hostname = False
    url = f"wss://127.0.0.1:{gateway.port}/?roomId=r&peerName=p"
    client = await Client.at(url, ssl_context=trusting)
    for size in (10, 9000, 200_000):
        await setup.echo(client, "x" * size)
    await gateway.close()
    assert (await client.until_closed())[0] == 1006


# --- too fast ---------------------------------------------------------------------------------------------------


@settings(message_rate=0.001, message_burst=2)
async def test_requests_above_the_rate_are_answered_429_in_their_turn(setup: Setup) -> None:
    client = await setup.client()
    for _ in range(4):
        client.request(1)
    answers = [await client.receive() for _ in range(4)]
    assert [answer.get("errorCode") for answer in answers] == [None, None, 429, 429]
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4]
    refused = [item for item in setup.worker.items if isinstance(item, bus.RejectedInput)]
    assert [(item.n, item.id, item.code) for item in refused] == [(3, 3, 429), (4, 4, 429)]


async def test_rejected_notifications_of_one_client_do_not_fill_the_log(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 0)
    await setup.sweep()
    with capture_logs() as lines:
        for _ in range(20):
            client.send('{"notification": true, "data": {}}')
        await setup.echo(client, 1)
    assert setup.gateway.counters.rejected_frames["dropped", 400] == 20
    assert 0 < sum(line["event"] == "notification.rejected" for line in lines) <= 2 * hub.REJECTIONS_LOGGED


@settings(message_rate=0.001, message_burst=1)
async def test_notifications_above_the_rate_are_dropped_and_counted(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    for _ in range(3):
        client.send('{"notification": true, "method": "m", "data": {}}')
    client.send("no JSON")
    client.request(2)
    assert (await client.receive())["errorCode"] == 429
    counters = setup.gateway.counters
    assert (
        counters.rate_limited_total,
        counters.rejected_frames_total("dropped"),
        counters.rejected_frames_total("malformed"),
    ) == (5, 4, 0)
    assert setup.worker.numbers(setup.session()) == [0, 1, 2]


@settings(message_rate=0, message_burst=1)
async def test_a_message_rate_of_zero_is_no_limit(setup: Setup) -> None:
    client = await setup.client()
    ids = [client.request(number) for number in range(300)]
    assert [(await client.receive())["ok"] for _ in ids] == [True] * 300


# --- plain HTTP -------------------------------------------------------------------------------------------------


async def http(port: int, request: str) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    async with asyncio.timeout(20):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def get(setup: Setup, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    return await http(setup.gateway.port, "\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers]))


async def test_the_page_is_served_and_revalidated(setup: Setup) -> None:
    status, headers, body = await get(setup, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body == b"<h1>Plenary</h1>" * 50
    status, _, body = await get(setup, "/", f"If-None-Match: {headers['etag']}")
    assert (status, body) == (304, b"")
    status, packed, body = await get(setup, "/", "Accept-Encoding: gzip, br")
    assert (status, packed["content-encoding"]) == (200, "gzip")
    assert len(body) < 200
    assert (await get(setup, "/assets/app.js?v=1"))[1]["content-type"] == "text/javascript; charset=utf-8"


async def test_a_new_build_of_the_page_is_served_after_a_moment(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "CHECK_EVERY", 0.01)
    page = tmp_path / "page"

    async def served(path: str) -> bytes:
        return (await get(setup, path))[2]

    assert b"Plenary" in await served("/")
    (page / "index.html").write_text("new")
    (page / "new.js").write_text("run()")

    async def new_page_served() -> bool:
        return (await served("/"), await served("/new.js")) == (b"new", b"run()")

    async def no_page_served() -> bool:
        return (await get(setup, "/"))[0] == 404

    await until(new_page_served)
    shutil.rmtree(page)
    await until(no_page_served)


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../secret.txt", "/assets/../../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/assets"],
)
async def test_paths_outside_the_page_folder_are_404(setup: Setup, path: str) -> None:
    assert (await get(setup, path))[0] == 404


async def test_other_http_methods_are_rejected(setup: Setup) -> None:
    assert (await get(setup, "/", method="POST"))[0] == 405


async def test_firefoxs_connection_header_is_accepted(setup: Setup) -> None:
    status, _, _ = await http(
        setup.gateway.port,
        "GET /nowhere HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n"
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    assert status == 404
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.gateway.port)
    writer.write(
        b"GET /?roomId=r&peerName=p HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with asyncio.timeout(20):
        assert b"101" in await reader.readline()
    writer.close()


async def test_rejected_sockets_are_logged_with_address_code_and_reason(setup: Setup) -> None:
    with capture_logs() as lines:
        client = await Client.at(f"ws://127.0.0.1:{setup.gateway.port}/?roomId=r&resume=TOKEN")
        await client.until_closed()
        setup.gateway.hub.unapplied_bytes.total = hub.UNAPPLIED_BYTES_LIMIT + 1
        client = await Client.at(f"ws://127.0.0.1:{setup.gateway.port}/?roomId=r&peerName=p")
        await client.until_closed()
    rejected = [line for line in lines if line["event"] == "connection.rejected"]
    assert [(line["code"], line["reason"]) for line in rejected] == [
        closing(errors.BAD_REQUEST),
        closing(errors.UNAVAILABLE),
    ]
    assert all(line["address"].startswith("127.0.0.1:") for line in rejected)
    assert "TOKEN" not in str(lines)


async def test_refused_upgrades_are_logged_with_status_and_reason(setup: Setup) -> None:
    headers = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    with capture_logs() as lines:
        bad, _, body = await get(
            setup, "/?roomId=r&peerName=p", *headers, "Sec-WebSocket-Version: 6", "User-Agent: x"
        )
        setup.gateway.hub.draining = True
        draining, _, _ = await get(setup, "/?roomId=r&peerName=p", *headers, "Sec-WebSocket-Version: 13")
    assert (bad, draining) == (426, 503)
    assert body == b"Sec-WebSocket-Version: expected 13\n"
    rejected = [line for line in lines if line["event"] == "connection.rejected"]
    assert [(line["code"], line["reason"], line["user_agent"]) for line in rejected] == [
        (426, "Sec-WebSocket-Version: expected 13", "x"),
        (503, "draining", ""),
    ]


async def test_hundreds_of_clients_can_connect_while_the_gateway_is_busy(setup: Setup) -> None:
    # The event loop gets no turn meanwhile, so that the kernel alone holds the connections.
    sockets = [socket.create_connection(("127.0.0.1", setup.gateway.port), timeout=5) for _ in range(400)]
    for each in sockets:
        each.close()
    await setup.echo(await setup.client(), 1)


async def test_readiness_says_what_is_wrong(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await get(setup, "/healthz"))[0] == 200
    assert (await get(setup, "/readyz"))[0] == 200
    setup.queues.drop(setup.broker, heal=False)
    status, _, body = await get(setup, "/readyz")
    assert (status, b"broker" in body) == (503, True)
    assert (await get(setup, "/healthz"))[0] == 200
    setup.queues.restore(setup.broker)
    monkeypatch.setattr(setup.redis, "hset", _fail)
    await until(setup.gateway.trouble)
    assert "Redis" in setup.gateway.trouble()
    await setup.echo(await setup.client(), "works all the same")


async def _fail(*_: Any) -> None:
    raise RedisGone("away")


# --- the gateway's own life ---------------------------------------------------------------------------------------


async def test_a_gateway_is_registered_until_it_closes(setup: Setup) -> None:
    entry = await setup.redis.hget("plenary:gateways", setup.gateway.id)
    assert json.loads(entry)["beat"] >= 1
    await setup.gateway.drain()
    await setup.gateway.close()
    assert await setup.redis.hgetall("plenary:gateways") == {}


async def test_a_gateway_that_cannot_listen_leaves_no_registration(setup: Setup) -> None:
    options = GatewaySettings(host="127.0.0.1", port=setup.gateway.port, page="none", name="second")
    second = Gateway(options, setup.broker, RedisCluster(setup.redis))
    with pytest.raises(OSError, match="in use"):
        await second.start()
    assert list(await setup.redis.hgetall("plenary:gateways")) == [setup.gateway.id.encode()]


async def test_accept_times_of_simultaneous_connections_differ(setup: Setup) -> None:
    for _ in range(5):
        await setup.echo(await setup.client(), 1)
    accepted = [item.accepted for item in setup.worker.items if isinstance(item, bus.Connect)]
    assert accepted == sorted(set(accepted))


async def test_a_drain_closes_all_sockets_and_waits_for_disconnects(setup: Setup) -> None:
    clients = [await setup.client(peer=f"peer {number}") for number in range(50)]
    for client in clients:
        await setup.echo(client, 1)
    port = setup.gateway.port
    await setup.gateway.drain()
    assert {await client.until_closed() for client in clients} == {closing(errors.DRAINING)}
    assert sum(isinstance(item, bus.Disconnect) for item in setup.worker.items) == len(clients)
    assert setup.gateway.trouble() == "draining"
    with pytest.raises(OSError, match="Connect"):
        await Client.connect(port)


@settings(drain_seconds=0.1)
async def test_a_drain_is_bounded_when_no_worker_answers(setup: Setup) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    setup.worker.ignores_input = True
    await setup.gateway.drain()
    assert await client.until_closed() == closing(errors.DRAINING)
    assert setup.gateway.hub.connections


# --- the real broker ----------------------------------------------------------------------------------------------


@pytest.mark.servers
async def test_requests_are_answered_once_and_in_order_across_a_rabbitmq_kill(
    killable_rabbitmq: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "DEPENDENCY_SWEEPS", 1000)  # on a busy machine RabbitMQ takes longer to start than 10 s
    links = [
        AmqpBroker(killable_rabbitmq.url, partitions=4, queue_type="classic", name=name)
        for name in ("gateway", "worker")
    ]
    for link in links:
        await link.connect()
    worker = EchoWorker(links[1])
    await worker.start(4)
    options = GatewaySettings(host="127.0.0.1", port=0, page="none", partitions=4)
    gateway = Gateway(options, links[0], RedisCluster(FakeAsyncRedis()))
    await gateway.start()
    clients = [await Client.connect(gateway.port, f"room {number}") for number in range(10)]
    answers: list[list[int]] = [[] for _ in clients]

    async def talk(number: int, count: int) -> None:
        ids = [clients[number].request(number) for _ in range(count)]
        answers[number] += [(await clients[number].receive())["id"] for _ in ids]

    await asyncio.gather(*(talk(number, 20) for number in range(10)))
    talking = asyncio.gather(*(talk(number, 100) for number in range(10)))
    await asyncio.to_thread(killable_rabbitmq.kill)
    await asyncio.to_thread(killable_rabbitmq.restart)
    await talking
    assert answers == [list(range(1, 121))] * 10
    await gateway.drain()
    assert not gateway.hub.connections
    await gateway.close()
    for link in links:
        await link.close()
