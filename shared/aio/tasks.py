"""Keeps the tasks that belong to one part of a process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from shared.telemetry import log

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

logger = log.get("tasks")


class Tasks:
    """A group of tasks, none of which is forgotten: `wait` raises the first failure, and `cancel` ends all."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task of this group."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("task.failed", exc_info=failure)
            if not self._failure.done():
                self._failure.set_exception(failure)
                self._failure.exception()  # retrieved, in case that nobody calls `wait`

    @property
    def failed(self) -> bool:
        """Whether a task has failed."""
        return self._failure.done()

    async def wait(self) -> None:
        """Waits for ever; raises what the first failed task has raised."""
        await asyncio.shield(self._failure)

    async def cancel(self) -> None:
        """Ends all tasks. redis-py can lose a cancellation that comes in the middle of a command: it is repeated."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=0.1)
