"""The server API over HTTP, with a stand-in for the room worker."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import ClientSession
from fakeredis import FakeAsyncRedis, FakeServer
from structlog.testing import capture_logs

from gateway.api import server
from gateway.api.cluster import ProcessWatch
from gateway.api.operations import ProcessView
from gateway.bus.api_calls import CALL_TIMEOUT
from gateway.server import Gateway
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.registry import DEAD_AFTER, Membership
from shared.errors import Unavailable
from shared.protocol import bus
from shared.settings import GatewaySettings
from tests.support.gateways import EchoWorker, ask
from tests.support.waiting import PATIENCE, until

PARTITIONS = 8
KEY = "a key with ümlaut"


@dataclass
class Setup:
    gateway: Gateway
    worker: EchoWorker
    redis: Any
    redis_server: FakeServer
    http: ClientSession

    async def ask(self, method: str, path: str, *, key: str | None = KEY, **more: Any) -> tuple[int, Any]:
        status, body, _ = await self.ask_all(method, path, key=key, **more)
        return status, body

    async def ask_all(self, method: str, path: str, *, key: str | None = KEY, **more: Any) -> tuple[int, Any, Any]:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        headers |= more.pop("headers", {})
        assert self.gateway.api is not None
        url = f"http://127.0.0.1:{self.gateway.api.port}{path}"
        async with self.http.request(method, url, headers=headers, **more) as answer:
            return answer.status, await answer.json(), answer.headers


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    queues, redis_server = MemoryHub(PARTITIONS), FakeServer()
    redis = FakeAsyncRedis(server=redis_server)
    broker, workers_broker = MemoryBroker(queues), MemoryBroker(queues)
    await broker.connect()
    await workers_broker.connect()
    worker = EchoWorker(workers_broker)
    await worker.start(PARTITIONS)
    options = {"host": "127.0.0.1", "port": 0, "page": "none", "api_port": 0, "partitions": PARTITIONS}
    gateway = Gateway(GatewaySettings(**options, api_key=KEY), broker, RedisCluster(redis))  # type: ignore[arg-type]
    await gateway.start()
    async with ClientSession() as http:
        yield Setup(gateway, worker, redis, redis_server, http)
    await gateway.close()
    await redis.aclose()


async def test_a_call_is_published_to_its_room_and_answered(setup: Setup) -> None:
    status, body = await setup.ask("PUT", "/v1/rooms/salon", json={"idleSeconds": 9})
    assert (status, body) == (200, {"do": "createRoom", "idleSeconds": 9})
    [call] = setup.worker.calls
    assert (call.room, call.reply_to) == ("salon", setup.gateway.id)


@pytest.mark.parametrize("name", ["räum/1 %?#", "☺", "%2F", "a+b", "..a"])
async def test_names_in_paths_are_percent_encoded(setup: Setup, name: str) -> None:
    await setup.ask("DELETE", f"/v1/rooms/{quote(name, safe='')}/peers/{quote(name, safe='')}")
    [call] = setup.worker.calls
    assert call.room == name
    assert msgspec.json.decode(call.action) == {"do": "closePeer", "peer": name}


async def test_an_error_of_the_room_is_the_http_answer(setup: Setup) -> None:
    setup.worker.answer_call = (409, b"codecs: the room has others")
    status, body, headers = await setup.ask_all("PUT", "/v1/rooms/salon")
    assert (status, body) == (409, {"code": 409, "reason": "codecs: the room has others"})
    assert headers["Content-Type"].startswith("application/json")


async def test_an_idempotency_key_is_the_calls_identity(setup: Setup) -> None:
    for _ in range(2):
        await setup.ask("DELETE", "/v1/rooms/salon", headers={"Idempotency-Key": "order-7"})
    await setup.ask("GET", "/v1/rooms/salon", headers={"Idempotency-Key": "order-7"})
    first, second, read = (call.key for call in setup.worker.calls)
    assert first == second == "key:order-7"
    assert read.startswith("call:")
    assert (await setup.ask("DELETE", "/v1/rooms/salon", headers={"Idempotency-Key": "x" * 129}))[0] == 400


async def test_an_unanswered_call_is_503_with_retry_after(setup: Setup) -> None:
    setup.worker.ignores_calls = True
    asking = asyncio.create_task(setup.ask_all("GET", "/v1/rooms/salon"))
    await until(lambda: setup.worker.calls)
    for _ in range(CALL_TIMEOUT + 1):
        await setup.gateway.hub.sweep()
    status, body, headers = await asking
    assert (status, body["code"]) == (503, 503)
    assert int(headers["Retry-After"]) > 0


async def test_a_call_is_repeated_after_silence_until_it_is_answered(setup: Setup) -> None:
    setup.worker.ignores_calls = True
    asking = asyncio.create_task(setup.ask("DELETE", "/v1/rooms/salon"))
    await until(lambda: setup.worker.calls)
    setup.worker.ignores_calls = False
    for _ in range(CALL_TIMEOUT // 2):
        await setup.gateway.hub.sweep()
    assert (await asking)[0] == 200
    assert len({call.key for call in setup.worker.calls}) == 1


async def test_a_closing_gateway_answers_pending_calls_503(setup: Setup) -> None:
    setup.worker.ignores_calls = True
    asking = asyncio.create_task(setup.ask("GET", "/v1/rooms/salon"))
    await until(lambda: setup.worker.calls)
    await setup.gateway.close()
    assert (await asking)[0] == 503


# --- who may ask, and what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1], "\xff"])
async def test_a_request_without_the_right_key_is_401(setup: Setup, key: str | None) -> None:
    for path in ("/v1/rooms", "/v1/rooms/salon", "/v1/status", "/nothing"):
        status, body, headers = await setup.ask_all("GET", path, key=key)
        assert (status, body["code"], headers["WWW-Authenticate"]) == (401, 401, "Bearer")
    assert setup.worker.calls == []


async def test_the_server_api_is_off_without_a_key(setup: Setup) -> None:
    assert Gateway(GatewaySettings(), MemoryBroker(MemoryHub()), RedisCluster(setup.redis)).api is None


async def test_the_openapi_document_and_the_page_need_no_key(setup: Setup) -> None:
    status, body = await setup.ask("GET", "/v1/openapi.json", key=None)
    assert (status, body["openapi"]) == (200, "3.1.0")
    assert setup.gateway.api is not None
    for path in ("/v1", "/v1/"):
        async with setup.http.get(f"http://127.0.0.1:{setup.gateway.api.port}{path}") as page:
            assert "<h1>Plenary server API</h1>" in await page.text()
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v2/rooms", 404), ("POST", "/v1/rooms/salon", 405), ("PUT", "/v1/status", 405)],
)
async def test_an_unknown_path_or_method_is_answered_in_json(
    setup: Setup, method: str, path: str, status: int
) -> None:
    assert (await setup.ask(method, path))[1]["code"] == status


async def test_a_body_above_the_limit_is_413(setup: Setup) -> None:
    status, body = await setup.ask("PUT", "/v1/rooms/salon", data=b" " * (1024 * 1024 + 1))
    assert (status, body["reason"]) == (413, "body: more than 1048576 bytes")


@pytest.mark.parametrize("path", ["/v1/rooms/a%00b", f"/v1/rooms/{'x' * 129}", "/v1/rooms/r/peers/a%0Ab"])
async def test_invalid_names_in_paths_are_400(setup: Setup, path: str) -> None:
    status, body = await setup.ask("GET", path)
    assert (status, body["code"]) == (400, 400)


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (b"/v1/rooms/a%FFb", "room"),
        (b"/v1/rooms/%C3", "room"),
        (b"/v1/rooms/r/peers/%ED%A0%80", "peer"),
        (b"http://x/v1/rooms/a%FFb/peers/p", "room"),
        (b"/v1/rooms?after=%FF", "after"),
        (b"/v1/rooms/r?unknown=%80", "unknown"),
    ],
)
async def test_paths_and_queries_that_are_not_utf8_are_400(setup: Setup, target: bytes, field: str) -> None:
    status, answer = await raw(setup, b"GET " + target + b" HTTP/1.1")
    assert (status, answer["reason"]) == (400, f"{field}: not UTF-8")
    assert setup.worker.calls == []


@pytest.mark.parametrize(
    "target", ["/v1/rooms/кино".encode(), b"/v1/rooms/a\xffb", b"/v1/rooms?after=\xe9", b"nonsense"]
)
async def test_a_target_with_raw_bytes_is_400_and_no_error_line(
    setup: Setup, target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert setup.gateway.api is not None
    key = b"Authorization: Bearer " + KEY.encode()
    answer = await ask(setup.gateway.api.port, b"GET " + target + b" HTTP/1.1", "Connection: close", head=[key])
    assert answer.status == 400
    assert setup.worker.calls == []
    assert caplog.records == []


async def raw(setup: Setup, *lines: bytes, body: bytes = b"") -> tuple[int, Any]:
    """Sends a request byte for byte."""
    assert setup.gateway.api is not None
    key = b"Authorization: Bearer " + KEY.encode()
    answer = await ask(
        setup.gateway.api.port, lines[0], "Connection: close", "Host: x", head=[key, *lines[1:]], body=body
    )
    return answer.status, msgspec.json.decode(answer.body)


# --- bounds -----------------------------------------------------------------------------------------------------


async def open_request(setup: Setup, *headers: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Begins a request with a body, and sends its head."""
    assert setup.gateway.api is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.gateway.api.port)
    key = b"Authorization: Bearer " + KEY.encode()
    part = b"1\r\n{\r\n" if b"Transfer-Encoding: chunked" in headers else b"{"
    writer.write(b"\r\n".join([b"PUT /v1/rooms/salon HTTP/1.1", b"Host: x", key, *headers, b"", part]))
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize(
    "headers", [[b"Content-Length: 100"], [b"Transfer-Encoding: chunked"]], ids=["length", "chunks"]
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_goes_away_in_its_body_leaves_no_traceback(
    setup: Setup, headers: list[bytes], reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as lines:
        _, writer = await open_request(setup, *headers)
        await until(lambda: setup.gateway.api is not None and setup.gateway.api.handling == 1)
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        await until(lambda: setup.gateway.counters.api == {("createRoom", 499): 1})
    assert [line for line in lines if line["log_level"] in ("error", "warning")] == []
    assert caplog.records == []


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"5\r\n{}xxxxx"])
async def test_a_body_in_invalid_chunks_is_400(setup: Setup, chunk: bytes) -> None:
    reader, writer = await open_request(setup, b"Transfer-Encoding: chunked", b"Connection: close")
    writer.write(chunk)
    async with asyncio.timeout(PATIENCE):
        line = await reader.readline()
    assert b" 400 " in line
    writer.close()


