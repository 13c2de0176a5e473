"""Runs the comparison: round after round, each system is started, measured and stopped."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from benchmarks.compare import calls, memory
from benchmarks.compare.clients import LoadClient, PlainClient, ResumableClient
from benchmarks.compare.floor import Floor
from benchmarks.compare.load import Fleet, Sample, pace, saturate
from benchmarks.compare.processes import cpu_seconds, wait_until_idle
from benchmarks.compare.systems import NodeProcess, Plenary, Servers, SocketIo, System

SMALL, LARGE = 4, 100
WARM: Final = {SMALL: 1.0, LARGE: 3.0}
"""Seconds until the slowest system has reached its full rate, by the size of the rooms."""
AT_RATE: Final = "rooms of 4, at the rate"
SATURATED: Final = "rooms of 4, saturated"
SATURATED_LARGE: Final = "rooms of 100, saturated"
RESUMABLE: Final = "rooms of 4, saturated, resumable sessions"
CALL_ALONE: Final = "calls of 4, one at a time"
CALLS: Final = "calls of 4, many at once"
IDLE: Final = "memory, idle connections"
IN_CALLS: Final = "memory, calls of 4"


@dataclass(frozen=True)
class Plan:
    """The parameters of a comparison: `rate` in requests per second, windows in requests in flight per connection."""

    rounds: int = 3
    seconds: float = 4.0
    connections: int = 400
    rate: int = 500
    window: int = 4
    window_large: int = 1
    """The window in rooms of 100, where 400 requests in flight are 39,600 deliveries."""
    calls_at_once: int = 8
    idle_connections: int = 1000
    calls: int = 100
    patience: float = 20.0
    """The most seconds that each measurement waits for the machine to be idle."""


@dataclass
class Results:
    """The `samples` by system and workload, one for each round. `report` is called with each new one."""

    report: Callable[[str, str, int, Sample], None]
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, system: str, workload: str, round_: int, sample: Sample) -> None:
        self.samples.setdefault(system, {}).setdefault(workload, []).append(sample)
        self.report(system, workload, round_, sample)


async def run(plan: Plan, results: Results) -> None:
    with Servers() as servers:
        systems: list[System] = [
            Plenary(servers, "always"),
            NodeProcess(),
            SocketIo(servers),
            Plenary(servers, "everysec"),
        ]
        for round_ in range(plan.rounds):
            for system in _rotated(systems, round_):
                await _measure(system, plan, results, round_)
            for fsync in servers.redis:
                async with Floor(servers, fsync) as floor:
                    await wait_until_idle(plan.patience)
                    results.add(floor.name, AT_RATE, round_, await floor.pace(plan.seconds, plan.rate))
        for system in systems[:3]:
            await _weigh(system, plan, results)


def _rotated(systems: list[System], by: int) -> Iterator[System]:
    """Rotates the order, so that no system always follows the same other."""
    return itertools.islice(itertools.cycle(systems), by, by + len(systems))


async def _measure(system: System, plan: Plan, results: Results, round_: int) -> None:
    with system:
        processes = system.processes
        async with _filled(system, system.client, plan, SMALL) as fleet:
            await wait_until_idle(plan.patience)
            async with _counting(system, fleet) as counted:
                sample = await pace(fleet, plan.seconds, plan.rate, lambda: cpu_seconds(processes))
            results.add(system.name, AT_RATE, round_, sample | counted)
            sample = await _saturated(system, fleet, plan, plan.window)
            results.add(system.name, SATURATED, round_, sample)
        async with _filled(system, system.client, plan, LARGE) as fleet:
            sample = await _saturated(system, fleet, plan, plan.window_large)
            results.add(system.name, SATURATED_LARGE, round_, sample)
        if isinstance(system, Plenary):
            async with _filled(system, ResumableClient, plan, SMALL) as fleet:
                sample = await _saturated(system, fleet, plan, plan.window)
                results.add(system.name, RESUMABLE, round_, sample)
        if system.client is PlainClient:
            for workload, at_once in ((CALL_ALONE, 1), (CALLS, plan.calls_at_once)):
                await wait_until_idle(plan.patience)
                sample = await calls.call_after_call(system, plan.seconds, at_once)
                results.add(system.name, workload, round_, sample)


@asynccontextmanager
async def _filled(system: System, make: type[LoadClient], plan: Plan, size: int) -> AsyncIterator[Fleet]:
    fleet = await Fleet(make, system.url, plan.connections, size).open()
    try:
        yield fleet
    finally:
        fleet.close()
        await asyncio.sleep(memory.SETTLE_SECONDS)


async def _saturated(system: System, fleet: Fleet, plan: Plan, window: int) -> Sample:
    await wait_until_idle(plan.patience)
    processes = system.processes
    async with _counting(system, fleet) as counted:
        sample = await saturate(fleet, plan.seconds, window, lambda: cpu_seconds(processes), WARM[fleet.size])
    return sample | counted


@asynccontextmanager
async def _counting(system: System, fleet: Fleet) -> AsyncIterator[Sample]:
    """Yields a sample that is filled in afterwards: the growth of a system's counters per request."""
    counted: Sample = {}
    before, sent = await system.counters(), fleet.sent
    yield counted
    after = await system.counters()
    requests = fleet.sent - sent
    counted.update({f"{name}_per_request": round((after[name] - before[name]) / requests, 4) for name in after})


async def _weigh(system: System, plan: Plan, results: Results) -> None:
    with system:
        results.add(system.name, IDLE, 0, await memory.idle(system, plan.idle_connections))
    if system.client is PlainClient:
        with system:
            results.add(system.name, IN_CALLS, 0, await memory.calls(system, plan.calls))
