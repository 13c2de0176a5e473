"""Plain HTTP, handshakes and the bounds of addresses at a gateway's public port, byte for byte."""

import asyncio
import contextlib
import gzip
import json
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from gateway import server
from gateway.http import connection, listener
from gateway.protocol.admission import AdmissionLimits
from gateway.server import Gateway
from shared import errors
from shared.protocol import bus
from tests.support.gateways import WEBSOCKET, Client, EchoWorker, HttpAnswer, RawWebSocket, ask, running_gateway
from tests.support.gateways import read_answer as read
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")

PAGE = "<h1>Plenary</h1>" * 50
SCRIPT = "run();" * 200_000


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


class Setup:
    def __init__(self, gateway: Gateway, worker: EchoWorker) -> None:
        self.gateway = gateway
        self.worker = worker
        self.port = gateway.port

    async def ask(self, line: str | bytes, *headers: str, **more: Any) -> HttpAnswer:
        return await ask(self.port, line, *(headers or ("Host: x",)), **more)

    def refused(self, reason: str) -> int:
        return self.gateway.counters.refused.get(reason, 0)

    def rooms(self) -> list[str]:
        return [item.room for item in self.worker.items if isinstance(item, bus.Connect)]


@pytest.fixture
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text(PAGE)
    (page / "app.js").write_text(SCRIPT)
    (page / "app.js.map").write_text("{}")
    async with running_gateway(page=str(page), **getattr(request, "param", {})) as (gateway, worker):
        yield Setup(gateway, worker)


def settings(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setup", [options], indirect=True, ids=[""])


# --- names ------------------------------------------------------------------------------------------------------


async def test_names_in_raw_utf8_are_names_of_their_own(setup: Setup) -> None:
    for room in ("кино", "паук", "Zoë", "Zoé"):
        socket = await RawWebSocket.open(setup.port, f"/?roomId={room}&peerName={room}".encode())
        socket.close()
    await until(lambda: len(setup.rooms()) == 4)
    assert setup.rooms() == ["кино", "паук", "Zoë", "Zoé"]


async def test_raw_and_percent_encoded_utf8_are_the_same_name(setup: Setup) -> None:
    for target in ("/?roomId=кино&peerName=p", "/?roomId=%D0%BA%D0%B8%D0%BD%D0%BE&peerName=p"):
        (await RawWebSocket.open(setup.port, target)).close()
    await until(lambda: len(setup.rooms()) == 2)
    assert set(setup.rooms()) == {"кино"}


async def test_names_of_different_unicode_normal_forms_are_different(setup: Setup) -> None:
    for room in ("Zo\u00eb", "Zoe\u0308"):
        (await RawWebSocket.open(setup.port, f"/?roomId={room}&peerName=p")).close()
    await until(lambda: len(setup.rooms()) == 2)
    assert setup.rooms() == ["Zo\u00eb", "Zoe\u0308"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"roomId=\xcb\xc9\xce\xcf&peerName=p", b"roomId"),
        (b"roomId=r&peerName=Zo\xeb", b"peerName"),
        (b"roomId=r&peerName=p&resume=\xff", b"resume"),
        (b"roomId=r&peerName=p&unknown=\xc3", b"unknown"),
    ],
)
async def test_a_raw_query_that_is_not_utf8_is_400_with_the_field(setup: Setup, query: bytes, field: bytes) -> None:
    answer = await setup.ask(b"GET /?" + query + b" HTTP/1.1", *WEBSOCKET)
    assert (answer.status, answer.body) == (400, field + b": not UTF-8\n")
    assert setup.worker.items == []


@pytest.mark.parametrize("field", ["roomId", "peerName", "resumable", "ack", "unknown"])
async def test_a_percent_encoding_that_is_not_utf8_is_closed_and_logged(setup: Setup, field: str) -> None:
    fields = {"roomId": "r", "peerName": "p"} | {field: "%ff"}
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    with capture_logs() as lines:
        client = await Client.at(f"ws://127.0.0.1:{setup.port}/?{query}")
        assert await client.until_closed() == (errors.BAD_REQUEST.code, errors.BAD_REQUEST.reason)
    (line,) = [line for line in lines if line["event"] == "connection.rejected"]
    assert line["error"] == f"{field}: not UTF-8"
    assert setup.worker.items == []


