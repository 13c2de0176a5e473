"""What Redis and RabbitMQ report about a cluster at one time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from redis.asyncio import Redis

from plenary import backlog
from plenary.backlog import DeadLetter, Partition
from shared.broker import BrokerUnavailable
from shared.broker.amqp.queues import QueueDepth
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.redis_keys import Role
from shared.cluster.registry import BEAT_EVERY

LOOK_FOR: Final = 2 * BEAT_EVERY
"""Seconds between two looks at the registry: the beat of every process that lives has changed meanwhile."""


@dataclass(frozen=True)
class Seen:
    """A process after two looks at its entry in the registry; `beating` if the entry changed between them."""

    id: str
    info: dict[str, Any]
    beating: bool


@dataclass(frozen=True)
class Snapshot:
    """The cluster as Redis and RabbitMQ report it. `rabbitmq_error` says why queues are not known; else empty."""

    processes: dict[Role, list[Seen]]
    partitions: list[Partition]
    rabbitmq_error: str
    dead_letters: int
    latest_dead_letters: Sequence[DeadLetter]


async def take(redis: Redis, amqp_url: str) -> Snapshot:
    """Looks at the cluster for `LOOK_FOR` seconds. Raises `RedisError` or OSError."""
    first = await look(redis)
    await asyncio.sleep(LOOK_FOR)
    second = await look(redis)
    processes = {role: compare(first[role], second[role]) for role in second}
    alive = {seen.id: seen.info for seen in processes["workers"] if seen.beating}
    partitions = await backlog.partitions(redis, alive)
    dead_letters, latest = await backlog.dead_letters(redis)
    error = ""
    try:
        queues = await backlog.queues(amqp_url, len(partitions))
    except BrokerUnavailable as failure:
        error = str(failure)
    else:
        partitions = [_with_queue(partition, queues) for partition in partitions]
    return Snapshot(processes, partitions, error, dead_letters, latest)


async def look(redis: Redis) -> dict[Role, dict[str, Any]]:
    """The latest entry of every process in the registry, by role and id."""
    cluster = RedisCluster(redis)
    return {role: await cluster.members(role) for role in get_args(Role)}


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[Seen]:
    """The processes of the second look; those that are new or have changed since the first one beat."""
    return [
        Seen(name, info, name not in first or first[name].get("beat") != info.get("beat"))
        for name, info in sorted(second.items())
    ]


def _with_queue(partition: Partition, queues: dict[int, QueueDepth]) -> Partition:
    depth = queues.get(partition.number)
    return replace(partition, waiting=depth.messages, in_line=depth.consumers) if depth else partition
