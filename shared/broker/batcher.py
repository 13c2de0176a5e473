"""Batches the messages for one destination and publishes each batch until it is confirmed.

A batch holds what gathered while the previous one was unconfirmed: there is no timer and no task, and a message
does not wait when there is little to do. Items leave in the order of the calls.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from shared.broker import BrokerError, BrokerUnavailable, Unroutable
from shared.telemetry import log

BATCH_ITEMS: Final = 512
BATCH_BYTES: Final = 256 * 1024
RETRY_PAUSE: Final = 0.1
"""Seconds before an unconfirmed batch is published again."""

_log = log.get("batcher")

T = TypeVar("T")


class Batcher(Generic[T]):
    """Publishes items of one destination in batches.

    `send` publishes a batch and returns the future of `Broker.publish`. A batch is sent again until it is
    confirmed, for at most `give_up_after` seconds. `on_confirmed` gets each confirmed batch; `on_undeliverable` gets
    a batch that found no queue or that was not confirmed in time. `size` returns the approximate bytes of an item.
    While more than `limit` items wait, the oldest is given to `on_undeliverable` for each new one.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[list[T]], "asyncio.Future[None]"],
        *,
        size: Callable[[T], int],
        on_confirmed: Callable[[list[T]], None],
        on_undeliverable: Callable[[list[T]], None],
        give_up_after: float = float("inf"),
        limit: int = 1_000_000,
    ) -> None:
        self._name = name
        self._send = send
        self._size = size
        self._on_confirmed = on_confirmed
        self._on_undeliverable = on_undeliverable
        self._give_up_after = give_up_after
        self._limit = limit
        self._waiting: deque[T] = deque()
        self._batch: list[T] = []
        self._deadline = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def idle(self) -> bool:
        """True while no item waits for a confirm."""
        return self._drained.is_set()

    @property
    def waiting(self) -> int:
        """The number of items that are not confirmed yet."""
        return len(self._waiting) + len(self._batch)

    async def drained(self) -> None:
        """Returns when no item waits for a confirm."""
        await self._drained.wait()

    def put(self, item: T) -> None:
        """Adds an item. Has no effect after `close`."""
        if self._closed:
            return
        if len(self._waiting) >= self._limit:
            _log.error("batcher.overflowed", to=self._name, limit=self._limit)
            self._on_undeliverable([self._waiting.popleft()])
        self._waiting.append(item)
        if self._drained.is_set():
            self._drained.clear()
            # The next turn of the loop publishes, so that items of the rest of this turn go along.
            asyncio.get_running_loop().call_soon(self._next)

    def close(self) -> None:
        """Discards the waiting items without calling `on_undeliverable`."""
        self._closed = True
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
        self._drained.set()

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
            self._deadline = asyncio.get_running_loop().time() + self._give_up_after
            self._publish()
        else:
            self._drained.set()

    def _publish(self) -> None:
        self._retry = None
        self._send(self._batch).add_done_callback(self._on_outcome)

    def _on_outcome(self, sent: "asyncio.Future[None]") -> None:
        if self._closed:
            return
        failure = BrokerUnavailable("cancelled") if sent.cancelled() else sent.exception()
        if isinstance(failure, BrokerError) and not isinstance(failure, Unroutable):
            loop = asyncio.get_running_loop()
            if loop.time() < self._deadline:
                self._retry = loop.call_later(RETRY_PAUSE, self._publish)
                return
        try:
            if failure is None:
                self._on_confirmed(self._batch)
            else:
                _log.info("batch.undeliverable", to=self._name, items=len(self._batch), error=repr(failure))
                self._on_undeliverable(self._batch)
        finally:  # The next batch must leave even if a callback raises.
            self._next()
