"""The checks at the end of a run, when all is quiet again."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tests.fault import queues
from tests.fault.cluster import API_KEY, FaultCluster
from tests.fault.participant import Failure, Participant

ReadQueues: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[str]]]]

SETTLED_WITHIN = 30.0
"""Seconds by which the consequences of a death (closed objects, ended sessions) have come."""


async def views(cluster: FaultCluster, people: Sequence[Participant]) -> list[Failure]:
    """Compares what each client knows of its room with what the server has."""
    differences: list[str] = []
    async with asyncio.timeout(10 * SETTLED_WITHIN):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLED_WITHIN
        while True:
            differences = [line for it in people if it.joined for line in await _compare(cluster, it)]
            if not differences or loop.time() > deadline:
                return [Failure(loop.time(), "mismatch", line) for line in differences]
            await asyncio.sleep(1.0)


async def engines(cluster: FaultCluster, people: Sequence[Participant]) -> list[Failure]:
    """Compares what media nodes have with what clients know; to be called after `views`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_WITHIN
    while True:
        found = await asyncio.to_thread(lambda: [cluster.registered(node) for node in cluster.nodes])
        nodes = [node or {} for node in found]
        wanted = _objects([it for it in people if it.joined])
        held = {kind: sum(node.get(kind, 0) for node in nodes) for kind in wanted}
        if held == wanted:
            return []
        if loop.time() > deadline:
            return [Failure(loop.time(), "mismatch", f"media nodes have {held}, clients {wanted}")]
        await asyncio.sleep(0.5)


def _objects(people: Sequence[Participant]) -> dict[str, int]:
    """Returns how many objects of each kind media nodes must have."""
    consumers = [consumer for it in people for consumer in it.consumers.values() if consumer.transport]
    producers = [paused for it in people for _, paused in it.media.producers.values()]
    return {
        "transports": sum(len(it.media.transports) for it in people),
        "producers": len(producers),
        "consumers": len(consumers),
        "paused": sum(producers) + sum(consumer.paused for consumer in consumers),
    }


async def _compare(cluster: FaultCluster, it: Participant) -> list[str]:
    room, peer = await asyncio.gather(
        asyncio.to_thread(_ask, cluster, f"/v1/rooms/{it.room.name}"),
        asyncio.to_thread(_ask, cluster, f"/v1/rooms/{it.room.name}/peers/{it.name}"),
    )
    if not isinstance(room, dict) or not isinstance(peer, dict):
        return [f"{_who(it)}: is there, the server says {room}, {peer}"]
    known = {
        "peers": sorted(it.peers),
        "transports": sorted(it.media.transports.items()),
        "producers": sorted((id_, *state) for id_, state in it.media.producers.items()),
        "consumers": sorted((id_, c.source, c.transport or 0, c.paused) for id_, c in it.consumers.items()),
        "sources paused": sorted(id_ for id_, c in it.consumers.items() if c.transport and c.source_paused),
    }
    consumers = peer["consumers"]
    stored = {
        "peers": sorted(other["name"] for other in room["peers"] if other["name"] != it.name),
        "transports": sorted((t["id"], t["direction"]) for t in peer["transports"]),
        "producers": sorted((p["id"], p["transportId"], p["remotelyPaused"]) for p in peer["producers"]),
        "consumers": sorted(
            (c["id"], c["sourcePeer"], c["transportId"] or 0, c["remotelyPaused"]) for c in consumers
        ),
        "sources paused": sorted(c["id"] for c in consumers if c["transportId"] and c["sourcePaused"]),
    }
    return [
        f"{_who(it)}: {what}: client {known[what]}, server {stored[what]}"
        for what in known
        if known[what] != stored[what]
    ]


def _ask(cluster: FaultCluster, path: str) -> Any:
    gateway = cluster.gateways[0].role
    request = urllib.request.Request(f"{gateway.api_url}{path}", headers={"Authorization": f"Bearer {API_KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError) as failure:
        return str(failure)


async def check_nothing_left(cluster: FaultCluster, read: ReadQueues | None = None) -> list[Failure]:
    """After all have left nothing is kept but the memory of closed sessions, no media node has a router, and no
    message is left in a queue.

    `read` returns what is left in the queues that were never seen empty: RabbitMQ counts the messages of a quorum
    queue every 5 s, and may do so whenever a tick has just arrived. Without `read` only their names are known.
    """
    wrong: list[Failure] = []
    now = asyncio.get_running_loop().time
    began = now()
    for kind, left in (("keys", _keys), ("routers", _routers)):
        deadline = now() + SETTLED_WITHIN
        while (found := await asyncio.to_thread(left, cluster)) and now() < deadline:
            await asyncio.sleep(0.5)
        wrong += [Failure(now(), "left", f"{kind}: {what}") for what in found]
    await asyncio.sleep(began + queues.COUNTS_LAG - now())
    counts = await queues.never_empty(lambda: asyncio.to_thread(_queued, cluster), within=queues.LOOK_FOR)
    messages = await read(list(counts)) if counts and read is not None else None
    for queue, count in counts.items():
        if messages is None:
            wrong.append(Failure(now(), "left", f"queues: {queue}: {count}"))
        elif messages[queue]:
            wrong.append(Failure(now(), "left", f"queues: {queue}: {count}: {'; '.join(messages[queue])}"))
    return wrong


def _keys(cluster: FaultCluster) -> list[str]:
    patterns = ("room:*", "plenary:partition:*", "plenary:attempts:*", "plenary:dead")
    keys = [key.decode() for pattern in patterns for key in cluster.redis.scan_iter(pattern)]
    return [key for key in keys if not key.endswith(":closed_sessions")]


def _queued(cluster: FaultCluster) -> dict[str, int]:
    """Returns how many messages each partition's queue has, those included that are not acknowledged."""
    lines = cluster.rabbitmq_server.ctl("list_queues", "name", "messages").splitlines()
    rows = [line.split("\t") for line in lines if line.startswith("rooms.")]
    return {name: int(messages) for name, messages in rows}


def _routers(cluster: FaultCluster) -> list[str]:
    held = {node.name: (cluster.registered(node) or {}).get("routers", 0) for node in cluster.nodes}
    return [f"{count} on {node}" for node, count in held.items() if count]


def died(cluster: FaultCluster) -> list[tuple[str, str]]:
    """Returns the processes that ended without being told to, with what they said last."""
    roles = [process.role for process in cluster.processes]
    return [(role.name, role.said()) for role in roles if not role.alive and role not in cluster.killed]


def _who(it: Participant) -> str:
    return f"{it.room.name}/{it.name}"
