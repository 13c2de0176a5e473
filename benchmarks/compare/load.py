"""Fleets of clients in rooms, and their load: saturation, or a fixed rate."""

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.compare.clients import ANSWER_SECONDS, CheckFailed, LoadClient, Tally
from benchmarks.compare.processes import OTHERS, CpuSeconds
from loadtest.model.histogram import percentile

CONNECT_AT_ONCE: Final = 20
WARM_SECONDS: Final = 1.0
LOOK_AGAIN: Final = 0.01

Sample = dict[str, Any]


@contextmanager
def no_collection() -> Any:
    """Suspends garbage collection, which in the load generator would count as latency of the servers."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class Fleet:
    """A fleet of `connections` clients in rooms of `size`."""

    def __init__(self, make: type[LoadClient], url: str, connections: int, size: int) -> None:
        self.make = make
        self.url = url
        self.size = size
        self.tally = Tally()
        self.clients: list[LoadClient] = []
        self._numbers = range(connections)

    async def open(self, *, joined: bool = True) -> "Fleet":
        gate = asyncio.Semaphore(CONNECT_AT_ONCE)

        async def one(number: int) -> LoadClient:
            room = number // self.size
            others = [n for n in range(room * self.size, (room + 1) * self.size) if n != number]
            async with gate:
                return await self.make.open(self.url, f"room{room}", number, others, self.tally, joined=joined)

        self.clients = list(await asyncio.gather(*(one(number) for number in self._numbers)))
        if joined:
            # The first client connects alone: python-socketio loses messages until it has a connection to RabbitMQ.
            self.clients[0].ask()
            await self.settled()
        return self

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.clients = []

    @property
    def sent(self) -> int:
        return sum(client.sent for client in self.clients)

    async def settled(self, patience: float = ANSWER_SECONDS) -> None:
        """Waits until every request is answered and delivered to everybody else exactly once.

        Raises `CheckFailed` otherwise, after `patience` seconds if something is missing.
        """
        deadline = time.perf_counter() + patience
        while time.perf_counter() < deadline and not self.tally.failures:
            if self.tally.answered == self.sent and self.tally.delivered == self.sent * (self.size - 1):
                break
            await asyncio.sleep(LOOK_AGAIN)
        await asyncio.sleep(5 * LOOK_AGAIN)  # for duplicates to arrive
        wrong = self.tally.failures + [
            f"peer{client.number}: {len(client.waiting)} requests are not answered"
            for client in self.clients
            if client.waiting
        ]
        for client in self.clients:
            wrong += self._missing(client)
        if wrong:
            raise CheckFailed(f"{len(wrong)} times, at first: {wrong[0]}")

    def _missing(self, client: LoadClient) -> list[str]:
        missing = []
        for sender, last in client.heard.items():
            while (sender, last + 1) in client.early:
                last += 1
                client.early.discard((sender, last))
            client.heard[sender] = last
            if last != self.clients[sender].sent:
                missing.append(f"peer{client.number} has {last} of peer{sender}'s {self.clients[sender].sent}")
        return missing


async def saturate(
    fleet: Fleet, seconds: float, window: int, cpu: Callable[[], CpuSeconds], warm: float = WARM_SECONDS
) -> Sample:
    """Keeps `window` requests of every client in flight; the first `warm` seconds are not counted."""
    tally = fleet.tally
    with no_collection():
        tally.flooding = True
        for client in fleet.clients:
            for _ in range(window):
                client.ask()
        await asyncio.sleep(warm)
        tally.latencies.clear()
        used, began = cpu(), time.perf_counter()
        answered, delivered = tally.answered, tally.delivered
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        answered, delivered = tally.answered - answered, tally.delivered - delivered
        spent = cpu() - used
        latencies = tally.latencies[:]
        tally.flooding = False
        await fleet.settled()
    return _sample(answered, delivered, took, spent, latencies, fleet)


async def pace(
    fleet: Fleet, seconds: float, rate: int, cpu: Callable[[], CpuSeconds], warm: float = WARM_SECONDS
) -> Sample:
    """Sends `rate` requests a second in all, each when it is due, answered or not; `warm` as in `saturate`."""
    tally = fleet.tally
    with no_collection():
        await _send(fleet, warm, rate)
        await fleet.settled()
        tally.latencies.clear()
        used, began = cpu(), time.perf_counter()
        answered, delivered = tally.answered, tally.delivered
        late = await _send(fleet, seconds, rate)
        took = time.perf_counter() - began
        spent = cpu() - used
        await fleet.settled()
    answered, delivered = tally.answered - answered, tally.delivered - delivered
    sample = _sample(answered, delivered, took, spent, tally.latencies, fleet)
    return sample | {"generator_late_p99_ms": round(percentile(late, 0.99) * 1e3, 2)}


async def _send(fleet: Fleet, seconds: float, rate: int) -> list[float]:
    """Sends the requests. Returns by how many seconds each was late."""
    late = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        late.append(max(0.0, time.perf_counter() - due))
        fleet.clients[number % len(fleet.clients)].ask()
    return late


def _sample(
    answered: int, delivered: int, took: float, spent: CpuSeconds, latencies: list[float], fleet: Fleet
) -> Sample:
    return {
        "requests": answered,
        "requests_per_second": round(answered / took, 1),
        "deliveries_per_second": round(delivered / took, 1),
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3),
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3),
        "reordered": fleet.tally.reordered,
        "cpu_us_per_request": {name: round(s / answered * 1e6, 1) for name, s in spent.items() if name != OTHERS},
        "cpu_us_per_request_server": round(spent.server / answered * 1e6, 1),
        "cpu_us_per_message_server": round(spent.server / (answered + delivered) * 1e6, 2),
        "cores": {name: round(seconds / took, 2) for name, seconds in spent.items()},
    }
