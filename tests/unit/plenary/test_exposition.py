"""The internal HTTP port: what it says before, while and after a role does its work."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import aiohttp
import pytest
from prometheus_client import Metric

from plenary.exposition import Exposition, exposition
from plenary.process import CannotStart
from plenary.process_metrics import RedisLink
from shared.broker import Broker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.settings import Common
from shared.telemetry.metrics import Described, gauge

ANSWER = gauge("answer", "…")


class Role:
    described: tuple[Described, ...] = (ANSWER,)

    def __init__(self) -> None:
        self.problem = ""
        self.answer = 0

    def trouble(self) -> str:
        return self.problem

    async def refresh(self) -> None:
        self.answer = 42

    def collect(self) -> Iterable[Metric]:
        yield ANSWER.of(self.answer)


@pytest.fixture
async def shown() -> AsyncIterator[Exposition]:
    async with exposition(Common(metrics_port=0), "worker") as shown:
        yield shown


@pytest.fixture
def port(shown: Exposition) -> int:
    return shown.port


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


async def test_a_process_lives_before_its_role_is_ready(shown: Exposition, port: int, broker: Broker) -> None:
    assert await get(port, "/healthz") == (200, "alive\n")
    assert await get(port, "/readyz") == (503, "not ready: worker: starting\n")

    link = RedisLink()
    shown.starting("worker")(broker, link)
    assert await get(port, "/readyz") == (503, "not ready: worker: Redis has not answered yet\n")
    link.connections = 1
    assert await get(port, "/readyz") == (503, "not ready: worker: no connection to the message broker yet\n")
    await broker.connect()
    assert await get(port, "/readyz") == (503, "not ready: worker: starting\n")

    shown.serves("worker", Role().trouble, Role())
    assert await get(port, "/readyz") == (200, "ready\n")


async def test_a_role_in_trouble_is_not_ready_and_says_why(shown: Exposition, port: int) -> None:
    role = Role()
    shown.serves("worker", role.trouble, role)
    role.problem = "draining"
    assert await get(port, "/readyz") == (503, "not ready: worker: draining\n")
    assert await get(port, "/healthz") == (200, "alive\n")
    assert 'plenary_ready{role="worker"} 0.0' in (await get(port, "/metrics"))[1]


async def test_a_role_is_asked_anew_by_each_scrape(shown: Exposition, port: int) -> None:
    shown.serves("worker", Role().trouble, Role())
    status, text = await get(port, "/metrics")
    assert status == 200
    assert "plenary_answer 42.0" in text.splitlines()


async def test_openmetrics_is_served_if_the_client_accepts_it(shown: Exposition, port: int) -> None:
    _, text = await get(port, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


async def test_broker_metrics_are_those_of_its_own_connections(shown: Exposition, port: int, broker: Broker) -> None:
    shown.starting("worker")(broker, None)
    assert "plenary_broker_up 0.0" in (await get(port, "/metrics"))[1]
    await broker.connect()
    await asyncio.gather(*(broker.publish("rooms", str(n % 4), b"") for n in range(3)))
    lines = (await get(port, "/metrics"))[1].splitlines()
    assert "plenary_broker_up 1.0" in lines
    assert "plenary_broker_connections_total 1.0" in lines
    assert "plenary_broker_published_total 3.0" in lines


async def test_a_port_that_is_taken_is_named_with_what_to_do(shown: Exposition, port: int) -> None:
    with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{port}: .*in use.*PLENARY_METRICS_PORT"):
        async with exposition(Common(metrics_port=port), "worker"):
            pass


async def test_without_a_port_nothing_is_served() -> None:
    before = asyncio.all_tasks()
    async with exposition(Common(), "worker") as shown:
        shown.serves("worker", Role().trouble, Role())
        assert asyncio.all_tasks() == before
