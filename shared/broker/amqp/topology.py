"""Declares what all processes share in RabbitMQ: three exchanges, and a queue per partition.

Declaring is rare, so it is done with aio-pika, over a connection of its own.
"""

import asyncio
from typing import Any, Final, Literal, TypeAlias

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPConnectionError, AMQPError, ChannelPreconditionFailed
from aiormq.exceptions import InvalidFrameError

from shared.broker import BrokerError, BrokerUnavailable, partition_queue
from shared.broker.addresses import Address
from shared.broker.amqp.connection import REFUSED

QueueType: TypeAlias = Literal["classic", "quorum"]

CALL_TIMEOUT: Final = 10.0
CLOSE_TIMEOUT: Final = 3.0
SECONDS_PER_PARTITION: Final = 0.1
"""The seconds that declaring may take longer for each partition, as a quorum queue takes long to be made."""

_EXCHANGES: Final = {"rooms": "direct", "notify": "topic", "media": "direct"}

_DELIVERY_LIMIT: Final = 1_000_000
"""Quorum queues drop a message after this many deliveries, silently; unset it is 20 on RabbitMQ 4 (DELIVERY B5)."""


class TopologyMismatch(BrokerError):
    """Raised if RabbitMQ has these queues with other settings: this process does not belong to that cluster."""


class Topology:
    """Declares exchanges and partition queues. Declaring what exists changes nothing."""

    def __init__(self, partitions: int, queue_type: QueueType, name: str) -> None:
        self._partitions = partitions
        self._queue_type = queue_type
        self._name = name
        self._declaring: asyncio.Task[None] | None = None

    async def declare(self, address: Address) -> None:
        """Declares everything; callers at the same time share one attempt.

        Raises `TopologyMismatch`, or `BrokerUnavailable` if RabbitMQ does not answer.
        """
        if self._declaring is None or self._declaring.done():
            self._declaring = asyncio.create_task(self._declare(address))
        declaring = self._declaring
        within = CALL_TIMEOUT + SECONDS_PER_PARTITION * self._partitions
        done, _ = await asyncio.wait((declaring,), timeout=within)
        if not done:
            declaring.cancel()
            raise BrokerUnavailable(f"the queues were not declared within {within:.0f} s")
        # aiormq ends the calls of a lost connection with CancelledError, which must not look like our own.
        if declaring.cancelled():
            raise BrokerUnavailable("the connection was lost while the queues were declared")
        declaring.result()

    async def close(self) -> None:
        if self._declaring is not None:
            self._declaring.cancel()
            await asyncio.gather(self._declaring, return_exceptions=True)

    async def _declare(self, address: Address) -> None:
        try:
            connection = await connect(address, f"{self._name} topology")
            try:
                channel = await connection.channel(publisher_confirms=False)
                await self._declare_all(channel)
            finally:
                await close_quietly(connection)
        except ChannelPreconditionFailed as refused:
            raise TopologyMismatch(
                f"RabbitMQ's partition queues are not the ones configured here (queue_type={self._queue_type}): "
                f"{refused}. Start this process with the running cluster's queue_type and partitions, or stop "
                "the cluster and delete the queues rooms.*"
            ) from refused
        except (AMQPError, OSError, TimeoutError) as failure:
            raise BrokerUnavailable(f"the queues were not declared: {failure or type(failure).__name__}") from failure

    async def _declare_all(self, channel: AbstractChannel) -> None:
        for name, kind in _EXCHANGES.items():
            await channel.declare_exchange(name, kind, durable=True, timeout=CALL_TIMEOUT)
        # No dead-letter exchange: expired ticks would land there (DELIVERY B5).
        arguments: dict[str, Any] = {"x-single-active-consumer": True, "x-queue-type": self._queue_type}
        if self._queue_type == "quorum":
            arguments["x-delivery-limit"] = _DELIVERY_LIMIT
        for number in range(self._partitions):
            queue = await channel.declare_queue(
                partition_queue(number), durable=True, arguments=arguments, timeout=CALL_TIMEOUT
            )
            await queue.bind("rooms", str(number), timeout=CALL_TIMEOUT)


async def connect(address: Address, name: str) -> aio_pika.abc.AbstractConnection:
    """Returns an aio-pika connection. Raises `OSError`, `TimeoutError` or an `AMQPError`."""
    secure = await asyncio.to_thread(address.tls) if address.secure else None
    try:
        return await aio_pika.connect(
            address.url, ssl_context=secure, timeout=CALL_TIMEOUT, client_properties={"connection_name": name}
        )
    except InvalidFrameError as failure:
        # RabbitMQ refuses a virtual host by closing the connection, which aiormq takes for an unexpected answer.
        raise AMQPConnectionError(f"{address}: {REFUSED[530]}") from failure


async def close_quietly(connection: aio_pika.abc.AbstractConnection) -> None:
    """Closes a connection in whatever state, within `CLOSE_TIMEOUT`."""
    closing = asyncio.ensure_future(connection.close())
    await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
