"""Asks RabbitMQ how many messages and consumers the partitions' queues have, without changing anything."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from shared.broker import BrokerUnavailable, addresses, partition_queue
from shared.broker.amqp.topology import close_quietly, connect


@dataclass(frozen=True)
class QueueDepth:
    """The depth of a queue: the messages that wait for a consumer, without unacknowledged ones, and its consumers."""

    messages: int
    consumers: int


class QueueProbe:
    """Asks for the depths of queues over a connection that it keeps, and opens again after a loss.

    `url` as `shared.broker.addresses` parses it. Errors never contain the password.
    """

    def __init__(self, url: str) -> None:
        self._addresses: Sequence[addresses.Address] = addresses.parse(url)
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    async def depths(self, partitions: int, *, within: float, spread: float = 0.0) -> dict[int, QueueDepth]:
        """Returns the depth of each partition's queue that exists.

        The questions are spread over `spread` seconds: all at once would delay what is measured. Raises
        `BrokerUnavailable` if RabbitMQ does not answer all of them within `within` seconds.
        """
        asking = asyncio.ensure_future(self._ask(partitions, spread))
        try:
            done, _ = await asyncio.wait((asking,), timeout=within)
        finally:
            asking.cancel()
        if not done:
            await self.close()
            raise BrokerUnavailable(f"no answer within {within:.0f} s")
        # aiormq ends the calls of a lost connection with CancelledError, which must not look like our own.
        failure = BrokerUnavailable("the connection was lost") if asking.cancelled() else asking.exception()
        if failure is None:
            return asking.result()
        await self.close()
        if isinstance(failure, AMQPError | OSError):
            raise BrokerUnavailable(str(failure) or type(failure).__name__) from failure
        raise failure

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await close_quietly(connection)

    async def _ask(self, partitions: int, spread: float) -> dict[int, QueueDepth]:
        found: dict[int, QueueDepth] = {}
        began = time.monotonic()
        for partition in range(partitions):
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._open_channel()
            try:
                queue: Any = await self._channel.declare_queue(partition_queue(partition), passive=True)
            except ChannelNotFoundEntity:  # RabbitMQ closes the channel over it.
                self._channel = None
            else:
                declared = queue.declaration_result
                found[partition] = QueueDepth(declared.message_count or 0, declared.consumer_count or 0)
            due = began + spread * (partition + 1) / partitions
            if spread:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        return found

    async def _open_channel(self) -> AbstractChannel:
        if self._connection is None or self._connection.is_closed:
            self._connection = await self._connect()
        return await self._connection.channel(publisher_confirms=False)

    async def _connect(self) -> AbstractConnection:
        failure: Exception | None = None
        for address in addresses.in_turn(self._addresses):
            try:
                return await connect(address, "plenary queue probe")
            except (AMQPError, OSError) as refused:
                failure = refused
        assert failure is not None
        raise failure
