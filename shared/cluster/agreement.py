"""Agrees with a cluster on its number of partitions and on its epoch, and makes the id of a process."""

import os
import re
import secrets
import socket

from shared.cluster.entries import InvalidEntry
from shared.cluster.port import Cluster


class DifferentCluster(Exception):
    """Raised if this process is configured for another cluster than the one it found."""


async def agree_on_partitions(cluster: Cluster, partitions: int) -> None:
    """Agrees with the cluster on its number of partitions, which its first process fixes.

    Raises `DifferentCluster` if this process is configured for another, or if Redis holds no number.
    """
    try:
        held = await cluster.agree_on_partitions(partitions)
    except InvalidEntry as invalid:
        raise DifferentCluster(str(invalid)) from None
    if held != partitions:
        raise DifferentCluster(
            f"this cluster has {held} partitions, this process is configured for {partitions}: "
            f"set PLENARY_PARTITIONS={held}"
        )


class Epoch:
    """Notices that Redis was emptied, or is another: the random value that the first process put there has changed.

    Then nothing that a process remembers is true any more (DELIVERY C7).
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: str | None = None

    async def changed(self) -> bool:
        """Returns whether the epoch has changed since the last call. Raises `redis.RedisError`.

        To be called about once a second.
        """
        now = await self._cluster.epoch()
        before, self._known = self._known, now
        return before is not None and before != now


def process_id(role: str, name: str) -> str:
    """Returns an id that no other process ever had: the configured name (or role, host, pid) and a random boot id."""
    readable = name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    # ids are parts of routing keys, where a dot separates words, and of keys in Redis, where a bar does
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', readable)}-{secrets.token_hex(4)}"
