"""Committed messages on their way to gateways, requests and orders on their way to media nodes.

One pipe per destination: what accumulates while the previous publish is unconfirmed goes as one message, so
that under load a publish carries many and at low load nothing waits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from roomworker.room import Changes
from shared import log
from shared.broker import Broker, BrokerError, Unroutable
from shared.protocol import bus, media

BATCH_ITEMS: Final = 512
BATCH_BYTES: Final = 256 * 1024
RETRY_PAUSE: Final = 0.1

logger = log.get("outbox")

T = TypeVar("T")


class Receipt:
    """Calls `done` once everything that was counted has been confirmed."""

    __slots__ = ("_done", "_open")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._open = 1

    def add(self) -> "Receipt":
        self._open += 1
        return self

    def confirm(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._done()


@dataclass(slots=True)
class _Parcel(Generic[T]):
    item: T
    size: int
    receipt: Receipt | None


class Pipe(Generic[T]):
    """Publishes to one destination, in order, one batch at a time.

    `send` publishes a batch and raises `BrokerError`; `lost` is told of a batch that has no destination.
    """

    def __init__(
        self, send: Callable[[list[T]], Awaitable[None]], lost: Callable[[list[T]], None], name: str
    ) -> None:
        self._send = send
        self._lost = lost
        self._name = name
        self._queue: deque[_Parcel[T]] = deque()
        self._pump: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._pump is None

    def push(self, item: T, size: int, receipt: Receipt | None = None) -> None:
        self._queue.append(_Parcel(item, size, receipt))
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name=f"pipe to {self._name}")

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                await self._publish([parcel.item for parcel in batch])
                for parcel in batch:
                    if parcel.receipt is not None:
                        parcel.receipt.confirm()
        finally:
            self._pump = None

    def _next_batch(self) -> list[_Parcel[T]]:
        batch: list[_Parcel[T]] = []
        size = 0
        while self._queue and len(batch) < BATCH_ITEMS and size < BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += batch[-1].size
        return batch

    async def _publish(self, items: list[T]) -> None:
        while True:
            try:
                return await self._send(items)
            except Unroutable:
                return self._lost(items)
            except BrokerError as failure:
                logger.warning("publish failed; trying again", to=self._name, error=str(failure))
                await asyncio.sleep(RETRY_PAUSE)


class Outbox:
    """All pipes of one worker."""

    def __init__(self, broker: Broker, worker: str, requests_lost: Callable[[list[int]], None]) -> None:
        self._broker = broker
        self._worker = worker
        self._requests_lost = requests_lost
        self._gateways: dict[str, Pipe[bus.Message | bus.Applied]] = {}
        self._nodes: dict[str, Pipe[media.Command]] = {}
        self.published = 0

    def push(self, changes: Changes, done: Callable[[], None]) -> None:
        """Sends what a commit carried; `done` is called when the broker has all of it."""
        receipt = Receipt(done)
        for message in changes.messages:
            by_gateway: dict[str, list[bus.Recipient]] = {}
            for session, out in message.to:
                recipient = bus.Recipient(session.connection, session.id, out)
                by_gateway.setdefault(session.gateway, []).append(recipient)
            for gateway, to in by_gateway.items():
                size = len(message.body) + 48 * len(to)
                self._gateway(gateway).push(bus.Message(message.body, to, message.close), size, receipt.add())
        for session, n_in, n_out in changes.applied:
            applied = bus.Applied(session.connection, session.id, n_in, n_out)
            self._gateway(session.gateway).push(applied, 48, receipt.add())
        for node, order in changes.orders:
            self._node(node).push(media.Command(0, order), 128, receipt.add())
        receipt.confirm()

    def tell(self, gateway: str, what: bus.Message | bus.Applied) -> None:
        """Something that is not part of a commit."""
        self._gateway(gateway).push(what, 48)

    def ask(self, node: str, n: int, request: media.AnyRequest) -> None:
        self._node(node).push(media.Command(n, request), 1024)

    async def close(self) -> None:
        pipes: Iterable[Pipe[bus.Message | bus.Applied] | Pipe[media.Command]] = (
            *self._gateways.values(),
            *self._nodes.values(),
        )
        for pipe in pipes:
            await pipe.close()

    def forget(self, destination: str) -> None:
        """A gateway or node that is no more."""
        for pipes in (self._gateways, self._nodes):
            pipe = pipes.get(destination)
            if pipe is not None and pipe.idle:
                del pipes[destination]

    def _gateway(self, gateway: str) -> Pipe[bus.Message | bus.Applied]:
        pipe = self._gateways.get(gateway)
        if pipe is None:

            async def send(items: list[bus.Message | bus.Applied]) -> None:
                messages = [item for item in items if isinstance(item, bus.Message)]
                applied = [item for item in items if isinstance(item, bus.Applied)]
                first = messages[0].to[0].connection if messages else applied[0].connection
                body = bus.encode_to_gateway(bus.ToGateway(messages, applied))
                self.published += 1
                await self._broker.publish("notify", f"{gateway}.{first}", body, mandatory=True)

            def lost(items: list[bus.Message | bus.Applied]) -> None:
                logger.info("gateway has no queue", gateway=gateway, items=len(items))

            pipe = self._gateways[gateway] = Pipe(send, lost, gateway)
        return pipe

    def _node(self, node: str) -> Pipe[media.Command]:
        pipe = self._nodes.get(node)
        if pipe is None:

            async def send(commands: list[media.Command]) -> None:
                body = media.encode(media.Commands(reply_to=self._worker, commands=commands))
                self.published += 1
                await self._broker.publish("media", node, body, mandatory=True)

            def lost(commands: list[media.Command]) -> None:
                self._requests_lost([command.n for command in commands if command.n])

            pipe = self._nodes[node] = Pipe(send, lost, node)
        return pipe
