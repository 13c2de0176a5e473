"""The goals of the comparison: ratios within one round, so that other load disturbs both systems alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.compare.load import Sample
from benchmarks.compare.processes import OTHERS
from benchmarks.compare.run import AT_RATE, IDLE, IN_CALLS, SATURATED, SATURATED_LARGE

Samples = Mapping[str, Mapping[str, list[Sample]]]
Round = Callable[[str, str], Sample]
"""The sample of one round, by system and workload."""

US, NODE, SOCKETIO, FLOOR = "Plenary", "Node", "python-socketio", "floor"
KIB: Final = 1024
DISTURBED_CORES: Final = 0.3


@dataclass(frozen=True)
class Goal:
    """A goal: `value` of the rounds must be at least, or at most, `bound`."""

    text: str
    value: Callable[[Round], float]
    bound: float
    at_least: bool
    once: bool = False
    """True if the value is measured once, not in every round."""

    def judged(self, samples: Samples) -> "Judged | None":
        """Returns the judgement, or None if a figure that the goal needs was not measured."""
        rounds = 1 if self.once else len(samples.get(US, {}).get(SATURATED, ()))
        values, disturbances = [], []
        for number in range(rounds):
            used: list[Sample] = []

            def of(system: str, workload: str, number: int = number, used: list[Sample] = used) -> Sample:
                used.append(samples[system][workload][number])
                return used[-1]

            try:
                values.append(self.value(of))
            except (KeyError, IndexError):
                return None
            disturbances.append(max(sample.get("cores", {}).get(OTHERS, 0.0) for sample in used))
        return Judged(self, values, disturbances) if values else None


@dataclass(frozen=True)
class Judged:
    goal: Goal
    values: list[float]
    """The values of the rounds."""
    disturbances: list[float]
    """The most cores that the rest of the machine used meanwhile, in each round."""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool:
        return self.value >= self.goal.bound if self.goal.at_least else self.value <= self.goal.bound

    @property
    def disturbed(self) -> bool:
        """Whether other load disturbed most rounds so much that the value says little."""
        return median(self.disturbances) > DISTURBED_CORES

    def plain(self) -> dict[str, Any]:
        return {
            "goal": self.goal.text,
            "bound": self.goal.bound,
            "at_least": self.goal.at_least,
            "value": round(self.value, 4),
            "rounds": [round(value, 4) for value in self.values],
            "met": self.met,
            "disturbed": self.disturbed,
        }


def _ratio(metric: str, workload: str, other: str) -> Callable[[Round], float]:
    return lambda of: float(of(US, workload)[metric] / of(other, workload)[metric])


def _own(metric: str, workload: str = SATURATED) -> Callable[[Round], float]:
    return lambda of: float(of(US, workload)[metric])


def _kib(workload: str, metric: str, part: str) -> Callable[[Round], float]:
    return lambda of: float(of(US, workload)[metric][part] / KIB)


GOALS: Final = (
    Goal("message requests/s, rooms of 4: Plenary ÷ Node", _ratio("requests_per_second", SATURATED, NODE), 0.5, True),
    Goal(
        "deliveries/s, rooms of 100: Plenary ÷ Node", _ratio("deliveries_per_second", SATURATED_LARGE, NODE), 1, True
    ),
    Goal(
        "deliveries/s, rooms of 4: Plenary ÷ python-socketio",
        _ratio("deliveries_per_second", SATURATED, SOCKETIO),
        5,
        True,
    ),
    Goal(
        "deliveries/s, rooms of 100: Plenary ÷ python-socketio",
        _ratio("deliveries_per_second", SATURATED_LARGE, SOCKETIO),
        5,
        True,
    ),
    Goal("p50 at the rate: Plenary ÷ floor's p50", _ratio("p50_ms", AT_RATE, FLOOR), 2, False),
    Goal(
        "p99 at the rate: Plenary ÷ floor's p50",
        lambda of: float(of(US, AT_RATE)["p99_ms"] / of(FLOOR, AT_RATE)["p50_ms"]),
        10,
        False,
    ),
    Goal("CPU µs per request, all servers, saturated", _own("cpu_us_per_request_server"), 250, False),
    Goal("AMQP messages per request, saturated", _own("amqp_messages_per_request"), 0.25, False),
    Goal("Redis round trips per request, saturated", _own("redis_round_trips_per_request"), 0.15, False),
    Goal("gateway's KiB per idle connection", _kib(IDLE, "bytes_per_connection", "gateway"), 16, False, once=True),
    Goal("worker's KiB per peer in a call", _kib(IN_CALLS, "bytes_per_peer", "room worker"), 60, False, once=True),
    Goal(
        "Redis' KiB per peer in a call, just set up",
        _kib(IN_CALLS, "redis_bytes_per_peer", "total"),
        8,
        False,
        once=True,
    ),
    Goal(
        "Redis' KiB per peer in a call, half a minute later",
        _kib(IN_CALLS, "redis_bytes_per_peer_later", "total"),
        8,
        False,
        once=True,
    ),
)


def judge(samples: Samples) -> list[Judged]:
    return [judged for goal in GOALS if (judged := goal.judged(samples)) is not None]
