"""The internal HTTP server: its answers before a role works, while it works and when it is in trouble."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest
from prometheus_client import Metric

from plenary.processes.event_loop import CannotStart
from plenary.processes.internal_http import InternalServer, internal_server
from plenary.processes.process_metrics import RedisConnectionCounter
from shared.broker import Broker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.settings import Common
from shared.telemetry.metrics import MetricDescription, gauge
from tests.support.gateways import ask

ANSWER = gauge("answer", "…")


class Role:
    described: tuple[MetricDescription, ...] = (ANSWER,)

    def __init__(self) -> None:
        self.problem = ""
        self.answer = 0

    def trouble(self) -> str:
        return self.problem

    async def refresh(self) -> None:
        self.answer = 42

    def collect(self) -> Iterable[Metric]:
        yield ANSWER.with_value(self.answer)


@pytest.fixture
async def server() -> AsyncIterator[InternalServer]:
    async with internal_server(Common(metrics_port=0), "worker") as server:
        yield server


@pytest.fixture
def port(server: InternalServer) -> int:
    return server.port


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = MemoryBroker(MemoryHub(4))
    yield broker
    await broker.close()


async def get(port: int, path: str, accept: str = "") -> tuple[int, str]:
    headers = {"Accept": accept} if accept else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_process_is_alive_before_its_role_is_ready(server: InternalServer, port: int, broker: Broker) -> None:
    assert await get(port, "/healthz") == (200, "alive\n")
    assert await get(port, "/readyz") == (503, "not ready: worker: starting\n")

    redis = RedisConnectionCounter()
    server.watcher("worker")(broker, redis)
    assert await get(port, "/readyz") == (503, "not ready: worker: Redis has not answered yet\n")
    redis.connections = 1
    assert await get(port, "/readyz") == (503, "not ready: worker: no connection to the message broker yet\n")
    await broker.connect()
    assert await get(port, "/readyz") == (503, "not ready: worker: starting\n")

    server.add_role("worker", Role().trouble, Role())
    assert await get(port, "/readyz") == (200, "ready\n")


async def test_role_in_trouble_is_not_ready_with_the_reason(server: InternalServer, port: int) -> None:
    role = Role()
    server.add_role("worker", role.trouble, role)
    role.problem = "draining"
    assert await get(port, "/readyz") == (503, "not ready: worker: draining\n")
    assert await get(port, "/healthz") == (200, "alive\n")
    assert 'plenary_ready{role="worker"} 0.0' in (await get(port, "/metrics"))[1]


async def test_each_scrape_refreshes_the_role(server: InternalServer, port: int) -> None:
    server.add_role("worker", Role().trouble, Role())
    status, text = await get(port, "/metrics")
    assert status == 200
    assert "plenary_answer 42.0" in text.splitlines()


async def test_openmetrics_is_served_if_the_client_accepts_it(server: InternalServer, port: int) -> None:
    _, text = await get(port, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


async def test_broker_metrics_count_the_connections_of_this_process(
    server: InternalServer, port: int, broker: Broker
) -> None:
    server.watcher("worker")(broker, None)
    assert "plenary_broker_up 0.0" in (await get(port, "/metrics"))[1]
    await broker.connect()
    await asyncio.gather(*(broker.publish("rooms", str(n % 4), b"") for n in range(3)))
    lines = (await get(port, "/metrics"))[1].splitlines()
    assert "plenary_broker_up 1.0" in lines
    assert "plenary_broker_connections_total 1.0" in lines
    assert "plenary_broker_published_total 3.0" in lines


async def test_port_in_use_is_named_with_the_setting_to_change(server: InternalServer, port: int) -> None:
    with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{port}: .*in use.*PLENARY_METRICS_PORT"):
        async with internal_server(Common(metrics_port=port), "worker"):
            pass


async def test_server_without_a_port_does_not_listen() -> None:
    before = asyncio.all_tasks()
    async with internal_server(Common(), "worker") as server:
        server.add_role("worker", Role().trouble, Role())
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HEAD /healthz HTTP/1.1", 200),
        ("HEAD /readyz HTTP/1.0", 503),
        ("GET /healthz HTTP/1.0", 200),
        ("OPTIONS / HTTP/1.0", 204),
        ("OPTIONS /readyz HTTP/1.1", 204),
        ("POST /healthz HTTP/1.1", 405),
    ],
)
async def test_health_checks_may_use_any_safe_method_and_http_1_0(port: int, line: str, status: int) -> None:
    assert (await ask(port, line, "Host: x", "Connection: close")).status == status
