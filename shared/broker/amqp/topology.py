"""What Plenary has in RabbitMQ beside its processes' own queues: three exchanges, a queue per partition."""

import asyncio
from typing import Any, Literal, TypeAlias

from aiormq.abc import AbstractConnection, ChannelFrame
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp import commands
from pamqp.base import Frame

from shared.broker import BrokerError, partition_queue

QueueType: TypeAlias = Literal["classic", "quorum"]

_EXCHANGES = {"rooms": "direct", "notify": "topic", "media": "direct"}

_NEVER_DROPPED = 1_000_000
"""Quorum queues drop a message after this many deliveries, silently; unset it is 20 on RabbitMQ 4."""


class TopologyMismatch(BrokerError):
    """RabbitMQ has these queues with other settings: this process does not belong to that cluster."""


class Topology:
    def __init__(self, partitions: int, queue_type: QueueType) -> None:
        self._queue_type = queue_type
        self._frames = self._declarations(partitions, queue_type)

    async def declare(self, connection: AbstractConnection, timeout: float) -> None:  # noqa: ASYNC109
        """All in one write and one round trip. Raises `TopologyMismatch`."""
        channel = await connection.channel(publisher_confirms=False, timeout=timeout)
        frame = ChannelFrame.marshall(channel.number, self._frames)
        await asyncio.wait_for(connection.write_queue.put(frame), timeout)
        try:
            # Answered after all before it; one that was refused has closed the channel instead.
            await channel.exchange_declare("rooms", passive=True, timeout=timeout)
        except ChannelPreconditionFailed as refused:
            raise TopologyMismatch(
                f"RabbitMQ's partition queues are not the ones configured here (queue_type={self._queue_type}): "
                f"{refused}. Start this process with the running cluster's queue_type and partitions, or stop "
                "the cluster and delete the queues rooms.*"
            ) from refused
        await channel.close()

    @staticmethod
    def _declarations(partitions: int, queue_type: QueueType) -> list[Frame]:
        frames: list[Frame] = [
            commands.Exchange.Declare(exchange=name, exchange_type=kind, durable=True, nowait=True)
            for name, kind in _EXCHANGES.items()
        ]
        # No dead-letter exchange: expired ticks would land there (DELIVERY B5).
        arguments: dict[str, Any] = {"x-single-active-consumer": True, "x-queue-type": queue_type}
        if queue_type == "quorum":
            arguments["x-delivery-limit"] = _NEVER_DROPPED
        for number in range(partitions):
            queue, key = partition_queue(number), str(number)
            frames += (
                commands.Queue.Declare(queue=queue, durable=True, nowait=True, arguments=arguments),
                commands.Queue.Bind(queue=queue, exchange="rooms", routing_key=key, nowait=True),
            )
        return frames
