"""A short sample of the attacks: no process dies, and the victims are answered. `make hostile` makes all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from devtools.servers import Server
from devtools.starting import Unavailable
from tests.hostile.catalogue import ATTACKS
from tests.hostile.driver import Plan, run
from tests.hostile.limits import MemoryCgroups, compose_limits, memory_cgroups
from tests.hostile.verdict import MIB, Latency, Outcome

SECONDS = 3.0
SAMPLED = (
    "pings",
    "capabilities",
    "unknown-names",
    "fragments",
    "nested-json",
    "over-rate",
    "fan-out",
    "static-files",
)
GOOD = Outcome("pings", "one socket", victim=Latency(1200, 0.003, 0.05), back_after=0.5)


@pytest.fixture
def groups() -> Iterator[MemoryCgroups]:
    try:
        with memory_cgroups() as groups:
            yield groups
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def limited_redis(redis_server: Server, redis_url: str) -> Iterator[Server]:
    """A Redis whose memory the test may limit; it has no limit afterwards."""
    if not redis_server.killable:
        pytest.skip("this server was given by its address and must not be limited")
    yield redis_server
    client: Any = redis.Redis.from_url(redis_url, socket_timeout=5)
    client.config_set("maxmemory", "0")
    client.close()


@pytest.mark.servers
@pytest.mark.sample(1, of="name")
@pytest.mark.parametrize("name", SAMPLED)
async def test_attack_kills_no_process_and_victims_are_answered(
    name: str,
    groups: MemoryCgroups,
    limited_redis: Server,
    rabbitmq_server: Server,
    amqp_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    assert amqp_url == rabbitmq_server.url
    plan = Plan(SECONDS, control=0.0, left_after=0.0, seed=request.config.option.seed)
    outcomes = [it async for it in run([name], groups, limited_redis, rabbitmq_server, tmp_path, plan, print)]
    (outcome,) = outcomes
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    print(outcome.as_json())
    assert outcome.died == []
    assert outcome.failed == ""
    assert outcome.victim is not None
    assert outcome.victim.samples > 10 * SECONDS
    assert outcome.victim.unserved == 0
    assert sum(outcome.counts.values()) > 0


def test_limits_are_those_of_the_compose_file() -> None:
    limits = compose_limits()
    assert limits["gateway"] == limits["roomworker"] == 1024 * MIB
    assert {"medianode", "rabbitmq", "redis"} <= limits.keys()


def test_outcome_in_which_everything_held_passes() -> None:
    assert GOOD.passed
    assert all(GOOD.checks().values())


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"died": ["gateway1"]}, "no process died"),
        ({"victim": Latency(999, 0.003, 0.05)}, "1000 samples"),
        ({"victim": Latency(1200, 0.003, 0.15)}, "victims were served"),
        ({"victim": Latency(1200, 0.003, 0.4), "control": Latency(1200, 0.003, 0.1)}, "victims were served"),
        ({"back_after": None}, "back within 10 s"),
        ({"back_after": 11.0}, "back within 10 s"),
        ({"left_keys": ["room:{a}"]}, "nothing left in Redis"),
        ({"left_bytes": MIB}, "nothing left in Redis"),
        ({"failed": "ended with 1"}, "the attack was made"),
        ({"server_checks": {"not ready": False}}, "not ready"),
    ],
)
def test_outcome_in_which_something_did_not_hold_fails(changes: dict[str, Any], wrong: str) -> None:
    outcome = msgspec.structs.replace(GOOD, **changes)
    assert not outcome.passed
    assert [name for name, held in outcome.checks().items() if not held] == [wrong]


def test_slow_victims_pass_beside_a_control_run_that_is_nearly_as_slow() -> None:
    slow = msgspec.structs.replace(GOOD, victim=Latency(1200, 0.1, 0.29), control=Latency(1200, 0.05, 0.1))
    assert slow.passed


def test_attack_on_a_server_is_judged_without_latency() -> None:
    outcome = msgspec.structs.replace(GOOD, victim=Latency(1200, 5.0, 20.0), judges_latency=False)
    assert outcome.passed


def test_every_attack_of_the_issue_is_there() -> None:
    assert len(ATTACKS) == 13
    assert set(SAMPLED) <= set(ATTACKS)
