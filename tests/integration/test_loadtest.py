"""`plenary loadtest` against a small cluster with the null engine: what it says, and that it can fail."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from devtools.cluster import ROOT, Cluster, from_scratch
from devtools.probes import empty_rabbitmq, empty_redis
from devtools.servers import Server
from loadtest.client.protoo import ProtooClient
from loadtest.generator import generator
from loadtest.generator.generator import Generator
from loadtest.generator.plan import Plan, SecondReport
from loadtest.generator.profiles import PROFILES
from loadtest.generator.virtual_peer import Peer
from loadtest.model.measurements import Measured
from loadtest.model.room_view import RoomView
from tests.support.reference_cycles import cycles_of

pytestmark = [pytest.mark.servers, pytest.mark.sample(10)]
WITHIN = 120.0


@pytest.fixture(scope="module")
def cluster(
    redis_server: Server, rabbitmq_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One for all tests here: their rooms have different names."""
    empty_redis(redis_server.url)
    empty_rabbitmq(rabbitmq_server.url)
    logs = tmp_path_factory.mktemp("loadtest")
    # The load test recognises processes by their command lines, which forks do not have.
    cluster = Cluster(redis_server.url, rabbitmq_server.url, logs, partitions=8, start=from_scratch)
    with cluster.running():
        yield cluster


@pytest.fixture
def urls(cluster: Cluster) -> list[str]:
    return [cluster.roles[name].url for name in ("gateway1", "gateway2")]


def command(urls: list[str], *arguments: str) -> list[str]:
    addresses = [word for url in urls for word in ("--url", url)]
    return [sys.executable, "-m", "plenary", "loadtest", *addresses, *arguments]


def loadtest(urls: list[str], *arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = subprocess.run(
        command(urls, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout + done.stderr


SMALL = ("--rooms", "3", "--peers", "3", "--ramp", "1", "--duration", "3")


def test_calls_profile_passes_and_is_reported_as_text_json_and_html(
    urls: list[str], rabbitmq_server: Server, tmp_path: Path
) -> None:
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "html")}
    written = ("--json", str(files["json"]), "--html", str(files["html"]))
    rates = ("--churn", "2", "--processes", "2", "--amqp-url", rabbitmq_server.url, "--partitions", "8")
    code, said = loadtest(urls, *SMALL, *rates, *written, "--slo", "join.p99<60s", "--slo", "lost==0")
    assert code == 0
    assert re.search(r"met +join.p99<60s", said)

    result = json.loads(files["json"].read_text())
    assert result["passed"]
    assert result["failed"] == 0
    assert 0 < result["peak"]["joined"] <= result["peak"]["connected"] <= 9  # some leave before the last has come
    assert {"queryRoom", "join", "createTransport", "createProducer", "enableConsumer", "leave"} <= set(
        result["methods"]
    )
    assert result["methods"]["join"]["count"] == result["methods"]["leave"]["count"] >= 9 + 3
    assert result["steps"]["ready"]["count"] >= 9
    assert {"newPeer", "newConsumer", "peerClosed"} <= set(result["fanout"])
    watched = set(result["processes"][-1]["cpu"])
    assert {"gateway 1", "gateway 2", "room worker 1", "room worker 2", "media node", "load generators"} <= watched
    assert any(sample["queued"] is not None for sample in result["processes"])

    page = files["html"].read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") >= 7
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)


def test_missed_objective_fails_the_run(urls: list[str]) -> None:
    code, said = loadtest(urls[:1], *SMALL, "--slo", "join.p50<1us")
    assert code == 1
    assert re.search(r"not met +join.p50<1us", said)
    assert said.rstrip().endswith("failed")


