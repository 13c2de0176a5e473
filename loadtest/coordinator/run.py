"""Runs a load test: starts generator processes, merges their reports, and samples the machine and the queues."""

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from loadtest.coordinator.watch import Sample, Watch
from loadtest.generator.generator import ANSWER_SECONDS
from loadtest.generator.plan import Plan, SecondReport
from loadtest.generator.profiles import Profile
from loadtest.model.measurements import Measured

START_DELAY: Final = 1.5
"""Seconds from the start of the generators to the arrival of the first peer."""
KILL_AFTER: Final = 10 * ANSWER_SECONDS
"""Seconds after the planned end when generators that still run are killed."""
_LINE: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class RunParameters:
    """The parameters of a run. `churn` is None if the profile decides it."""

    urls: list[str]
    rooms: int
    peers: int
    ramp: float
    duration: float
    profile_name: str
    profile: Profile
    churn: float | None
    processes: int
    seed: str

    @property
    def churn_rate(self) -> float:
        """The number of peers per second that leave and join again."""
        if not self.profile.joins:
            return 0.0
        stay = self.profile.stay
        by_profile = self.rooms * self.peers / stay if stay else 0.0
        return by_profile if self.churn is None else self.churn

    def plans(self, began: float) -> list[Plan]:
        """Returns one plan per process. Each room is in one process, and has a new name in each run."""
        names = [f"load-{self.seed}-{number}" for number in range(self.rooms)]
        processes = min(self.processes, self.rooms)
        shares = [names[process::processes] for process in range(processes)]
        return [
            Plan(
                urls=self.urls,
                rooms=share,
                peers=self.peers,
                profile=self.profile,
                began=began,
                ramp=self.ramp,
                duration=self.duration,
                churn=self.churn_rate * len(share) / self.rooms,
                seed=f"{self.seed}/{process}",
            )
            for process, share in enumerate(shares)
        ]


@dataclass
class Second:
    """The reports of all generators about one second."""

    measured: Measured = field(default_factory=Measured)
    gauges: dict[int, SecondReport] = field(default_factory=dict)
    """The last report of each generator."""

    def sum(self, gauge: str) -> int:
        """Returns the sum of a field of the generators' ticks."""
        return sum(getattr(tick, gauge) for tick in self.gauges.values())


@dataclass
class Run:
    """The result of a run. `seconds` are numbered from the arrival of the first peer."""

    task: RunParameters
    began: float
    whole: Measured = field(default_factory=Measured)
    seconds: dict[int, Second] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    interrupted: bool = False
    ended: float = 0.0

    def add(self, process: int, report: SecondReport) -> None:
        """Merges the report of a generator."""
        measured = Measured.load(report.measured)
        self.whole.merge(measured)
        second = self.seconds.setdefault(report.second, Second())
        second.measured.merge(measured)
        second.gauges[process] = report

    def latest(self, generators: int) -> Second | None:
        """Returns the last second that every generator has reported."""
        complete = [number for number, second in self.seconds.items() if len(second.gauges) >= generators]
        return self.seconds[max(complete)] if complete else None


class GeneratorProcesses:
    """Starts, supervises and stops the generator processes of one run."""

    def __init__(self, task: RunParameters, watch: Watch, report: Callable[[Run, int], None]) -> None:
        self.run = Run(task, time.monotonic() + START_DELAY)
        self.generators = 0
        self._watch = watch
        self._report = report
        self._processes: list[asyncio.subprocess.Process] = []
        self._done: set[int] = set()

    async def run_all(self) -> Run:
        """Runs all generators until they have ended, and returns the result."""
        plans = self.run.task.plans(self.run.began)
        self.generators = len(plans)
        watching = asyncio.create_task(self._sample())
        try:
            async with asyncio.timeout(START_DELAY + self.run.task.ramp + self.run.task.duration + KILL_AFTER):
                await asyncio.gather(*(self._generate(number, plan) for number, plan in enumerate(plans)))
        except TimeoutError:
            self._fail("a generator did not end")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
        self.run.ended = time.monotonic()
        return self.run

    def stop(self) -> None:
        """Ends the run: in order when called first, at once when called again."""
        if self.run.interrupted and self.pids:
            self._fail("stopped at once: what had come by then was not checked to the end")
        self.run.interrupted = True
        for process in self._processes:
            if process.returncode is None and process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(b"stop\n")

    async def _generate(self, number: int, plan: Plan) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtest.generator"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE,
            start_new_session=True,  # Ctrl-C must reach this process alone, which stops the generators
        )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(plan) + b"\n")
        async for line in process.stdout:
            report = msgspec.json.decode(line, type=SecondReport)
            self.run.add(number, report)
            if report.done:
                self._done.add(number)
        code = await process.wait()
        if number not in self._done:
            self._fail(f"generator {number + 1} ended with {code}; its last figures are missing")

    def _fail(self, text: str) -> None:
        self.run.whole.fail("died", text, time.monotonic() - self.run.began)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.returncode is None]

    async def _sample(self) -> None:
        while True:
            now = time.monotonic() - self.run.began
            await asyncio.sleep(math.floor(now + 0.5) + 0.5 - now)  # generators measure themselves on the full second
            at = time.monotonic() - self.run.began
            if at >= 0:
                with contextlib.suppress(OSError):
                    self.run.samples.append(await self._watch.sample(at, self.pids))
            self._report(self.run, self.generators)


def since(run: Run) -> float:
    """Returns the seconds since the first peer arrived; negative before."""
    return (run.ended or time.monotonic()) - run.began


def overall(run: Run) -> dict[str, Any]:
    """Returns the task as reports show it."""
    task = run.task
    return {
        "urls": task.urls,
        "rooms": task.rooms,
        "peers": task.peers,
        "ramp": task.ramp,
        "duration": task.duration,
        "profile": task.profile_name,
        "churn": round(task.churn_rate, 3),
        "processes": task.processes,
        "seed": task.seed,
    }
