"""Messages for one address, published in batches.

A batch is what gathered while the one before was unconfirmed: no timer, and no waiting when there is little to
do. Items leave in the order they came.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

from shared import log
from shared.broker import BrokerError, Unroutable

Item = TypeVar("Item")
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

BATCH = 256
RETRY_PAUSE = 0.1


class Outbox(Generic[Item]):
    """`publish` sends one batch and returns when it is confirmed; `BrokerError` means that it is not.

    A batch is tried again for `patience` seconds, then dropped; one that nobody can get (`Unroutable`) at
    once. More than `limit` items waiting: the oldest go.
    """

    def __init__(
        self,
        publish: Callable[[list[Item]], Awaitable[None]],
        spawn: Spawn,
        *,
        patience: float,
        limit: int,
    ) -> None:
        self._publish = publish
        self._spawn = spawn
        self._patience = patience
        self._items: deque[Item] = deque(maxlen=limit)
        self._task: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._log = log.get("outbox")

    @property
    def idle(self) -> bool:
        return self._idle.is_set()

    async def emptied(self) -> None:
        await self._idle.wait()

    def put(self, item: Item) -> None:
        if len(self._items) == self._items.maxlen:
            self._log.error("outbox full, the oldest item is dropped", limit=self._items.maxlen)
        self._items.append(item)
        if self._idle.is_set():
            self._idle.clear()
            self._task = self._spawn(self._drain())

    def close(self) -> None:
        """Gives up what is waiting."""
        self._items.clear()
        if self._task:
            self._task.cancel()

    async def _drain(self) -> None:
        try:
            while self._items:
                size = min(BATCH, len(self._items))
                await self._deliver([self._items.popleft() for _ in range(size)])
        finally:
            self._idle.set()

    async def _deliver(self, batch: list[Item]) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while True:
            try:
                await self._publish(batch)
            except Unroutable:
                self._log.info("nobody takes this any more", items=len(batch))
                return
            except BrokerError as error:
                if loop.time() > give_up:
                    self._log.warning("given up on a batch", items=len(batch), error=repr(error))
                    return
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return
