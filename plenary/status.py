"""`plenary status`: who is there, who serves what, what waits and what was set aside."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plenary import backlog
from plenary.backlog import DeadLetter, Partition
from plenary.process import CannotStart
from plenary.redislink import open_redis
from shared.broker import BrokerUnavailable
from shared.broker.amqp.queues import QueueDepth
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.redis_keys import Role
from shared.cluster.registry import BEAT_EVERY

LOOK_FOR: Final = 2 * BEAT_EVERY
"""Seconds between the two looks: who lives has changed its beat meanwhile."""

console = Console(soft_wrap=True)

_COLUMNS: Final[dict[Role, tuple[str, dict[str, str]]]] = {
    "gateways": ("Gateways", {"connections": "connections", "draining": "draining"}),
    "workers": ("Room workers", {"rooms": "rooms", "active": "partitions", "subscribed": "in line for"}),
    "nodes": (
        "Media nodes",
        {"engine": "engine", "announced_ip": "address", "routers": "routers", "transports": "transports"},
    ),
}


@dataclass(frozen=True)
class Seen:
    """A process as it was seen twice."""

    id: str
    info: dict[str, Any]
    beating: bool


async def show(redis_url: str, amqp_url: str) -> None:
    redis = open_redis(redis_url)
    try:
        with console.status(f"looking for {LOOK_FOR:.0f} s who is alive …"):
            first = await look(redis)
            await asyncio.sleep(LOOK_FOR)
            second = await look(redis)
        alive = {seen.id: seen.info for seen in compare(first["workers"], second["workers"]) if seen.beating}
        partitions = await backlog.partitions(redis, alive)
        dead = await backlog.dead_letters(redis)
    except (RedisError, OSError) as failure:
        raise CannotStart(f"Redis does not answer: {failure} (--redis-url)") from None
    finally:
        await redis.aclose()
    for role, (title, columns) in _COLUMNS.items():
        _print(title, compare(first[role], second[role]), columns)
    try:
        queues = await backlog.queues(amqp_url, len(partitions))
    except BrokerUnavailable as failure:
        console.print(f"[yellow]RabbitMQ does not tell what waits:[/] {escape(str(failure))} (--amqp-url)")
    else:
        partitions = [_with_queue(partition, queues) for partition in partitions]
    _print_partitions(partitions)
    _print_unreadable(alive)
    _print_dead_letters(*dead)


async def look(redis: Redis) -> dict[Role, dict[str, Any]]:
    """What every process last told."""
    cluster = RedisCluster(redis)
    return {role: await cluster.members(role) for role in get_args(Role)}


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[Seen]:
    """Who is new in the second look beats as well as who has changed."""
    return [
        Seen(name, info, name not in first or first[name].get("beat") != info.get("beat"))
        for name, info in sorted(second.items())
    ]


def _print(title: str, members: Sequence[Seen], columns: dict[str, str]) -> None:
    alive = sum(member.beating for member in members)
    table = Table(title=f"{title} ({alive})", title_justify="left")
    for heading in ("id", *columns.values()):
        table.add_column(heading)
    for member in members:
        note = "" if member.beating else " [yellow]not beating[/]"
        cells = (escape(_cell(member.info.get(field, ""))) for field in columns)
        table.add_row(escape(member.id) + note, *cells, style=None if member.beating else "dim")
    console.print(table)


def _with_queue(partition: Partition, queues: dict[int, QueueDepth]) -> Partition:
    depth = queues.get(partition.number)
    return partition if depth is None else replace(partition, waiting=depth.messages, in_line=depth.consumers)


def _print_partitions(partitions: Sequence[Partition]) -> None:
    """Those with a backlog one by one, then those without their one room worker; of the others only how many."""
    known = [partition.waiting for partition in partitions if partition.waiting is not None]
    backlog = f"{sum(known)} batches wait" if known else "backlog not known"
    title = f"Partitions ({len(partitions)}): {backlog}"
    unwell = [partition for partition in partitions if not partition.well]
    if not unwell:
        console.print(f"[italic]{title}, each partition has its room worker[/]")
        return
    table = Table(title=title, title_justify="left")
    for heading in ("partitions", "batches waiting", "workers in line", "rooms", "served by"):
        table.add_column(heading, justify="right" if heading in ("batches waiting", "workers in line") else "left")
    for alike in _alike(unwell):
        first, rooms = alike[0], sum(partition.rooms for partition in alike)
        served = escape(" ".join(first.served_by)) or "nobody"
        cells = (
            _ranges([it.number for it in alike]),
            _known(first.waiting),
            _known(first.in_line),
            str(rooms),
            served,
        )
        table.add_row(*cells, style=None if len(first.served_by) == 1 else "yellow")
    if others := len(partitions) - len(unwell):
        rooms = sum(partition.rooms for partition in partitions if partition.well)
        table.add_row(f"the other {others}", "0" if known else "?", "", str(rooms), "one room worker each")
    console.print(table)


def _alike(partitions: Sequence[Partition]) -> list[list[Partition]]:
    """The longest backlog first, each by itself; those without one by who serves them."""
    groups: dict[Any, list[Partition]] = {}
    for it in sorted(partitions, key=lambda partition: -(partition.waiting or 0)):
        groups.setdefault(it.number if it.waiting else (it.waiting, it.in_line, it.served_by), []).append(it)
    return list(groups.values())


def _known(number: int | None) -> str:
    return "?" if number is None else str(number)


def _print_unreadable(workers: dict[str, dict[str, Any]]) -> None:
    """Rooms that their worker cannot load from Redis: nobody can use them until what is stored is mended."""
    count = sum(int(info.get("unreadable", 0)) for info in workers.values())
    if not count:
        return
    named = [
        (room, worker, reason)
        for worker, info in workers.items()
        for room, reason in info.get("unreadable_rooms", {}).items()
    ]
    shown = "" if count == len(named) else f", of which {len(named)}"
    table = Table(title=f"Rooms that cannot be read ({count}{shown})", title_justify="left")
    for heading in ("room", "room worker", "reason"):
        table.add_column(heading)
    for cells in sorted(named):
        table.add_row(*map(escape, cells), style="red")
    console.print(table)


def _print_dead_letters(count: int, latest: Sequence[DeadLetter]) -> None:
    if not count:
        return
    shown = "" if count == len(latest) else f", the latest {len(latest)}"
    table = Table(title=f"Messages set aside ({count}{shown})", title_justify="left")
    for heading in ("when", "partition", "message", "room", "reason"):
        table.add_column(heading)
    for it in latest:
        when = f"{it.at:%Y-%m-%d %H:%M:%S} UTC"
        table.add_row(when, str(it.partition), *map(escape, (it.what, it.room, it.reason)), style="yellow")
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _ranges([int(number) for number in value])
    return str(value)


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3 7` for [0, 1, 2, 3, 7]."""
    parts: list[str] = []
    for number in numbers:
        if parts and number == int(parts[-1].rpartition("-")[2]) + 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return " ".join(parts)
