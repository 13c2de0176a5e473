"""Runs participants on a cluster and injects faults; all random choices come from one seed."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devtools.servers import Server
from loadtest.model.room import Room
from tests.fault import checks
from tests.fault.cluster import FaultCluster, Shape
from tests.fault.faults import FAULTS, Durations, Fault, Injection, Kind
from tests.fault.participant import Failure, FailureLog, Participant

WARM_UP = 2.5
"""Seconds before the first fault: who does what is known from the registry, which is as old as a heartbeat."""
COUNTED_NOTIFICATIONS = ("newConsumer", "consumerClosed", "consumerPaused", "consumerResumed", "transportClosed")
"""Notifications whose latency is not measured."""
ANSWERED_WITHIN = 60.0
"""Seconds after the last fault is over by which everything that was asked is answered."""


@dataclass
class Load:
    rooms: int = 10
    peers: int = 3
    rate: float = 1.7
    """Things that one participant does a second, and as many messages."""


class Participants:
    """The participants of a run, the rooms that they are in, and the failures that they found."""

    def __init__(self, cluster: FaultCluster, load: Load, seed: str) -> None:
        urls = [gateway.url for gateway in cluster.gateways]
        self.log = FailureLog()
        self.rooms = [Room(f"room{number}", self.log.fail) for number in range(load.rooms)]
        self.participants = [
            Participant(urls, room, f"peer{peer}", seed, load.rate, self.log)
            for room in self.rooms
            for peer in range(load.peers)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for participant in self.participants:
            self._tasks += [asyncio.create_task(participant.live()), asyncio.create_task(participant.chat())]

    @property
    def in_flight(self) -> int:
        return sum(participant.in_flight for participant in self.participants)

    async def until(self, condition: Callable[[], bool], within: float) -> bool:
        """Waits; returns whether the condition came true."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not condition():
                    self.check()
                    await asyncio.sleep(0.05)
                return True
        return False

    def check(self) -> None:
        """Raises what a participant's task failed with: a mistake of this driver."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def all_joined(self) -> bool:
        return await self.until(lambda: all(participant.joined for participant in self.participants), ANSWERED_WITHIN)

    async def finish(self) -> bool:
        """Lets all participants end what they have begun; returns whether everything was answered."""
        for participant in self.participants:
            participant.stop()
        await asyncio.wait(self._tasks, timeout=ANSWERED_WITHIN)
        return await self.until(lambda: self.in_flight == 0, ANSWERED_WITHIN)

    async def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(participant.abort() for participant in self.participants), return_exceptions=True)


@dataclass
class Outcome:
    seed: str
    injections: list[Injection] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    requests: int = 0
    notifications: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    began: float = 0.0

    def report(self) -> str:
        faults = "\n".join(f"  {it.at - self.began:6.1f} s {it.kind}: {it.detail}" for it in self.injections)
        failures = "\n".join(f"  {it.at - self.began:6.1f} s {it.kind}: {it.text}" for it in self.failures)
        return f"seed {self.seed}, faults:\n{faults}\nfailures:\n{failures or '  none'}"


async def run(
    redis_server: Server,
    rabbitmq_server: Server,
    logs: Path,
    seed: str,
    kinds: list[Kind],
    *,
    seconds: float = 0.0,
    together: int = 1,
    longest: Durations | None = None,
    shape: Shape | None = None,
    load: Load | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Each of `kinds` once in this order; or, with `seconds`, by chance, each as often as the others, for so long.

    `together` is how many happen at the same time.
    """
    cluster = FaultCluster(redis_server, rabbitmq_server, logs, shape or Shape())
    chance = random.Random(seed)
    now = asyncio.get_running_loop().time
    try:
        await cluster.start()
        crowd = Participants(cluster, load or Load(), seed)
        outcome = Outcome(seed, began=now())
        try:
            crowd.start()
            assert await crowd.all_joined(), f"not everybody could join\n{cluster.said()}"
            await asyncio.sleep(WARM_UP)
            for some in _plan(kinds, chance, together, endless=bool(seconds)):
                if seconds and now() - outcome.began > seconds:
                    break
                for injection in await _inject(cluster, crowd, some, chance, longest or Durations()):
                    outcome.injections.append(injection)
                    longest_gap = f", {max(injection.gaps):.2f} s until all were answered" if injection.gaps else ""
                    tell(f"{injection.at - outcome.began:6.1f} s {injection.kind}: {injection.detail}{longest_gap}")
                crowd.check()
                await asyncio.sleep(chance.uniform(0.2, (longest or Durations()).between))
            await _check_end_state(cluster, crowd, outcome)
        finally:
            await crowd.abort()
        codes = await cluster.stop()
        outcome.failures += [
            Failure(time.monotonic(), "exit", f"{name} ended with {code}\n{_said(cluster, name)}")
            for name, code in codes.items()
            if code
        ]
    finally:
        await cluster.abort()
    return outcome


def _plan(kinds: list[Kind], chance: random.Random, together: int, *, endless: bool) -> Iterator[list[Kind]]:
    while True:
        order = chance.sample(kinds, len(kinds)) if endless else kinds
        for first in range(0, len(order), together):
            yield order[first : first + together]
        if not endless:
            return


async def _inject(
    cluster: FaultCluster, crowd: Participants, kinds: list[Kind], chance: random.Random, longest: Durations
) -> list[Injection]:
    """Faults of different victims, all within a second."""
    faults: list[Fault] = []
    for kind in kinds:
        fault = FAULTS[kind](cluster, crowd.participants, chance, longest)
        await fault.choose()
        if all(other.victim is not fault.victim for other in faults):
            faults.append(fault)

    async def soon(fault: Fault, wait: float) -> Injection:
        await asyncio.sleep(wait)
        return await fault.carry_out()

    waits = [0.0, *(chance.uniform(0.0, 1.0) for _ in faults[1:])]
    return list(await asyncio.gather(*(soon(fault, wait) for fault, wait in zip(faults, waits, strict=True))))


async def _check_end_state(cluster: FaultCluster, crowd: Participants, outcome: Outcome) -> None:
    """Checks everything at the end, when it is quiet."""
    people = crowd.participants
    if await crowd.finish():
        await asyncio.wait([asyncio.create_task(it.barrier()) for it in people], timeout=ANSWERED_WITHIN)
        for room in crowd.rooms:
            room.check_complete()
        outcome.failures += await checks.views(cluster, people)
        outcome.failures += await checks.engines(cluster, people)
        await asyncio.wait([asyncio.create_task(it.leave_for_good()) for it in people], timeout=ANSWERED_WITHIN)
        outcome.failures += await checks.check_nothing_left(cluster, cluster.left_messages)
    else:
        for participant in people:
            participant.report_unanswered()
    outcome.failures += crowd.log.failures
    measured = crowd.log.current
    outcome.requests = measured.answers
    told = {name: histogram.count for name, histogram in measured.fanout.items()}
    outcome.notifications = sum(told.values()) + sum(measured.counts[name] for name in COUNTED_NOTIFICATIONS)
    outcome.counts = {**{name: it.count for name, it in measured.methods.items()}, **measured.counts, **told}
    outcome.failures += [Failure(time.monotonic(), "died", f"{name}\n{said}") for name, said in checks.died(cluster)]
    outcome.failures.sort(key=lambda it: it.at)


def _said(cluster: FaultCluster, name: str) -> str:
    return next(role.said() for role in cluster.roles if role.name == name)
