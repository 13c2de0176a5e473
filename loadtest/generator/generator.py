"""Generates the load of one process: some rooms with all their virtual peers, measured second by second."""

import asyncio
import contextlib
import random
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, Refusal
from loadtest.generator.plan import Plan, SecondReport
from loadtest.generator.virtual_peer import Peer
from loadtest.model.failures import LATE_SECONDS
from loadtest.model.measurements import Measured
from loadtest.model.room import Room
from shared.aio.iteration import iterate_yielding

TIMER_RESOLUTION: Final = 0.002
"""Resolution of the event loop's timers in seconds: an action that is late by less is on time."""
ACTIONS_PER_TURN: Final = 64
"""Actions after which the generator reads received frames, however late it is."""
PEERS_AT_ONCE: Final = 25
"""Peers of one process that do the same at the same time when the test ends."""
ANSWER_SECONDS: Final = 45.0
"""Seconds without any answer after which the requests that are still open count as unanswered."""
CLOCK_SECONDS: Final = 0.1
"""Seconds between two checks whether the event loop was blocked."""


@dataclass
class RandomAction:
    """An action that happens by chance, `rate` times a second on average."""

    rate: float
    act: Callable[[float], None]
    due: float


@dataclass
class Gauges:
    """The numbers of peers that are connected and joined, and of their open requests."""

    connected: int = 0
    joined: int = 0
    in_flight: int = 0

    def add(self, peer: Peer) -> None:
        self.connected += peer.connected
        self.joined += peer.joined
        self.in_flight += peer.in_flight


