"""`plenary status`: who is there, and who serves what."""

import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from plenary.process import CannotStart, open_redis
from shared.registry import Observer

console = Console()


async def show(redis_url: str) -> None:
    redis = open_redis(redis_url)
    try:
        members = {role: await _read(redis, role) for role in ("gateways", "workers", "nodes")}
    except (RedisError, OSError) as failure:
        raise CannotStart(f"Redis at {redis_url} does not answer: {failure}") from None
    finally:
        await redis.aclose()
    _print("Gateways", members["gateways"], {"connections": "connections", "draining": "draining"})
    _print(
        "Room workers", members["workers"], {"rooms": "rooms", "active": "partitions", "subscribed": "in line for"}
    )
    _print(
        "Media nodes",
        members["nodes"],
        {"engine": "engine", "announced_ip": "address", "routers": "routers", "transports": "transports"},
    )


async def _read(redis: Redis, role: Any) -> dict[str, dict[str, Any]]:
    observer = Observer(redis, role)
    await observer.read(time.monotonic())
    return observer.alive


def _print(title: str, members: dict[str, dict[str, Any]], columns: dict[str, str]) -> None:
    table = Table(title=f"{title} ({len(members)})", title_justify="left")
    table.add_column("id")
    for heading in columns.values():
        table.add_column(heading)
    for name, info in sorted(members.items()):
        table.add_row(name, *(_cell(info.get(field, "")) for field in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return _ranges([int(number) for number in value])
    return str(value)


def _ranges(numbers: list[int]) -> str:
    """`0-3 7` for [0, 1, 2, 3, 7]."""
    parts: list[str] = []
    for number in numbers:
        if parts and number == int(parts[-1].rpartition("-")[2]) + 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return " ".join(parts)
