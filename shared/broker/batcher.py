"""Messages for one destination, published in batches.

A batch is what gathered while the one before was unconfirmed: no timer, no task, and no waiting when there is
little to do. Items leave in the order they came.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from shared.broker import BrokerError, BrokerGone, Unroutable
from shared.telemetry import log

BATCH_ITEMS: Final = 512
BATCH_BYTES: Final = 256 * 1024
RETRY_PAUSE: Final = 0.1

logger = log.get("pipe")

T = TypeVar("T")


class Pipe(Generic[T]):
    """`send` publishes a batch: its future is that of `Broker.publish`.

    A batch is sent again until it is confirmed, for at most `patience` seconds; `done` is then told of it, and
    `lost` of one that nobody can get or whose time is up. `size` is an item's bytes, about. With more than `limit`
    items waiting the oldest are lost.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], "asyncio.Future[None]"],
        *,
        size: Callable[[T], int],
        done: Callable[[list[T]], None],
        lost: Callable[[list[T]], None],
        patience: float = float("inf"),
        limit: int = 1_000_000,
    ) -> None:
        self._name = name
        self._send = send
        self._size = size
        self._done = done
        self._lost = lost
        self._patience = patience
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._batch: list[T] = []
        self._give_up = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self._emptied = asyncio.Event()
        self._emptied.set()

    @property
    def idle(self) -> bool:
        return self._emptied.is_set()

    @property
    def waiting(self) -> int:
        """Items that are not confirmed yet."""
        return len(self._waiting) + len(self._batch)

    async def emptied(self) -> None:
        """Returns when nothing waits for its confirm."""
        await self._emptied.wait()

    def put(self, item: T) -> None:
        if self._closed:
            return
        if len(self._waiting) >= self._limit:
            logger.error("too much is waiting, the oldest is lost", to=self._name, limit=self._limit)
            self._lost([self._waiting.popleft()])
        self._waiting.append(item)
        if self._emptied.is_set():
            self._emptied.clear()
            # not at once: what else this turn of the loop brings goes along
            asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        """Gives up what is waiting, without a word."""
        self._closed = True
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
        self._emptied.set()

    def _next(self) -> None:
        if self._closed:
            return
        batch: list[T] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ITEMS and size < BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += self._size(batch[-1])
        self._batch = batch
        if batch:
            self._give_up = asyncio.get_running_loop().time() + self._patience
            self._publish()
        else:
            self._emptied.set()

    def _publish(self) -> None:
        self._retry = None
        self._send(self._batch).add_done_callback(self._answered)

    def _answered(self, sent: "asyncio.Future[None]") -> None:
        if self._closed:
            return
        failure = BrokerGone("cancelled") if sent.cancelled() else sent.exception()
        if isinstance(failure, BrokerError) and not isinstance(failure, Unroutable):
            loop = asyncio.get_running_loop()
            if loop.time() < self._give_up:
                self._retry = loop.call_later(RETRY_PAUSE, self._publish)
                return
        try:
            if failure is None:
                self._done(self._batch)
            else:
                logger.info("not delivered", to=self._name, items=len(self._batch), why=repr(failure))
                self._lost(self._batch)
        finally:  # whatever they do, what follows must go on
            self._next()
