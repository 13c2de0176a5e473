"""Sets up whole calls: every peer joins, produces a microphone and a camera, and receives those of all others."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

import orjson

from benchmarks.compare.clients import ANSWER_SECONDS, CheckFailed, PlainClient, Tally
from benchmarks.compare.load import Sample, no_collection
from benchmarks.compare.processes import OTHERS, cpu_seconds
from benchmarks.compare.systems import System
from loadtest.client.rtp import FINGERPRINT, audio, video
from loadtest.model.histogram import percentile

PEERS: Final = 4
_ids = itertools.count(1_000_000)


class CallPeer(PlainClient):
    """A peer that enables `wanted` consumers as they are offered; one that is offered twice is a defect."""

    _NEW_CONSUMER: Final = b'"method":"newConsumer"'

    def __init__(self, url: str, room: str, number: int, others: Sequence[int], tally: Tally) -> None:
        super().__init__(url, room, number, others, tally)
        self.wanted = 2 * len(others)
        self.requests = 0
        self._offered: set[int] = set()
        self._offers: asyncio.Queue[int] = asyncio.Queue()

    async def join(self) -> None:
        capabilities = (await self.request({"method": "queryRoom"}))["rtpCapabilities"]
        join = {"method": "join", "peerName": self.peer, "rtpCapabilities": capabilities}
        for peer in (await self.request(join))["peers"]:
            for consumer in peer["consumers"]:
                self._offer(consumer["id"])

    def on_frame(self, body: bytes) -> bool:
        if self._NEW_CONSUMER in body[:120]:
            self._offer(orjson.loads(body)["data"]["id"])
            return True
        return super().on_frame(body)

    def _offer(self, consumer: int) -> None:
        if consumer in self._offered:
            self.tally.failures.append(f"peer{self.number} was offered consumer {consumer} twice")
        self._offered.add(consumer)
        self._offers.put_nowait(consumer)

    async def request(self, data: dict[str, Any]) -> Any:
        self.requests += 1
        return await super().request(data)

    async def set_up(self) -> None:
        await self.join()
        send, receive = next(_ids), next(_ids)
        transport = {"id": send, "direction": "send", "options": {}, "dtlsParameters": FINGERPRINT}
        await self.request({"method": "createTransport", **transport})
        await self.request({"method": "createTransport", "id": receive, "direction": "recv", "options": {}})
        self.protoo.notify({"method": "updateTransport", "id": receive, "dtlsParameters": FINGERPRINT})
        async with asyncio.TaskGroup() as tasks:
            for kind, parameters in (("audio", audio), ("video", video)):
                producer = next(_ids)
                request = {"id": producer, "kind": kind, "transportId": send, "rtpParameters": parameters(producer)}
                tasks.create_task(self.request({"method": "createProducer", **request}))
            for _ in range(self.wanted):
                enable = {"method": "enableConsumer", "id": await self._offers.get(), "transportId": receive}
                tasks.create_task(self.request(enable))


class Call:
    """A call of `PEERS` peers in a room of its own."""

    def __init__(self, url: str, number: int, tally: Tally) -> None:
        self._url = url
        self._number = number
        self._tally = tally
        self.peers: list[CallPeer] = []

    async def open(self) -> "Call":
        names = range(PEERS)
        for name in names:
            others = [other for other in names if other != name]
            peer = await CallPeer.open(self._url, f"call{self._number}", name, others, self._tally, joined=False)
            self.peers.append(peer)
        return self

    async def set_up(self) -> float:
        """Returns the seconds from the first `queryRoom` until all consumers are enabled. Raises `CheckFailed`."""
        began = time.perf_counter()
        async with asyncio.timeout(ANSWER_SECONDS), asyncio.TaskGroup() as tasks:
            for peer in self.peers:
                tasks.create_task(peer.set_up())
        if self._tally.failures:
            raise CheckFailed(self._tally.failures[0])
        return time.perf_counter() - began

    @property
    def requests(self) -> int:
        return sum(peer.requests for peer in self.peers)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


async def call_after_call(system: System, seconds: float, at_once: int) -> Sample:
    """Keeps `at_once` calls being set up, each of which is ended when it is complete."""
    tally = Tally()
    numbers = itertools.count()
    took: list[float] = []
    requests = 0
    await _one(system, numbers, tally)

    async def work(until: float) -> None:
        nonlocal requests
        while time.perf_counter() < until:
            seconds, asked = await _one(system, numbers, tally)
            took.append(seconds)
            requests += asked

    processes = system.processes
    with no_collection():
        used, began = cpu_seconds(processes), time.perf_counter()
        await asyncio.gather(*(work(began + seconds) for _ in range(at_once)))
        lasted = time.perf_counter() - began
        spent = cpu_seconds(processes) - used
    return {
        "calls": len(took),
        "requests_per_call": requests / len(took),
        "calls_per_second": round(len(took) / lasted, 2),
        "set_up_p50_ms": round(percentile(took, 0.5) * 1e3, 1),
        "set_up_p99_ms": round(percentile(took, 0.99) * 1e3, 1),
        "cpu_ms_per_call": {name: round(s / len(took) * 1e3, 2) for name, s in spent.items() if name != OTHERS},
        "cpu_ms_per_call_server": round(spent.server / len(took) * 1e3, 2),
        "cores": {name: round(seconds / lasted, 2) for name, seconds in spent.items()},
    }


async def _one(system: System, numbers: "itertools.count[int]", tally: Tally) -> tuple[float, int]:
    call = await Call(system.url, next(numbers), tally).open()
    try:
        return await call.set_up(), call.requests
    finally:
        call.close()
