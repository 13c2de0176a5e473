"""The load of one generator process: some rooms with all their virtual peers, and what they measure each second."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, Refusal
from loadtest.generator.plan import Plan, Tick
from loadtest.generator.virtual_peer import Peer
from loadtest.model.measurements import Measured
from loadtest.model.room import Room
from shared.aio.iteration import iterate_yielding

GRAIN: Final = 0.002
"""The event loop's timers: who is not later than that is on time."""
AT_ONCE: Final = 64
"""Actions after which what has come is read, however late everything is."""
TOGETHER: Final = 25
"""Peers of one process that do the same at the same time when the test is over."""
PATIENCE: Final = 30.0
"""Seconds in which everything that was asked is answered when the test is over."""


@dataclass
class Stream:
    """Something that happens by chance, `rate` times a second on average."""

    rate: float
    act: Callable[[float], None]
    due: float


@dataclass
class Gauges:
    """How many are there, and wait for how many answers."""

    connected: int = 0
    joined: int = 0
    in_flight: int = 0

    def add(self, peer: Peer) -> None:
        self.connected += peer.connected
        self.joined += peer.joined
        self.in_flight += peer.in_flight


class Generator:
    """A `Recorder` for its peers."""

    def __init__(self, plan: Plan, tell: Callable[[Tick], None]) -> None:
        self.current = Measured()
        self.stopping = False
        self._plan = plan
        self._tell = tell
        self._chance = random.Random(plan.seed)
        self._rooms = [Room(name, self.wrong) for name in plan.rooms]
        self._peers = [self._peer(room, f"peer{number}") for number in range(plan.peers) for room in self._rooms]
        self._coming = self._arrivals()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_at = plan.began + plan.ramp + plan.duration
        self._phase = "ramp"

    def _peer(self, room: Room, name: str) -> Peer:
        chance = random.Random(f"{self._plan.seed}/{room.name}/{name}")
        return Peer(room, name, self._plan.urls, self._plan.profile, self, chance)

    def _arrivals(self) -> list[tuple[float, Peer]]:
        """Who comes when, the last first."""
        order = self._chance.sample(self._peers, len(self._peers))
        step = self._plan.ramp / max(1, len(order))
        return [(self._plan.began + (number + self._chance.random()) * step, it) for number, it in enumerate(order)][
            ::-1
        ]

    # --- what peers tell --------------------------------------------------------------------------------------

    def wrong(self, kind: str, text: str) -> None:
        self.current.wrong(kind, text, time.monotonic() - self._plan.began)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.wrong("died", f"a peer of the generator failed: {failure!r}")

    # --- the test ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            await self._pace()
            self.stopping = True
            await self._end()
        finally:
            ticking.cancel()
            await asyncio.wait([ticking, *self._tasks], timeout=0)
            for task in self._tasks:
                task.cancel()
            gauges = Gauges()
            for peer in self._peers:
                gauges.add(peer)
            self._report(gauges, done=True)

    def stop(self) -> None:
        """The orderly end begins now."""
        self._stop_at = min(self._stop_at, time.monotonic())

    async def _pace(self) -> None:
        """Everything is done when it is due, whether or not what came before has been answered."""
        profile, count = self._plan.profile, len(self._peers)
        streams = [
            self._stream(profile.messages * count, lambda peer, due: peer.say(due)),
            self._stream(profile.controls * count if profile.media else 0.0, lambda peer, due: peer.control(due)),
            self._stream(self._plan.churn, lambda peer, due: peer.renew(due)),
            self._stream(count / profile.whole if profile.whole else 0.0, lambda peer, _: peer.cut()),
        ]
        while (now := time.monotonic()) < self._stop_at:
            if now >= self._plan.began + self._plan.ramp:
                self._phase = "load"
            busy = self._arrive(now) + sum(self._act(stream, now) for stream in streams)
            upcoming = [stream.due for stream in streams] + [due for due, _ in self._coming[-1:]] + [self._stop_at]
            wait = 0.0 if busy >= AT_ONCE else min(upcoming) - time.monotonic()
            await asyncio.sleep(max(0.0, min(wait, 0.1)))

    def _stream(self, rate: float, act: Callable[[Peer, float], None]) -> Stream:
        """Of somebody who is there; else it does not happen."""

        def anybody(due: float) -> None:
            peer = self._chance.choice(self._peers)
            if peer.state != "here" or not peer.joined:
                self.current.counts["skipped"] += 1
                return
            with contextlib.suppress(Ended):  # its session ended a moment ago, which is counted
                try:
                    act(peer, due)
                except Overflow as unbounded:
                    self.wrong("sessions", f"{peer.name}: {unbounded}")

        return Stream(rate, anybody, self._plan.began + self._chance.expovariate(rate) if rate else float("inf"))

    def _act(self, stream: Stream, now: float) -> int:
        count = 0
        while stream.due <= now and count < AT_ONCE:
            count += 1
            due = self._meant(stream.due, now)
            stream.due += self._chance.expovariate(stream.rate)
            stream.act(due)
        return count

    def _arrive(self, now: float) -> int:
        count = 0
        while self._coming and self._coming[-1][0] <= now and count < AT_ONCE:
            count += 1
            due, peer = self._coming.pop()
            self.spawn(peer.come(self._meant(due, now)))
        return count

    def _meant(self, due: float, now: float) -> float:
        meant = due if now - due > GRAIN else now
        self.current.took("late", now - meant)
        return meant

    # --- its end ----------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Everything is answered, everybody is told everything, and then all leave."""
        self._phase = "settling"
        quiet = await self._quiet()
        if not quiet:
            for peer in self._peers:
                peer.give_up()
        there = [peer for peer in self._peers if peer.joined]
        if quiet and await self._all("a peer's last question", (peer.barrier() for peer in there)):
            for room in self._rooms:
                room.settle()
            if self._plan.profile.joins:
                await self._all("a look at a room", (self._compare(room) for room in self._rooms))
        self._phase = "leaving"
        now = time.monotonic()
        await self._all(
            "a peer's leaving", (peer.go(max(now, time.monotonic()), again=False) for peer in self._peers)
        )

    async def _quiet(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while self._tasks or any(peer.in_flight for peer in self._peers):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _all(self, what: str, works: Iterable[Coroutine[Any, Any, None]]) -> bool:
        """A few at a time; whether all succeeded, within `PATIENCE` each."""
        good = True
        several = asyncio.Semaphore(TOGETHER)

        async def one(work: Coroutine[Any, Any, None]) -> None:
            nonlocal good
            async with several:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await work
                except TimeoutError:
                    self.wrong("unanswered", f"{what} did not end")
                    good = False
                except (Ended, Refusal, Overflow, OSError):
                    good = False

        await asyncio.gather(*(one(work) for work in works))
        return good

    async def _compare(self, room: Room) -> None:
        room.compare(await self._peer(room, "~watch").watch())

    # --- reports ----------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            now = time.monotonic() - self._plan.began
            await asyncio.sleep(1.0 - now % 1.0)
            gauges = Gauges()
            async for peer in iterate_yielding(self._peers):  # or a look at all would be part of latencies
                gauges.add(peer)
            self._report(gauges)

    def _report(self, gauges: Gauges, *, done: bool = False) -> None:
        measured, self.current = self.current, Measured()
        self._tell(
            Tick(
                second=max(0, round(time.monotonic() - self._plan.began) - 1),
                phase="done" if done else self._phase,
                connected=gauges.connected,
                joined=gauges.joined,
                in_flight=gauges.in_flight,
                measured=measured.dump(),
                done=done,
            )
        )
