"""The tasks that belong to one part of a process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from shared.telemetry import log

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]

logger = log.get("tasks")


class Tasks:
    """No task of these is forgotten: the first that fails is told to `wait`, and `cancel` ends all of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something beside."""
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
                self._failure.exception()  # nobody has to wait for it

    @property
    def failed(self) -> bool:
        """Whether a task has raised what it must not."""
        return self._failure.done()

    async def wait(self) -> None:
        """Returns never; raises what the first failed task has raised."""
        await asyncio.shield(self._failure)

    async def cancel(self) -> None:
        """Ends all tasks. redis-py can lose a cancellation that comes in the middle of a command: it is repeated."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=0.1)
