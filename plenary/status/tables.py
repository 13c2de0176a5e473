"""Prints the tables of `plenary status`."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plenary.status.dead_letters import DeadLetter
from plenary.status.partitions import Partition
from plenary.status.snapshot import ObservedProcess, Snapshot
from shared.cluster.redis_keys import Role

_COLUMNS: Final[dict[Role, tuple[str, dict[str, str]]]] = {
    "gateways": ("Gateways", {"connections": "connections", "draining": "draining"}),
    "workers": ("Room workers", {"rooms": "rooms", "active": "partitions", "subscribed": "in line for"}),
    "nodes": (
        "Media nodes",
        {"engine": "engine", "announced_ip": "address", "routers": "routers", "transports": "transports"},
    ),
}


def print_snapshot(console: Console, snapshot: Snapshot) -> None:
    """Prints all tables."""
    for role, (title, columns) in _COLUMNS.items():
        _print_processes(console, title, snapshot.processes[role], columns)
    if snapshot.rabbitmq_error:
        console.print(
            f"[yellow]RabbitMQ does not report the backlog:[/] {escape(snapshot.rabbitmq_error)} (--amqp-url)"
        )
    _print_partitions(console, snapshot.partitions)
    _print_unreadable(console, {worker.id: worker.info for worker in snapshot.processes["workers"] if worker.beating})
    _print_dead_letters(console, snapshot.dead_letters, snapshot.latest_dead_letters)


def _print_processes(
    console: Console, title: str, members: Sequence[ObservedProcess], columns: dict[str, str]
) -> None:
    alive = sum(member.beating for member in members)
    table = Table(title=f"{title} ({alive})", title_justify="left")
    for heading in ("id", *columns.values()):
        table.add_column(heading)
    for member in members:
        note = "" if member.beating else " [yellow]not beating[/]"
        cells = (escape(_cell(member.info.get(field, ""))) for field in columns)
        table.add_row(escape(member.id) + note, *cells, style=None if member.beating else "dim")
    console.print(table)


def _print_partitions(console: Console, partitions: Sequence[Partition]) -> None:
    """Lists partitions with a backlog, then those without exactly one room worker; the others are only counted."""
    known = [partition.waiting for partition in partitions if partition.waiting is not None]
    backlog = f"{sum(known)} batches wait" if known else "backlog not known"
    title = f"Partitions ({len(partitions)}): {backlog}"
    listed = [partition for partition in partitions if not partition.healthy]
    if not listed:
        console.print(f"[italic]{title}, each partition has its room worker[/]")
        return
    table = Table(title=title, title_justify="left")
    for heading in ("partitions", "batches waiting", "workers in line", "rooms", "served by"):
        table.add_column(heading, justify="right" if heading in ("batches waiting", "workers in line") else "left")
    for alike in _alike(listed):
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
    if others := len(partitions) - len(listed):
        rooms = sum(partition.rooms for partition in partitions if partition.healthy)
        table.add_row(f"the other {others}", "0" if known else "?", "", str(rooms), "one room worker each")
    console.print(table)


def _alike(partitions: Sequence[Partition]) -> list[list[Partition]]:
    """Groups partitions: each with a backlog by itself, longest first; the others by the workers that serve them."""
    groups: dict[Any, list[Partition]] = {}
    for it in sorted(partitions, key=lambda partition: -(partition.waiting or 0)):
        groups.setdefault(it.number if it.waiting else (it.waiting, it.in_line, it.served_by), []).append(it)
    return list(groups.values())


def _known(number: int | None) -> str:
    return "?" if number is None else str(number)


def _print_unreadable(console: Console, workers: dict[str, dict[str, Any]]) -> None:
    """Lists rooms that their worker cannot load from Redis: they are unusable until their records are repaired."""
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


def _print_dead_letters(console: Console, count: int, latest: Sequence[DeadLetter]) -> None:
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
    """Formats ascending numbers: `0-3 7` for [0, 1, 2, 3, 7]."""
    parts: list[str] = []
    for number in numbers:
        if parts and number == int(parts[-1].rpartition("-")[2]) + 1:
            parts[-1] = f"{parts[-1].partition('-')[0]}-{number}"
        else:
            parts.append(str(number))
    return " ".join(parts)
