"""What all processes of a cluster must agree on: the number of partitions, keys that more than one role reads."""

import asyncio
import os
import re
import secrets
import socket
from typing import Final

from redis.asyncio import Redis

PARTITIONS_KEY: Final = "plenary:partitions"
EPOCH_KEY: Final = "plenary:epoch"


def index_key(partition: int) -> str:
    """The set of a partition's rooms: `R#incarnation`, R percent-encoded (DELIVERY C5)."""
    return f"plenary:partition:{partition}"


class DifferentCluster(Exception):
    """This process is configured for another cluster than the one it found."""


async def agree_on_partitions(redis: Redis, partitions: int) -> None:
    """The first process of a cluster fixes the number. Raises `DifferentCluster` if ours is another."""
    await redis.set(PARTITIONS_KEY, partitions, nx=True)
    held = await redis.get(PARTITIONS_KEY)
    if held is not None and int(held) != partitions:
        raise DifferentCluster(
            f"this cluster has {int(held)} partitions, this process is configured for {partitions}: "
            f"set PLENARY_PARTITIONS={int(held)}"
        )


class Epoch:
    """Notices that Redis was emptied, or is another: the random value that the first process put there is gone.

    Then nothing that a process remembers is true any more (DELIVERY C7).
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._known: bytes | None = None

    async def changed(self) -> bool:
        """To be asked every second or so. Raises `redis.RedisError`."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(EPOCH_KEY, secrets.token_hex(8), nx=True)
        pipeline.get(EPOCH_KEY)
        _, now = await asyncio.shield(asyncio.ensure_future(pipeline.execute()))
        before, self._known = self._known, now
        return before is not None and before != now


def process_id(role: str, name: str) -> str:
    """An id that no other process ever had: the configured name (or role, host, pid) and a random boot id."""
    readable = name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    # ids are parts of routing keys (where a dot separates words) and of keys in Redis (where a bar does)
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', readable)}-{secrets.token_hex(4)}"