def test_death_of_the_only_gateway_fails_the_run(cluster: Cluster) -> None:
    gateway = cluster.gateway("doomed")
    with subprocess.Popen(
        command([gateway.url], *SMALL[:-1], "6", "--profile", "joins"), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if " joined; " in line:
                gateway.kill()
                break
        said = running.stdout.read()
    assert running.returncode == 1
    assert "could not connect" in said or "ended with" in said


def test_interrupted_run_ends_in_order_and_reports(urls: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with subprocess.Popen(
        command(urls, *SMALL[:-1], "300", "--json", str(file)), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if " joined; " in line:
                running.send_signal(signal.SIGINT)
                break
        said = running.stdout.read()
    assert running.returncode == 0
    assert "passed, interrupted" in said
    result = json.loads(file.read_text())
    assert result["interrupted"]
    assert result["methods"]["leave"]["count"] == result["methods"]["join"]["count"]


def test_generator_that_stands_still_makes_the_run_invalid(urls: list[str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    with subprocess.Popen(
        command(urls, *SMALL[:-1], "8", "--json", str(file)), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if " joined; " in line:
                [generator] = psutil.Process(running.pid).children()
                generator.suspend()
                time.sleep(2.5)
                generator.resume()
                break
        said = running.stdout.read()
    assert running.returncode == 3
    assert "invalid: load generator at fault" in said
    result = json.loads(file.read_text())
    assert (result["verdict"], result["passed"]) == ("invalid", False)
    assert set(result["failures"]) == {"overloaded"}


def test_run_without_a_gateway_at_the_address_does_not_start() -> None:
    code, said = loadtest(["ws://127.0.0.1:9"], *SMALL)
    assert code == 2
    assert "ws://127.0.0.1:9: no answer" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slo", "join.p98<5ms"), "no statistic 'p98'; one of p50"),
        (("--profile", "cals"), "'cals' is none of calls, messages"),
        (("--url", "localhost:8080"), "expected an address like ws://127.0.0.1:8080"),
        (("--html", "/nowhere/report.html"), "there is no folder /nowhere"),
    ],
)
def test_bad_option_is_named_in_the_error(arguments: tuple[str, ...], words: str) -> None:
    code, said = loadtest([], *arguments)
    assert code == 2
    assert words in re.sub(r"[\s│]+", " ", said)


# --- each kind of violation is found ---------------------------------------------------------------------------


async def measured(urls: list[str], profile: str, seconds: float = 3.0) -> Measured:
    """Runs a generator in this process and returns what it counts."""
    whole = Measured()

    def report(tick: SecondReport) -> None:
        whole.merge(Measured.load(tick.measured))

    plan = Plan(
        urls=[url.replace("http", "ws", 1) for url in urls],
        rooms=[f"spoilt-{time.monotonic_ns()}-{number}" for number in range(2)],
        peers=4,
        profile=PROFILES[profile],
        began=time.monotonic(),
        ramp=1.0,
        duration=seconds,
        churn=0.0,
        seed="spoilt",
    )
    async with asyncio.timeout(WITHIN):
        await Generator(plan, report).run()
    print(whole.failures, whole.examples)
    return whole


Told = Callable[[RoomView, str, Any], None]


def spoil(monkeypatch: pytest.MonkeyPatch, what: str, how: Callable[[Told, RoomView, str, Any], None]) -> None:
    """Hands the fifth notification `what` to `how` instead of the view."""
    told: Told = RoomView.notified
    seen: Counter[str] = Counter()

    def notified(view: RoomView, method: str, data: Any) -> None:
        name = data.get("method", method)
        seen[name] += 1
        if name == what and seen[name] == 5:
            how(told, view, method, data)
        else:
            told(view, method, data)

    monkeypatch.setattr(RoomView, "notified", notified)


def lose(told: Told, view: RoomView, method: str, data: Any) -> None:
    pass


def double(told: Told, view: RoomView, method: str, data: Any) -> None:
    told(view, method, data)
    told(view, method, data)


@pytest.mark.parametrize("profile", PROFILES)
async def test_profile_without_disturbance_has_no_failures(urls: list[str], profile: str) -> None:
    assert not (await measured(urls, profile)).failures


async def test_connections_that_end_leave_no_cycles(urls: list[str]) -> None:
    """Generators never look for cycles: that would be measured as latency."""
    with cycles_of("loadtest", "picows") as left:
        await measured(urls, "joins")
    assert not left & {"ProtooClient", "Connection", "WSTransport"}


@pytest.mark.parametrize(
    ("profile", "what"),
    [("messages", "message"), ("calls", "newConsumer"), ("calls", "newPeer"), ("joins", "peerClosed")],
)
async def test_lost_notification_is_found(
    urls: list[str], monkeypatch: pytest.MonkeyPatch, profile: str, what: str
) -> None:
    spoil(monkeypatch, what, lose)
    assert (await measured(urls, profile)).failures["lost"] >= 1


@pytest.mark.parametrize(
    ("profile", "what"), [("messages", "message"), ("calls", "newConsumer"), ("calls", "newPeer")]
)
async def test_repeated_notification_is_found(
    urls: list[str], monkeypatch: pytest.MonkeyPatch, profile: str, what: str
) -> None:
    spoil(monkeypatch, what, double)
    assert (await measured(urls, profile)).failures["duplicated"] >= 1


async def test_missing_answer_is_found(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "ANSWER_SECONDS", 2.0)
    answered = ProtooClient._answered
    seen = 0

    def forgetful(session: ProtooClient, frame: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        if seen != 60:
            answered(session, frame)

    monkeypatch.setattr(ProtooClient, "_answered", forgetful)
    failures = (await measured(urls, "messages")).failures
    assert failures["unanswered"] == 1


async def test_room_that_differs_from_what_peers_were_told_is_found(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lists a peer that no notification named."""
    list_peers = Peer.list_peers

    async def seeing_more(peer: Peer) -> list[dict[str, Any]]:
        return [*await list_peers(peer), {"name": "mallory", "consumers": [], "appData": {"life": 1}}]

    monkeypatch.setattr(Peer, "list_peers", seeing_more)
    found = await measured(urls, "calls")
    assert found.failures == {"mismatch": 2}
    assert "mallory: the server has life 1" in found.examples["mismatch"][0][1]
