"""Reads the partitions of a cluster: their rooms, their room workers, and the depth of their queues."""

from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from shared.broker.amqp.queues import QueueDepth, QueueProbe
from shared.cluster.entries import decode_partitions
from shared.cluster.redis_keys import PARTITIONS_KEY, index_key

ANSWER_SECONDS: Final = 5.0
"""Seconds within which RabbitMQ has to report the depths of all queues."""


@dataclass(frozen=True)
class Partition:
    """A partition of rooms, and the room workers that say they serve it.

    `waiting` is the number of batches in its queue that no room worker has yet, `in_line` the number of room workers
    that would take them; both are None if RabbitMQ has no such queue.
    """

    number: int
    rooms: int
    served_by: tuple[str, ...]
    waiting: int | None = None
    in_line: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether one room worker serves the partition, no batch waits, and its queue has a consumer."""
        return len(self.served_by) == 1 and not self.waiting and self.in_line != 0


async def read_partitions(redis: Redis, workers: dict[str, dict[str, Any]]) -> list[Partition]:
    """Returns all partitions of the cluster, without the depths of their queues.

    `workers` are the room workers' entries in the registry by id. Raises `RedisError`, or `InvalidEntry` if Redis
    holds no number of partitions.
    """
    held = await redis.get(PARTITIONS_KEY)
    number = 0 if held is None else decode_partitions(held)
    pipeline = redis.pipeline(transaction=False)
    for partition in range(number):
        pipeline.scard(index_key(partition))
    rooms = await pipeline.execute()
    return [
        Partition(
            partition,
            rooms[partition],
            tuple(sorted(worker for worker, info in workers.items() if partition in info.get("active", ()))),
        )
        for partition in range(number)
    ]


async def read_queue_depths(amqp_url: str, number: int) -> dict[int, QueueDepth]:
    """Returns the depth of each partition's queue that exists. Raises `BrokerUnavailable`."""
    probe = QueueProbe(amqp_url)
    try:
        return await probe.depths(number, within=ANSWER_SECONDS)
    finally:
        await probe.close()
