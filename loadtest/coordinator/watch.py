"""Samples the machine and the queues: CPU and memory of processes, and messages in the partitions' queues."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import psutil

from shared.broker import BrokerUnavailable
from shared.broker.amqp.queues import QueueProbe

PROBE_SECONDS: Final = 0.4
"""Seconds over which the requests for all queues are spread."""


@dataclass(frozen=True)
class Sample:
    """The state at one time: CPU in cores (1.0: one core is full), memory in bytes; `queued` is None if unknown.

    `machine` is the CPU of everything on this machine, watched or not.
    """

    at: float
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    queued: int | None = None
    machine: float = 0.0


class Watch:
    """Samples named processes, the generators and, with `amqp_url`, the queues `rooms.0` …"""

    def __init__(self, processes: dict[str, psutil.Process], amqp_url: str = "", partitions: int = 32) -> None:
        self._processes = processes
        self._generators: dict[int, psutil.Process] = {}
        self._queues = Queues(amqp_url, partitions) if amqp_url else None

    @property
    def names(self) -> list[str]:
        return list(self._processes)

    async def sample(self, at: float, generators: Iterable[int]) -> Sample:
        cpu: dict[str, float] = {}
        memory: dict[str, int] = {}
        for name, process in [*self._processes.items(), *self._generating(generators)]:
            try:
                with process.oneshot():
                    cpu[name] = cpu.get(name, 0.0) + process.cpu_percent() / 100
                    memory[name] = memory.get(name, 0) + process.memory_info().rss
            except psutil.Error:
                continue
        queued = await self._queues.depth() if self._queues is not None else None
        machine = round(psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1), 3)
        return Sample(round(at, 2), {name: round(it, 3) for name, it in cpu.items()}, memory, queued, machine)

    def _generating(self, pids: Iterable[int]) -> Iterator[tuple[str, psutil.Process]]:
        for pid in pids:
            try:
                process = self._generators.setdefault(pid, psutil.Process(pid))
            except psutil.Error:
                continue
            yield "load generators", process

    async def close(self) -> None:
        if self._queues is not None:
            await self._queues.close()


class Queues:
    """Counts the messages that wait in all partitions' queues; the number is None while RabbitMQ does not answer."""

    def __init__(self, url: str, partitions: int) -> None:
        self._probe = QueueProbe(url)
        self._partitions = partitions

    async def depth(self) -> int | None:
        """Returns the number of messages that wait in the queues, without those that a room worker is handling."""
        try:
            depths = await self._probe.depths(self._partitions, within=2 * PROBE_SECONDS, spread=PROBE_SECONDS)
        except BrokerUnavailable:
            return None
        self._partitions = len(depths) or self._partitions  # The cluster may have fewer partitions than the default.
        return sum(depth.messages for depth in depths.values())

    async def close(self) -> None:
        await self._probe.close()
