"""Measures the memory of an idle connection, and of a peer in a call."""

import asyncio
from typing import Final

from benchmarks.compare.calls import PEERS, Call
from benchmarks.compare.clients import Tally
from benchmarks.compare.load import Fleet, Sample
from benchmarks.compare.processes import memory_bytes
from benchmarks.compare.systems import Plenary, System

SETTLE_SECONDS: Final = 2.0
CALLS_AT_ONCE: Final = 4
REPLAY_SECONDS: Final = 31.0
"""Seconds after which the next commit of a room drops the messages that were kept to be repeated."""


class Growth:
    """Measures by how many bytes each process of a system has grown since this object was made."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._before = self._now()

    def _now(self) -> dict[str, int]:
        self._system.collect()
        return {name: memory_bytes(process) for name, process in self._system.processes.items()}

    def each(self, count: int) -> dict[str, int]:
        """Returns the growth divided by `count`."""
        return {name: round((now - self._before[name]) / count) for name, now in self._now().items()}


async def idle(system: System, connections: int) -> Sample:
    """Returns the bytes per idle connection of a freshly started system."""
    await _warm(system)
    growth = Growth(system)
    fleet = await Fleet(system.client, system.url, connections, PEERS).open(joined=False)
    await asyncio.sleep(SETTLE_SECONDS)
    sample = {"connections": connections, "bytes_per_connection": growth.each(connections)}
    fleet.close()
    return sample


async def calls(system: System, number: int) -> Sample:
    """Returns the bytes per peer in calls of four, in which each has two producers and six consumers."""
    await _warm(system)
    growth = Growth(system)
    tally = Tally()
    open_calls: list[Call] = []
    for start in range(0, number, CALLS_AT_ONCE):
        some = [await Call(system.url, n, tally).open() for n in range(start, min(number, start + CALLS_AT_ONCE))]
        await asyncio.gather(*(call.set_up() for call in some))
        open_calls += some
    await asyncio.sleep(SETTLE_SECONDS)
    peers = number * PEERS
    sample: Sample = {"peers": peers, "bytes_per_peer": growth.each(peers)}
    if isinstance(system, Plenary):
        sample["redis_bytes_per_peer"] = {what: round(size / peers) for what, size in system.redis_bytes().items()}
        await asyncio.sleep(REPLAY_SECONDS)
        for call in open_calls:
            call.peers[0].ask()
        await asyncio.sleep(SETTLE_SECONDS)
        later = system.redis_bytes()
        sample["redis_bytes_per_peer_later"] = {what: round(size / peers) for what, size in later.items()}
    for call in open_calls:
        call.close()
    return sample


async def _warm(system: System) -> None:
    """Connects one client first, so that memory shared by all clients is not counted."""
    fleet = await Fleet(system.client, system.url, 2 * PEERS, PEERS).open()
    fleet.close()
    await asyncio.sleep(SETTLE_SECONDS)
