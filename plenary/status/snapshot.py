"""Takes snapshots of a cluster from what Redis and RabbitMQ report."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from redis.asyncio import Redis

from plenary.status.dead_letters import DeadLetter, read_dead_letters
from plenary.status.partitions import Partition, read_partitions, read_queue_depths
from shared.broker import BrokerUnavailable
from shared.broker.amqp.queues import QueueDepth
from shared.cluster.port import Cluster
from shared.cluster.redis_keys import Role
from shared.cluster.registry import BEAT_EVERY

OBSERVE_SECONDS: Final = 2 * BEAT_EVERY
"""Seconds between two reads of the registry: the beat of every process that lives has changed meanwhile."""


@dataclass(frozen=True)
class ObservedProcess:
    """A process as two reads of the registry show it; `beating` if its beat changed between them."""

    id: str
    info: dict[str, Any]
    beating: bool


@dataclass(frozen=True)
class Snapshot:
    """The cluster as Redis and RabbitMQ report it. `rabbitmq_error` says why queues are unknown, or is empty."""

    processes: dict[Role, list[ObservedProcess]]
    partitions: list[Partition]
    rabbitmq_error: str
    dead_letters: int
    latest_dead_letters: Sequence[DeadLetter]


async def take_snapshot(redis: Redis, cluster: Cluster, amqp_url: str) -> Snapshot:
    """Observes the cluster for `OBSERVE_SECONDS` seconds. Raises `RedisError`, OSError or `InvalidEntry`."""
    first = await read_registry(cluster)
    await asyncio.sleep(OBSERVE_SECONDS)
    second = await read_registry(cluster)
    processes = {role: observe(first[role], second[role]) for role in second}
    alive = {worker.id: worker.info for worker in processes["workers"] if worker.beating}
    partitions = await read_partitions(redis, alive)
    dead_letters, latest = await read_dead_letters(redis)
    error = ""
    try:
        queues = await read_queue_depths(amqp_url, len(partitions))
    except BrokerUnavailable as failure:
        error = str(failure)
    else:
        partitions = [_with_queue(partition, queues) for partition in partitions]
    return Snapshot(processes, partitions, error, dead_letters, latest)


async def read_registry(cluster: Cluster) -> dict[Role, dict[str, Any]]:
    """Returns the entry of every process in the registry, by role and id."""
    return {role: await cluster.members(role) for role in get_args(Role)}


def observe(first: dict[str, Any], second: dict[str, Any]) -> list[ObservedProcess]:
    """Returns the processes of the second read; those that are new or whose beat has changed are beating."""
    return [
        ObservedProcess(name, info, name not in first or first[name].get("beat") != info.get("beat"))
        for name, info in sorted(second.items())
    ]


def _with_queue(partition: Partition, queues: dict[int, QueueDepth]) -> Partition:
    depth = queues.get(partition.number)
    return replace(partition, waiting=depth.messages, in_line=depth.consumers) if depth else partition