async def test_a_path_that_is_not_utf8_is_400(setup: Setup) -> None:
    assert (await setup.ask("GET /a%FFb HTTP/1.1")).status == 400
    assert (await setup.ask(b"GET /a\xffb HTTP/1.1")).status == 400


# --- methods and versions (RFC 9110) ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/app.js", "/healthz", "/readyz", "/nothing", "/ws"])
async def test_head_is_answered_as_get_without_the_body(setup: Setup, path: str) -> None:
    whole = await setup.ask(f"GET {path} HTTP/1.1")
    head = await setup.ask(f"HEAD {path} HTTP/1.1")
    assert whole.body
    assert (head.status, head.body) == (whole.status, b"")
    assert head.headers | {"date": ""} == whole.headers | {"date": ""}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
async def test_http_1_0_is_answered(setup: Setup, path: str) -> None:
    answer = await ask(setup.port, f"GET {path} HTTP/1.0")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("check", ["OPTIONS / HTTP/1.0", "HEAD /readyz HTTP/1.0", "OPTIONS * HTTP/1.0"])
async def test_health_checks_of_load_balancers_are_answered(setup: Setup, check: str) -> None:
    assert (await ask(setup.port, check)).status in (200, 204)


@pytest.mark.parametrize("target", ["*", "/", "/ws", "/nothing"])
async def test_options_names_the_methods(setup: Setup, target: str) -> None:
    answer = await setup.ask(f"OPTIONS {target} HTTP/1.1")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, "GET, HEAD, OPTIONS", b"")


@pytest.mark.parametrize(
    ("method", "status"),
    [("POST", 405), ("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("TRACE", 405), ("CONNECT", 405), ("BREW", 501)],
)
async def test_other_methods_are_refused_and_the_allowed_named(setup: Setup, method: str, status: int) -> None:
    answer = await setup.ask(f"{method} / HTTP/1.1", "Host: x", "Content-Length: 5", body=b"hello")
    assert (answer.status, answer.headers["allow"]) == (status, "GET, HEAD, OPTIONS")


async def test_a_response_reaches_a_client_that_is_still_sending(setup: Setup) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    async with asyncio.timeout(PATIENCE):
        assert read(await reader.read()).status == 405
    writer.close()


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("GET / HTTP/2.0", ["Host: x"], 505),
        ("GET / HTTP/1.1", ["X: y"], 400),
        ("GET / HTTP/1.1", ["Host: x", "Host: y"], 400),
        ("GET / HTTP/1.1", ["Host: x", "Name : y"], 400),
        ("GET / HTTP/1.1", ["Host: x", " folded"], 400),
        ("GET /", ["Host: x"], 400),
        ("nonsense", ["Host: x"], 400),
        (f"GET /{'x' * 9000} HTTP/1.1", ["Host: x"], 414),
        (f"GET /{'x' * 40_000} HTTP/1.1", ["Host: x"], 414),
        ("GET / HTTP/1.1", ["Host: x", *["X: y"] * 200], 431),
        ("GET / HTTP/1.1", ["Host: x", f"X: {'y' * 40_000}"], 431),
    ],
)
async def test_an_invalid_request_is_refused_with_its_status(
    setup: Setup, line: str, headers: list[str], status: int
) -> None:
    assert (await setup.ask(line, *headers)).status == status
    assert (await setup.ask("GET /healthz HTTP/1.1")).status == 200


async def test_a_request_may_come_in_pieces_after_empty_lines(setup: Setup) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    for byte in b"\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        assert read(await reader.read()).body == b"alive\n"
    writer.close()


async def test_an_absolute_target_is_taken(setup: Setup) -> None:
    answer = await setup.ask("GET http://plenary.example/healthz HTTP/1.1", "Host: plenary.example")
    assert (answer.status, answer.body) == (200, b"alive\n")
    (await RawWebSocket.open(setup.port, "ws://plenary.example/ws?roomId=r&peerName=p")).close()
    await until(lambda: setup.rooms() == ["r"])


# --- the handshake (RFC 6455 §4) --------------------------------------------------------------------------------


