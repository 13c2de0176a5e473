"""The systems that `make bench` compares answer every message once and deliver it once to each other client."""

import asyncio
import signal
from collections.abc import Callable, Iterator

import pytest

from benchmarks.compare import floor as floors
from benchmarks.compare.calls import call_after_call
from benchmarks.compare.clients import CheckFailed, LoadClient, PlainClient, ResumableClient, SocketIoClient
from benchmarks.compare.floor import Floor
from benchmarks.compare.load import Fleet, pace, saturate
from benchmarks.compare.processes import cpu_seconds
from benchmarks.compare.systems import NodeProcess, Plenary, Servers, SocketIo, System, Unavailable
from devtools.starting import Unavailable as NotInstalled

pytestmark = [pytest.mark.servers, pytest.mark.sample(6)]

SYSTEMS: dict[str, Callable[[Servers], System]] = {
    "Plenary": lambda servers: Plenary(servers, "always"),
    "Node": lambda _: NodeProcess(),
    "python-socketio": SocketIo,
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    try:
        with Servers() as started:
            yield started
    except (NotInstalled, FileNotFoundError) as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request: pytest.FixtureRequest, servers: Servers) -> Iterator[System]:
    try:
        made = SYSTEMS[request.param](servers)
    except Unavailable as why:
        pytest.skip(str(why))
    with made:
        yield made


async def relays(system: System, make: type[LoadClient]) -> None:
    """`settled`, inside, raises `CheckFailed` if an answer or a delivery is missing or comes twice."""
    processes = system.processes
    fleet = await Fleet(make, system.url, 8, 4).open()
    before = fleet.sent
    saturated = await saturate(fleet, 0.3, 2, lambda: cpu_seconds(processes), warm=0.1)
    paced = await pace(fleet, 0.3, 100, lambda: cpu_seconds(processes), warm=0.1)
    assert fleet.tally.answered == fleet.sent > before + 30
    assert fleet.tally.delivered == 3 * fleet.sent
    assert saturated["requests"] > 0
    assert paced["requests"] == 30
    fleet.close()


async def test_every_message_is_answered_and_delivered_once(system: System) -> None:
    await relays(system, system.client)


async def test_resumable_sessions_are_numbered_without_gaps(system: System) -> None:
    if not isinstance(system, Plenary):
        pytest.skip("only Plenary has them")
    await relays(system, ResumableClient)


async def test_call_is_set_up_to_the_last_consumer(system: System) -> None:
    if system.client is not PlainClient:
        pytest.skip("it has no calls")
    sample = await call_after_call(system, 0.2, 2)
    assert sample["calls"] >= 2
    assert sample["requests_per_call"] == 4 * (2 + 2 + 2 + 6)


async def test_floor_answers_every_request(servers: Servers) -> None:
    async with Floor(servers, "always") as floor:
        assert (await floor.pace(0.3, 100, warm=0.1))["requests"] == 30


async def test_floor_answers_everything_after_redis_stood_still(servers: Servers) -> None:
    """The responder then has hundreds of requests in work, and opens no connection for each of them."""
    async with Floor(servers, "always") as floor:
        servers.redis["always"].pause()
        sending = asyncio.create_task(floor.pace(0.6, 1000, warm=0.0))
        await asyncio.sleep(0.5)
        servers.redis["always"].resume()
        assert (await sending)["requests"] == 600


async def test_floor_reports_a_responder_that_ends_or_stalls(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "ANSWER_SECONDS", 1.0)
    async with Floor(servers, "always") as floor:
        floor._process.send_signal(signal.SIGSTOP)
        with pytest.raises(CheckFailed, match=r"left \d+ requests unanswered for 1 s"):
            await floor.pace(0.1, 100, warm=0.0)
        floor._process.kill()
        with pytest.raises(CheckFailed, match="responder ended with exit code -9"):
            await floor.pace(0.1, 100, warm=0.0)


class Scripted(SocketIoClient):
    """A client that receives what the test gives it."""

    def hear(self, sender: int, n: int) -> None:
        self.on_text(b'42["message",{"from":"x","data":"%012d"}]' % (sender * 10**8 + n))


@pytest.mark.parametrize(
    ("heard", "right"),
    [([1, 2, 3], True), ([1, 3, 2], True), ([1, 2], False), ([1, 3], False), ([1, 2, 2, 3], False)],
)
async def test_lost_and_repeated_messages_are_found(heard: list[int], right: bool) -> None:
    fleet = Fleet(Scripted, "", 2, 2)
    alice, bob = (Scripted("", "room", n, [1 - n], fleet.tally) for n in range(2))
    fleet.clients = [alice, bob]
    bob.sent = fleet.tally.answered = 3
    for n in heard:
        alice.hear(1, n)
    if right:
        await fleet.settled(0.1)
    else:
        with pytest.raises(CheckFailed):
            await fleet.settled(0.1)
