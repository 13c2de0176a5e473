"""`plenary status`: prints the living processes, their partitions, the backlog, and messages that were set aside."""

import asyncio
import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from redis.exceptions import RedisError
from rich.console import Console

from plenary.processes.event_loop import CannotStart
from plenary.processes.redis_client import open_redis
from plenary.status.snapshot import OBSERVE_SECONDS, Snapshot, take_snapshot
from plenary.status.tables import print_snapshot
from shared.cluster.entries import InvalidEntry
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.redis_keys import Role


async def show_status(
    redis_url: str, amqp_url: str, stop: asyncio.Event, *, as_json: bool = False, watch: bool = False
) -> None:
    """Prints a snapshot, or with `watch` one after the other until `stop` is set. Raises `CannotStart`."""
    console = Console(soft_wrap=True)
    redis = open_redis(redis_url)
    cluster = RedisCluster(redis)
    try:
        while True:
            text = f"observing the cluster for {OBSERVE_SECONDS:.0f} s …"
            with nullcontext() if as_json or watch else console.status(text):
                snapshot = await take_snapshot(redis, cluster, amqp_url)
            if stop.is_set():
                return
            if as_json:
                _print_json(snapshot, lines=watch)
            else:
                if watch and console.is_terminal:
                    console.clear()
                print_snapshot(console, snapshot)
            if not watch:
                return
    except (RedisError, OSError) as failure:
        raise CannotStart(f"Redis does not answer: {failure} (--redis-url)") from None
    except InvalidEntry as invalid:
        raise CannotStart(str(invalid)) from None
    finally:
        await redis.aclose()


def as_dict(snapshot: Snapshot) -> dict[str, Any]:
    """Returns the snapshot as `--json` prints it."""
    names: dict[Role, str] = {"gateways": "gateways", "workers": "roomWorkers", "nodes": "mediaNodes"}
    return {
        **{
            names[role]: [{"id": it.id, "beating": it.beating, **_without_beat(it.info)} for it in members]
            for role, members in snapshot.processes.items()
        },
        "partitions": [
            {
                "number": partition.number,
                "rooms": partition.rooms,
                "servedBy": list(partition.served_by),
                "batchesWaiting": partition.waiting,
                "workersInLine": partition.in_line,
            }
            for partition in snapshot.partitions
        ],
        "rabbitmqError": snapshot.rabbitmq_error or None,
        "setAside": {
            "count": snapshot.dead_letters,
            "latest": [
                {**asdict(letter), "at": letter.at.isoformat().replace("+00:00", "Z")}
                for letter in snapshot.latest_dead_letters
            ],
        },
    }


def _without_beat(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in ("beat", "id", "beating")}


def _print_json(snapshot: Snapshot, *, lines: bool) -> None:
    """Prints one JSON object: indented, or with `lines` on one line, since others follow."""
    json.dump(as_dict(snapshot), sys.stdout, indent=None if lines else 2, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()