def changed(**fields: str) -> list[str]:
    """The headers of a handshake with some replaced; an empty one is left out."""
    headers = dict(header.split(": ") for header in WEBSOCKET)
    headers |= {name.replace("_", "-"): value for name, value in fields.items()}
    return [f"{name}: {value}" for name, value in headers.items() if value]


@pytest.mark.parametrize(
    "headers",
    [
        changed(Upgrade="WebSocket", Connection="upgrade"),
        changed(Upgrade="h2c, websocket"),
        changed(Connection="keep-alive, Upgrade"),
        [*changed(Connection="keep-alive"), "Connection: Upgrade"],
        [*changed(Upgrade="h2c"), "Upgrade: websocket"],
        [*WEBSOCKET, "Content-Length: 0"],
    ],
)
async def test_every_form_of_an_upgrade_is_accepted(setup: Setup, headers: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    writer.write("\r\n".join(["GET /?roomId=r&peerName=p HTTP/1.1", *headers, "", ""]).encode())
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n" in head
    writer.close()


@pytest.mark.parametrize("version", ["6", "14", "13, 14", "x", ""])
async def test_a_refused_version_is_426_and_names_13(setup: Setup, version: str) -> None:
    answer = await setup.ask("GET /?roomId=r&peerName=p HTTP/1.1", *changed(Sec_WebSocket_Version=version))
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
    assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "upgrade, close")


@pytest.mark.parametrize(
    "headers",
    [
        changed(Connection="close"),
        changed(Sec_WebSocket_Key="AAAA"),
        changed(Sec_WebSocket_Key=""),
        [*WEBSOCKET, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        [*WEBSOCKET, "Content-Length: 3"],
        [*WEBSOCKET, "Transfer-Encoding: chunked"],
    ],
)
async def test_an_invalid_handshake_is_400(setup: Setup, headers: list[str]) -> None:
    assert (await setup.ask("GET /?roomId=r&peerName=p HTTP/1.1", *headers)).status == 400


async def test_http_1_0_has_no_websocket(setup: Setup) -> None:
    assert (await ask(setup.port, "GET /ws?roomId=r&peerName=p HTTP/1.0", *WEBSOCKET)).status == 426


async def test_frames_sent_with_the_handshake_are_not_lost(setup: Setup) -> None:
    text = json.dumps({"request": True, "id": 1, "method": "m", "data": "x" * 9000}).encode()
    frame = b"\x81\xfe" + len(text).to_bytes(2) + bytes(4) + text
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    head = "\r\n".join(["GET /?roomId=r&peerName=p HTTP/1.1", *WEBSOCKET, "", ""]).encode()
    writer.write(head + frame)
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
    socket = RawWebSocket(reader, writer)
    assert json.loads((await socket.receive())[1])["data"] == "x" * 9000
    socket.close()


# --- the page ---------------------------------------------------------------------------------------------------


async def test_the_page_has_the_headers_that_browsers_need(setup: Setup) -> None:
    headers = (await setup.ask("GET / HTTP/1.1")).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "camera=(self), microphone=(self), display-capture=(self)" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"
    assert "strict-transport-security" not in headers


@settings(page_policy="default-src *")
async def test_a_page_of_ones_own_has_a_policy_of_ones_own(setup: Setup) -> None:
    assert (await setup.ask("GET / HTTP/1.1")).headers["content-security-policy"] == "default-src *"


async def test_source_maps_are_not_served(setup: Setup) -> None:
    assert (await setup.ask("GET /app.js.map HTTP/1.1")).status == 404


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("br", False),
    ],
)
async def test_a_file_is_packed_only_for_clients_that_take_it(setup: Setup, accepted: str, packed: bool) -> None:
    answer = await setup.ask("GET /app.js HTTP/1.1", "Host: x", f"Accept-Encoding: {accepted}")
    assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (gzip.decompress(answer.body) if packed else answer.body) == SCRIPT.encode()
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_a_known_file_is_not_sent_again(setup: Setup) -> None:
    plain = (await setup.ask("GET /app.js HTTP/1.1")).headers["etag"]
    packed = (await setup.ask("GET /app.js HTTP/1.1", "Host: x", "Accept-Encoding: gzip")).headers["etag"]
    assert plain != packed
    for tags in (plain, packed, f'"other", W/{plain}', "*"):
        answer = await setup.ask("GET /app.js HTTP/1.1", "Host: x", f"If-None-Match: {tags}")
        assert (answer.status, answer.body) == (304, b"")
        assert "content-length" not in answer.headers
    assert (await setup.ask("GET /app.js HTTP/1.1", "Host: x", 'If-None-Match: "other"')).status == 200


