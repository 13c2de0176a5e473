"""The partitions' queues, and the messages that were set aside, for `plenary status`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.broker.amqp.queues import QueueDepth, QueueProbe
from shared.cluster.redis_keys import DEAD_LETTERS_KEY, PARTITIONS_KEY, index_key

ANSWER_WITHIN: Final = 5.0
LATEST: Final = 10


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
        return len(self.served_by) == 1 and not self.waiting and self.in_line != 0


@dataclass(frozen=True)
class DeadLetter:
    """A message that was set aside: its kind, its room and the reason."""

    at: datetime
    partition: int
    what: str
    room: str
    reason: str


async def partitions(redis: Redis, workers: dict[str, dict[str, Any]]) -> list[Partition]:
    """All partitions of the cluster, without their queues. Raises `RedisError`.

    `workers` are the room workers' entries in the registry by id.
    """
    number = int(await redis.get(PARTITIONS_KEY) or 0)
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


async def queues(amqp_url: str, number: int) -> dict[int, QueueDepth]:
    """Returns the depth of each partition's queue that exists. Raises `BrokerUnavailable`."""
    probe = QueueProbe(amqp_url)
    try:
        return await probe.depths(number, within=ANSWER_WITHIN)
    finally:
        await probe.close()


async def dead_letters(redis: Redis) -> tuple[int, list[DeadLetter]]:
    """The number of messages that were set aside, and the latest of them. Raises `RedisError`."""
    count = await redis.xlen(DEAD_LETTERS_KEY)
    entries: Any = await redis.xrevrange(DEAD_LETTERS_KEY, count=LATEST)
    return count, [_letter(id_.decode(), fields) for id_, fields in entries]


def _letter(id_: str, fields: dict[bytes, bytes]) -> DeadLetter:
    what, room = orjson.loads(fields[b"item"])[:2]
    at = datetime.fromtimestamp(int(id_.partition("-")[0]) / 1000, UTC)
    return DeadLetter(at, int(fields[b"partition"]), what, room, fields[b"reason"].decode())