async def test_a_body_that_does_not_come_is_408(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.05)
    reader, writer = await open_request(setup, b"Content-Length: 100")
    async with asyncio.timeout(PATIENCE):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_bodies_beyond_the_limit_of_all_are_503(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODIES_BYTES", 250)
    held = [await open_request(setup, b"Content-Length: 100") for _ in range(2)]
    await until(lambda: setup.gateway.api is not None and setup.gateway.api.handling == 2)
    status, _, headers = await setup.ask_all("PUT", "/v1/rooms/salon", data=b"{}" + b" " * 98)
    assert (status, headers["Retry-After"]) == (503, "2")
    assert (await setup.ask("PUT", "/v1/rooms/salon", data=b"{}"))[0] == 200
    for _, writer in held:
        writer.close()
    await until(lambda: setup.gateway.api is not None and setup.gateway.api.handling == 0)
    assert (await setup.ask("PUT", "/v1/rooms/salon", data=b"{}" + b" " * 98))[0] == 200


async def test_requests_beyond_the_limit_of_all_are_503(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUESTS_LIMIT", 2)
    held = [await open_request(setup, b"Content-Length: 100") for _ in range(2)]
    await until(lambda: setup.gateway.api is not None and setup.gateway.api.handling == 2)
    assert (await setup.ask("GET", "/v1/rooms"))[0] == 503
    for _, writer in held:
        writer.close()


async def test_too_many_or_too_large_headers_are_400(setup: Setup) -> None:
    assert setup.gateway.api is not None
    for headers in (["X: y"] * 200, [f"X: {'y' * 10_000}"]):
        assert (await ask(setup.gateway.api.port, "GET /v1/rooms HTTP/1.1", "Host: x", *headers)).status == 400


# --- what needs no room -----------------------------------------------------------------------------------------


async def put_in_index(setup: Setup, *rooms: str) -> None:
    for room in rooms:
        p = bus.partition_of(room, PARTITIONS)
        await setup.redis.sadd(f"plenary:partition:{p}", f"{quote(room, safe='')}#incarnation")


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
async def test_every_room_is_on_exactly_one_page_of_the_list(setup: Setup, limit: int) -> None:
    rooms = [f"räum {n}#/%" for n in range(40)]
    await put_in_index(setup, *rooms)
    found: list[str] = []
    after = ""
    while True:
        query = {"limit": str(limit)} | ({"after": after} if after else {})
        status, page = await setup.ask("GET", "/v1/rooms", params=query)
        assert status == 200
        assert len(page["rooms"]) <= limit
        found += [room["name"] for room in page["rooms"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert sorted(found) == sorted(rooms)
    assert len(found) == len(rooms)


async def test_a_room_removed_between_two_pages_hides_no_other(setup: Setup) -> None:
    await put_in_index(setup, *(f"room{n}" for n in range(20)))
    _, first = await setup.ask("GET", "/v1/rooms", params={"limit": "5"})
    last = first["next"]
    await setup.redis.srem(f"plenary:partition:{bus.partition_of(last, PARTITIONS)}", f"{last}#incarnation")
    _, rest = await setup.ask("GET", "/v1/rooms", params={"after": last})
    assert len(first["rooms"]) + len(rest["rooms"]) == 20


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "9" * 20])
async def test_an_invalid_page_limit_is_400(setup: Setup, limit: str) -> None:
    status, body = await setup.ask("GET", "/v1/rooms", params={"limit": limit})
    assert (status, body["reason"]) == (400, "limit: expected a number from 1 to 1000")


async def test_the_status_lists_gateways_workers_and_nodes(setup: Setup) -> None:
    _, status = await setup.ask("GET", "/v1/status")
    assert [(process["id"], process["alive"]) for process in status["gateways"]] == [(setup.gateway.id, True)]
    assert (status["workers"], status["nodes"]) == ([], [])


async def test_the_status_tells_live_processes_from_dead_ones(setup: Setup) -> None:
    await Membership(RedisCluster(setup.redis), "workers", "worker-1", {"rooms": 3}).beat()
    watch = ProcessWatch(RedisCluster(setup.redis))
    await watch.read_registry(1000.0)
    assert watch.status().workers == [ProcessView("worker-1", True, {"rooms": 3, "beat": 1})]
    await watch.read_registry(1000.0 + DEAD_AFTER)
    assert watch.status().workers == [ProcessView("worker-1", False, {})]


async def test_list_and_status_are_503_without_redis(setup: Setup) -> None:
    setup.redis_server.connected = False
    status, body = await setup.ask("GET", "/v1/rooms")
    assert (status, body["code"]) == (503, 503)
    watch = ProcessWatch(RedisCluster(setup.redis))
    await watch.read_registry(1000.0)
    with pytest.raises(Unavailable):
        watch.status()
