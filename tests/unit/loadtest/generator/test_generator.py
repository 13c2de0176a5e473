"""The rules of the generator: what it counts as the server's failure, and what as its own, at any latency."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.generator import participant
from loadtest.generator.generator import Generator
from loadtest.generator.plan import Plan, SecondReport
from loadtest.generator.profiles import PROFILES
from loadtest.generator.virtual_peer import Peer
from loadtest.model import room_view
from loadtest.model.measurements import Measured
from tests.unit.loadtest.generator.fake_server import Clock, FakeServer, run

ROOMS = ("room0", "room1")
PEERS = 4

Disturbance = Callable[[FakeServer, Clock], None]


def measured(
    monkeypatch: pytest.MonkeyPatch,
    server: FakeServer,
    profile: str,
    *,
    disturb: Disturbance | None = None,
    at: float = 0.0,
    duration: float = 120.0,
    churn: float = 0.0,
    seed: str = "seed",
) -> Measured:
    """Runs a generator against the server; `disturb` is called `at` seconds after the start."""
    whole, clock = Measured(), Clock()

    def report(tick: SecondReport) -> None:
        whole.merge(Measured.load(tick.measured))

    async def work() -> None:
        loop = asyncio.get_running_loop()
        if disturb is not None:
            loop.call_later(at, disturb, server, clock)
        plan = Plan(
            urls=["ws://server"],
            rooms=list(ROOMS),
            peers=PEERS,
            profile=PROFILES[profile],
            began=clock.now,
            ramp=5.0,
            duration=duration,
            churn=churn,
            seed=seed,
        )
        await Generator(plan, report).run()

    monkeypatch.setattr(participant, "ProtooClient", server.client)
    run(clock, work, monkeypatch)
    print(whole.failures, whole.examples, whole.counts)
    return whole


@pytest.mark.parametrize("latency", [0.02, 30.0])
@pytest.mark.parametrize("profile", ["calls", "messages", "joins", "presence"])
def test_correct_server_has_no_failures_at_any_latency(
    monkeypatch: pytest.MonkeyPatch, profile: str, latency: float
) -> None:
    duration = 70.0 if profile == "messages" else 250.0
    found = measured(monkeypatch, FakeServer(latency), profile, churn=0.2, duration=duration)
    assert found.failures == {}
    assert found.methods["join"].count >= len(ROOMS) * PEERS
    assert found.methods["join"].percentile(50) == pytest.approx(latency, rel=0.05)
    assert found.fanout["newPeer"].percentile(50) == pytest.approx(latency, rel=0.05)


@pytest.mark.parametrize("latency", [0.5, 30.0])
@pytest.mark.parametrize("method", ["createProducer", "createTransport", "join", "leave", "enableConsumer"])
def test_refused_request_is_one_error_and_later_answers_change_nothing(
    monkeypatch: pytest.MonkeyPatch, method: str, latency: float
) -> None:
    """The peer gives up its life in the room while other requests of it are under way."""
    server = FakeServer(latency)
    server.refuse = {(method, 9): 503}
    found = measured(monkeypatch, server, "calls", churn=0.2, duration=400.0)
    assert server.seen[method] >= 9
    assert found.failures == {"errors": 1}


@pytest.mark.parametrize("latency", [0.2, 30.0])
@pytest.mark.parametrize(("profile", "at", "duration"), [("calls", 300.0, 500.0), ("messages", 60.0, 120.0)])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_room_that_comes_again_after_its_sessions_ended_is_no_mismatch(
    monkeypatch: pytest.MonkeyPatch, profile: str, at: float, duration: float, latency: float, seed: str
) -> None:
    server = FakeServer(latency)
    found = measured(
        monkeypatch,
        server,
        profile,
        disturb=lambda server, _: server.end_sessions(ROOMS[0]),
        at=at,
        duration=duration,
        churn=0.05,
        seed=seed,
    )
    assert set(found.failures) == {"sessions"}
    assert 0 < found.failures["sessions"] <= PEERS


def test_answer_after_leaving_is_counted_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(30.0)
    server.refuse = {("createProducer", 9): 503}
    found = measured(monkeypatch, server, "calls", churn=0.2, duration=600.0)
    assert found.failures == {"errors": 1}
    assert found.counts["answers after leaving"] > 0


def test_stall_of_the_generator_is_its_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(
        monkeypatch, FakeServer(0.02), "messages", disturb=lambda _, clock: clock.stand_still(5.0), at=60.0
    )
    assert found.failures == {"overloaded": 1}
    assert "5.0 s" in found.examples["overloaded"][0][1]


def test_short_stall_of_the_generator_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(
        monkeypatch, FakeServer(0.02), "messages", disturb=lambda _, clock: clock.stand_still(0.8), at=60.0
    )
    assert found.failures == {}


def test_generator_that_cannot_keep_its_rate_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every action takes longer than the pause to the next."""
    say = Peer.say

    def slow(peer: Peer, due: float) -> None:
        clock.stand_still(0.2)
        say(peer, due)

    clocks: list[Clock] = []
    clock = Clock()

    def disturb(_: FakeServer, running: Clock) -> None:
        nonlocal clock
        clock = running
        clocks.append(running)
        monkeypatch.setattr(Peer, "say", slow)

    found = measured(monkeypatch, FakeServer(0.02), "messages", disturb=disturb, at=100.0, duration=110.0)
    assert clocks
    assert found.failures["overloaded"] >= 2
    assert set(found.failures) == {"overloaded"}


def test_error_in_the_generators_code_is_its_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    control = Peer.control
    calls: Counter[str] = Counter()

    def faulty(peer: Peer, due: float) -> None:
        calls["control"] += 1
        if calls["control"] == 5:
            raise KeyError("a mistake of the generator")
        control(peer, due)

    monkeypatch.setattr(Peer, "control", faulty)
    found = measured(monkeypatch, FakeServer(0.02), "calls")
    assert found.failures == {"broken": 1}
    assert "a mistake of the generator" in found.examples["broken"][0][1]


def test_error_in_a_callback_is_the_generators_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    view = room_view.RoomView.notified

    def faulty(self: Any, method: str, data: Any) -> None:
        view(self, method, data)
        seen["notified"] += 1
        if seen["notified"] == 7:
            raise AssertionError("a mistake of the generator")

    monkeypatch.setattr(room_view.RoomView, "notified", faulty)
    found = measured(monkeypatch, FakeServer(0.02), "messages")
    assert found.failures == {"broken": 1}


def test_request_that_is_never_answered_is_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(0.02)
    handle = server.handle
    asked: Counter[str] = Counter()

    def silent(client: Any, method: str, data: dict[str, Any]) -> Any:
        asked[method] += 1
        if method == "message" and asked[method] == 20:
            client._open[min(client._open)] = client._open[min(client._open)]
            client._later = lambda *_: None  # from here on this client gets nothing
        return handle(client, method, data)

    monkeypatch.setattr(server, "handle", silent)
    found = measured(monkeypatch, server, "messages")
    assert found.failures["unanswered"] >= 1
    assert "broken" not in found.failures