async def test_a_client_that_does_not_read_a_file_is_cut_off(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.02)
    monkeypatch.setattr(connection, "RESPONSE_SECONDS", 0.1)
    monkeypatch.setattr(setup.gateway._site, "_files", dict(setup.gateway._site._files))
    files = setup.gateway._site._files
    files["/app.js"] = files["/app.js"].__class__(b"x" * 50_000_000, None, "text/plain", '"x"', '"x-gzip"')
    slow = socket.create_connection(("127.0.0.1", setup.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.send(b"GET /app.js HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: setup.refused("timeout") == 1)
    await until(lambda: setup.gateway.admission.open == 0)
    slow.close()


# --- slow clients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_request_that_stays_incomplete_is_cut_off(
    setup: Setup, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE):
        while not reader.at_eof() and not setup.refused("timeout"):
            writer.write(b"y" if sent else b"")  # which does not begin the time anew
            await asyncio.sleep(0.01)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""
    writer.close()
    await until(lambda: setup.gateway.admission.open == 0)


# --- addresses --------------------------------------------------------------------------------------------------


async def opened(setup: Setup, count: int, **more: Any) -> list[Client]:
    return [await Client.connect(setup.port, f"room {number}", **more) for number in range(count)]


@settings(connections_per_ip=3)
async def test_connections_of_one_address_beyond_the_limit_are_429(setup: Setup) -> None:
    clients = await opened(setup, 3)
    with capture_logs() as lines:
        for _ in range(5):
            answer = await setup.ask("GET /?roomId=r&peerName=p HTTP/1.1", *WEBSOCKET)
            assert (answer.status, answer.headers["retry-after"]) == (429, "10")
    assert setup.refused("address_connections") == 5
    assert [line["event"] for line in lines].count("connections.refused") == 1
    clients[0].transport.disconnect()
    await until(lambda: setup.gateway.admission.open == 2)
    (await Client.connect(setup.port)).transport.disconnect()


@settings(connections_per_ip=2)
async def test_the_limit_of_an_address_counts_unfinished_requests(setup: Setup) -> None:
    held = [await asyncio.open_connection("127.0.0.1", setup.port) for _ in range(2)]
    await until(lambda: setup.gateway.admission.open == 2)
    assert (await setup.ask("GET / HTTP/1.1")).status == 429
    for _, writer in held:
        writer.close()


@settings(connection_rate_per_ip=0.5)
async def test_new_connections_of_one_address_beyond_the_rate_are_429(setup: Setup) -> None:
    statuses = [(await setup.ask("GET /healthz HTTP/1.1")).status for _ in range(10)]
    assert statuses[:2] == [200, 200]
    assert statuses.count(429) >= 6
    assert setup.refused("address_rate") == statuses.count(429)


@settings(connection_rate=0.5)
async def test_new_connections_beyond_the_rate_of_all_are_503(setup: Setup) -> None:
    statuses = [(await setup.ask("GET /healthz HTTP/1.1")).status for _ in range(10)]
    assert statuses[:2] == [200, 200]
    assert statuses.count(503) >= 6
    assert setup.refused("rate") == statuses.count(503)


async def test_connections_beyond_the_open_files_are_503_and_logged_once(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup.gateway.admission, "limits", AdmissionLimits(files=3))
    await opened(setup, 3)
    with capture_logs() as lines:
        assert [(await setup.ask("GET / HTTP/1.1")).status for _ in range(5)] == [503] * 5
    assert setup.refused("files") == 5
    assert [line["event"] for line in lines] == ["files.exhausted"]


@settings(connections=3)
async def test_connections_beyond_the_limit_of_all_are_503(setup: Setup) -> None:
    await opened(setup, 3)
    assert (await setup.ask("GET / HTTP/1.1")).status == 503
    assert setup.refused("connections") == 1


@settings(connections=3)
async def test_a_connection_without_a_request_makes_room_for_a_client(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.0)
    idle = [await asyncio.open_connection("127.0.0.1", setup.port) for _ in range(3)]
    await until(lambda: len(setup.gateway.http_connections) == 3)
    clients = await opened(setup, 3)
    for reader, writer in idle:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert (await setup.ask("GET / HTTP/1.1")).status == 503
    assert (setup.refused("timeout"), setup.refused("connections")) == (3, 1)
    clients[0].request("still served")
    assert (await clients[0].receive())["data"] == "still served"


@settings(rooms_per_ip=2)
async def test_rooms_of_one_address_beyond_the_limit_are_429(setup: Setup) -> None:
    clients = await opened(setup, 2)
    assert (await setup.ask("GET /?roomId=other&peerName=p HTTP/1.1", *WEBSOCKET)).status == 429
    another = await Client.connect(setup.port, "room 0", "bob")
    for client in (another, clients[0]):
        client.transport.disconnect()
    await until(lambda: setup.gateway.admission.open == 1)
    await Client.connect(setup.port, "other")
    assert setup.refused("address_rooms") == 1


@settings(connections_per_ip=1, trusted_proxies="127.0.0.0/8")
async def test_a_trusted_proxys_forwarded_for_names_the_client(setup: Setup) -> None:
    def of(client: str) -> list[str]:
        return [*WEBSOCKET, "X-Forwarded-For: 6.6.6.6", f"X-Forwarded-For: {client}, 127.0.0.9"]

    async def status(client: str) -> tuple[int, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        lines = ["GET /?roomId=r&peerName=p HTTP/1.1", *of(client), "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(PATIENCE):
            return int((await reader.readline()).split()[1]), writer

    with capture_logs() as lines:
        answers = [await status(client) for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]
    assert [code for code, _ in answers] == [101, 101, 429]
    addresses = [line["address"] for line in lines if line["event"] == "connection.opened"]
    assert addresses == ["192.0.2.1", "192.0.2.2"]
    for _, writer in answers:
        writer.close()


@settings(connections_per_ip=1)
async def test_forwarded_for_of_a_client_counts_for_nothing(setup: Setup) -> None:
    await Client.connect(setup.port, extra_headers={"X-Forwarded-For": "192.0.2.1"})
    answer = await setup.ask("GET / HTTP/1.1", "Host: x", "X-Forwarded-For: 192.0.2.2")
    assert answer.status == 429


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 10, 0, 0, 1]) + b"\x13\x88\x00\x50",
    ],
    ids=["version 1", "version 2"],
)
@settings(connections_per_ip=1, trusted_proxies="127.0.0.1")
async def test_a_trusted_proxys_proxy_protocol_names_the_client(setup: Setup, header: bytes) -> None:
    with capture_logs() as lines:
        socket = await RawWebSocket.open(setup.port, "/?roomId=r&peerName=p", header)
    assert [line["address"] for line in lines if line["event"] == "connection.opened"] == ["192.0.2.1:5000"]
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    for byte in header:
        writer.write(bytes([byte]))
        await writer.drain()
    async with asyncio.timeout(PATIENCE):
        assert read(await reader.read()).status == 429
    socket.close()
    writer.close()