class Generator:
    """Runs the virtual peers of a plan. Implements `Recorder` for them."""

    def __init__(self, plan: Plan, send_report: Callable[[SecondReport], None]) -> None:
        self.current = Measured()
        self.stopping = False
        self._plan = plan
        self._start = max(plan.began, time.monotonic())
        """The time that actions are counted from: a process that starts late does everything later, not at once."""
        self._send_report = send_report
        self._chance = random.Random(plan.seed)
        self._rooms = [Room(name, self.fail) for name in plan.rooms]
        self._peers = [self._peer(room, f"peer{number}") for number in range(plan.peers) for room in self._rooms]
        self._arrivals_left = self._arrivals()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_at = self._start + plan.ramp + plan.duration
        self._phase = "ramp"
        self._answers_before = 0
        """Number of answers in all seconds except the current."""
        self._late_counted_at = 0.0

    def _peer(self, room: Room, name: str) -> Peer:
        chance = random.Random(f"{self._plan.seed}/{room.name}/{name}")
        return Peer(room, name, self._plan.urls, self._plan.profile, self, chance)

    def _arrivals(self) -> list[tuple[float, Peer]]:
        """Returns when each peer arrives, the last first."""
        order = self._chance.sample(self._peers, len(self._peers))
        step = self._plan.ramp / max(1, len(order))
        return [(self._start + (number + self._chance.random()) * step, it) for number, it in enumerate(order)][::-1]

    # --- what peers report ------------------------------------------------------------------------------------

    def fail(self, kind: str, text: str) -> None:
        self.current.fail(kind, text, time.monotonic() - self._plan.began)

    def count_own_exception(self, error: Exception) -> None:
        """Counts an exception of the generator's own code, with the place where it was raised."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
        self.fail("broken", f"{error!r}{place}")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            assert isinstance(failure, Exception)
            self.count_own_exception(failure)

    # --- the test ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        watching = [asyncio.create_task(self._tick()), asyncio.create_task(self._watch_clock())]
        try:
            await self._pace()
            self.stopping = True
            await self._end()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait([*watching, *self._tasks], timeout=0)
            for task in self._tasks:
                task.cancel()
            gauges = Gauges()
            for peer in self._peers:
                gauges.add(peer)
            self._report(gauges, done=True)

    def stop(self) -> None:
        """Begins the orderly end."""
        self._stop_at = min(self._stop_at, time.monotonic())

    async def _pace(self) -> None:
        """Starts every action when it is due, whether or not earlier ones have been answered."""
        profile, count = self._plan.profile, len(self._peers)
        actions = [
            self._random_action(profile.messages * count, lambda peer, due: peer.say(due)),
            self._random_action(
                profile.controls * count if profile.media else 0.0, lambda peer, due: peer.control(due)
            ),
            self._random_action(self._plan.churn, lambda peer, due: peer.rejoin(due)),
            self._random_action(
                count / profile.whole if profile.whole else 0.0, lambda peer, _: peer.drop_connection()
            ),
        ]
        while (now := time.monotonic()) < self._stop_at:
            if now >= self._start + self._plan.ramp:
                self._phase = "load"
            busy = self._arrive(now) + sum(self._act(action, now) for action in actions)
            upcoming = (
                [action.due for action in actions] + [due for due, _ in self._arrivals_left[-1:]] + [self._stop_at]
            )
            wait = 0.0 if busy >= ACTIONS_PER_TURN else min(upcoming) - time.monotonic()
            await asyncio.sleep(max(0.0, min(wait, 0.1)))

    def _random_action(self, rate: float, act: Callable[[Peer, float], None]) -> RandomAction:
        """Returns an action of a peer chosen by chance each time, skipped if the peer is not in its room."""

        def act_of_any_peer(due: float) -> None:
            peer = self._chance.choice(self._peers)
            if peer.state != "joined" or not peer.joined:
                self.current.counts["skipped"] += 1
                return
            with contextlib.suppress(Ended):  # the peer's session has just ended, which is counted
                try:
                    act(peer, due)
                except Overflow as unbounded:
                    self.fail("sessions", f"{peer.name}: {unbounded}")
                except Ended:
                    raise
                except Exception as error:  # noqa: BLE001 - counted as the generator's own
                    self.count_own_exception(error)

        return RandomAction(
            rate, act_of_any_peer, self._start + self._chance.expovariate(rate) if rate else float("inf")
        )

    def _act(self, action: RandomAction, now: float) -> int:
        count = 0
        while action.due <= now and count < ACTIONS_PER_TURN:
            count += 1
            due = self._meant(action.due, now)
            action.due += self._chance.expovariate(action.rate)
            action.act(due)
        return count

    def _arrive(self, now: float) -> int:
        count = 0
        while self._arrivals_left and self._arrivals_left[-1][0] <= now and count < ACTIONS_PER_TURN:
            count += 1
            due, peer = self._arrivals_left.pop()
            self.spawn(peer.arrive(self._meant(due, now)))
        return count

    def _meant(self, due: float, now: float) -> float:
        meant = due if now - due > TIMER_RESOLUTION else now
        self.current.took("late", now - meant)
        if now - meant > LATE_SECONDS and now - self._late_counted_at > LATE_SECONDS:
            self._late_counted_at = now
            self.fail("overloaded", f"an action was {now - meant:.1f} s late")
        return meant

    async def _watch_clock(self) -> None:
        """Counts the times when this process was blocked, which are part of every latency."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(CLOCK_SECONDS)
            still = time.monotonic() - before - CLOCK_SECONDS
            if still > LATE_SECONDS:
                self._late_counted_at = time.monotonic()
                self.fail("overloaded", f"the event loop stood still for {still:.1f} s")

    # --- the end of the test ----------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Waits until all requests are answered and all notifications have arrived, checks this, and ends."""
        self._phase = "settling"
        quiet = await self._wait_for_answers()
        if not quiet:
            for peer in self._peers:
                peer.report_unanswered()
        there = [peer for peer in self._peers if peer.joined]
        if quiet and await self._all("the last request of a peer", 1, (peer.barrier() for peer in there)):
            for room in self._rooms:
                room.check_complete()
            if self._plan.profile.joins:
                await self._all("looking at a room", 4, (self._compare(room) for room in self._rooms))
        self._phase = "leaving"
        await self._all("the leaving of a peer", 2, (peer.leave(again=False) for peer in self._peers))

    async def _wait_for_answers(self) -> bool:
        """Waits for all answers. Returns false after `ANSWER_SECONDS` without any."""
        answers, deadline = self._answers, time.monotonic() + ANSWER_SECONDS
        while self._tasks or any(peer.in_flight for peer in self._peers):
            if self._answers != answers:
                answers, deadline = self._answers, time.monotonic() + ANSWER_SECONDS
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    @property
    def _answers(self) -> int:
        return self._answers_before + self.current.answers

    async def _all(self, what: str, requests: int, works: Iterable[Coroutine[Any, Any, None]]) -> bool:
        """Runs `PEERS_AT_ONCE` tasks at a time.

        Returns whether all succeeded, within `ANSWER_SECONDS` per request.
        """
        good = True
        several = asyncio.Semaphore(PEERS_AT_ONCE)

        async def one(work: Coroutine[Any, Any, None]) -> None:
            nonlocal good
            async with several:
                try:
                    async with asyncio.timeout(requests * ANSWER_SECONDS):
                        await work
                except TimeoutError:
                    self.fail("unanswered", f"{what} did not end within {requests * ANSWER_SECONDS:g} s")
                    good = False
                except (Ended, Refusal, Overflow, OSError):
                    good = False

        await asyncio.gather(*(one(work) for work in works))
        return good

    async def _compare(self, room: Room) -> None:
        room.compare(await self._peer(room, "~spy").list_peers())

    # --- reports ----------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            now = time.monotonic() - self._plan.began
            await asyncio.sleep(1.0 - now % 1.0)
            gauges = Gauges()
            async for peer in iterate_yielding(
                self._peers
            ):  # otherwise the check of all peers would be part of latencies
                gauges.add(peer)
            self._report(gauges)

    def _report(self, gauges: Gauges, *, done: bool = False) -> None:
        measured, self.current = self.current, Measured()
        self._answers_before += measured.answers
        self._send_report(
            SecondReport(
                second=max(0, round(time.monotonic() - self._plan.began) - 1),
                phase="done" if done else self._phase,
                connected=gauges.connected,
                joined=gauges.joined,
                in_flight=gauges.in_flight,
                measured=measured.dump(),
                done=done,
            )
        )
