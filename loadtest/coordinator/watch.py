"""What the machine and the queues do meanwhile: CPU and memory of processes here, messages in partitions' queues."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiormq
import psutil
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity

WHOLE_LOOK: Final = 0.4
"""Seconds over which the questions about all queues are spread."""


@dataclass(frozen=True)
class Sample:
    """One moment. CPU in cores (1.0: one core is full), memory in bytes; `queued` is None if nobody was asked.

    `machine` is all that runs here, also what is not watched.
    """

    at: float
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    queued: int | None = None
    machine: float = 0.0


class Watch:
    """Of named processes, the generators and, with `amqp_url`, the queues `rooms.0` …"""

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
    """Asks RabbitMQ, without changing anything; says nothing while it does not answer."""

    def __init__(self, url: str, partitions: int) -> None:
        self._url = url
        self._partitions = partitions
        self._connection: Any = None
        self._channel: Any = None

    async def depth(self) -> int | None:
        """Messages that wait in all partitions' queues (not those that a room worker has in work)."""
        try:
            async with asyncio.timeout(2 * WHOLE_LOOK):
                if self._channel is None or self._channel.is_closed:
                    await self._connect()
                depth, began = 0, time.monotonic()
                for partition in range(self._partitions):
                    answer = await self._channel.queue_declare(f"rooms.{partition}", passive=True)
                    depth += int(answer.message_count or 0)
                    # all at once would delay what is measured
                    due = began + WHOLE_LOOK * (partition + 1) / self._partitions
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                return depth
        except ChannelNotFoundEntity:
            self._channel = None
            self._partitions -= 1  # there are fewer
            return None
        except (AMQPError, OSError, TimeoutError):
            self._channel = None
            return None

    async def _connect(self) -> None:
        if self._connection is None or self._connection.is_closed:
            self._connection = await aiormq.connect(self._url)
        self._channel = await self._connection.channel()

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