async def test_a_proxy_header_of_anybody_else_is_no_request(setup: Setup) -> None:
    answer = await setup.ask("PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\nGET / HTTP/1.1")
    assert answer.status == 400


@settings(trusted_proxies="127.0.0.1")
async def test_an_invalid_proxy_header_is_cut_off(setup: Setup) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    writer.write(b"PROXY TCP4 somewhere else 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
    writer.close()
    assert setup.refused("malformed") == 1
    await until(lambda: setup.gateway.admission.open == 0)


@settings(trusted_proxies="127.0.0.1")
async def test_a_proxy_that_only_opens_a_connection_is_not_counted_as_a_fault(setup: Setup) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", setup.port)
    await until(lambda: setup.gateway.admission.open == 1)
    writer.close()
    await until(lambda: setup.gateway.admission.open == 0)
    assert setup.gateway.counters.refused == {}


@settings(connections_per_ip=1, connection_rate=0.5, trusted_proxies="127.0.0.1")
async def test_health_checks_of_a_trusted_proxy_are_always_answered(setup: Setup) -> None:
    assert [(await setup.ask("GET /readyz HTTP/1.1")).status for _ in range(10)] == [200] * 10


@settings(trusted_proxies="127.0.0.1")
async def test_a_client_of_a_proxy_with_tls_gets_strict_transport_security(setup: Setup) -> None:
    forwarded = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
    assert (
        "max-age" in (await setup.ask("GET / HTTP/1.1", "Host: x", *forwarded)).headers["strict-transport-security"]
    )
    for headers in (("Host: x", forwarded[0]), ("Host: localhost:8080", *forwarded)):
        assert "strict-transport-security" not in (await setup.ask("GET / HTTP/1.1", *headers)).headers


# --- file descriptors -------------------------------------------------------------------------------------------


@pytest.fixture
def few_files() -> Iterator[None]:
    """Leaves this process about a dozen file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connect_for_ever(port: int, held: list[socket.socket]) -> None:
    while True:
        held.append(socket.create_connection(("127.0.0.1", port)))


async def test_a_gateway_without_file_descriptors_says_so_and_goes_on(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, few_files: None
) -> None:
    monkeypatch.setattr(listener, "WITHOUT_FILES_SECONDS", 0.01)
    client = await Client.connect(setup.port)
    held: list[socket.socket] = []
    with capture_logs() as lines:
        with pytest.raises(OSError, match="Too many open files"):
            _connect_for_ever(setup.port, held)
        held.pop().close()
        held.append(socket.create_connection(("127.0.0.1", setup.port)))
        await until(lambda: setup.refused("files") > 0)
        client.request("still served")
        assert (await client.receive())["data"] == "still served"
        for each in held:
            each.close()
        await until(lambda: setup.gateway.admission.open == 1)
        assert (await setup.ask("GET /healthz HTTP/1.1")).status == 200
    exhausted = [line for line in lines if line["event"] == "files.exhausted"]
    assert len(exhausted) == 1
    assert "too many open files" in exhausted[0]["reason"]


# --- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def certificate(tmp_path: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """The settings of a self-signed certificate, and the context of a client that trusts it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 1 -subj /CN=x"
    made = await asyncio.create_subprocess_exec(*command.split(), stderr=asyncio.subprocess.DEVNULL)
    assert await made.wait() == 0
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.check_hostname = False
    return {"tls_cert": str(cert), "tls_key": str(key)}, trusting


async def test_a_tls_handshake_that_does_not_come_is_cut_off(
    certificate: tuple[dict[str, str], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REQUEST_SECONDS", 0.1)
    async with running_gateway(**certificate[0]) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
        writer.close()
        await until(lambda: gateway.admission.open == 0)
        assert gateway.counters.refused == {"timeout": 1}


async def test_proxy_protocol_comes_before_tls(certificate: tuple[dict[str, str], ssl.SSLContext]) -> None:
    options, trusting = certificate
    async with running_gateway(**options, trusted_proxies="127.0.0.1", connections_per_ip=1) as (gateway, _):
        clients = []
        for address in ("192.0.2.1", "192.0.2.2"):
            sock = socket.create_connection(("127.0.0.1", gateway.port))
            sock.send(b"PROXY TCP4 " + address.encode() + b" 10.0.0.1 5000 80\r\n")
            clients.append(await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname="x"))
        assert gateway.admission.addresses == 2
        for reader, writer in clients:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                assert read(await reader.read()).body == b"alive\n"
            writer.close()


async def test_an_address_over_its_limit_gets_no_tls_handshake(
    certificate: tuple[dict[str, str], ssl.SSLContext],
) -> None:
    files, trusting = certificate
    options: dict[str, Any] = {**files, "connections_per_ip": 1}
    async with running_gateway(**options) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=trusting)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", gateway.port, ssl=trusting)
        assert gateway.counters.refused == {"address_connections": 1}
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: plenary.example\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            answer = read(await reader.read())
        assert (answer.status, answer.headers["strict-transport-security"]) == (200, "max-age=31536000")
        writer.close()
        await until(lambda: gateway.admission.open == 0)
        plain, other = await asyncio.open_connection("127.0.0.1", gateway.port)
        other.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE):
                await plain.read()
        other.close()
        await until(lambda: gateway.admission.open == 0)
