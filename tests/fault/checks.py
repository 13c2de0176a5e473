"""What must hold when all is quiet again, whatever has happened."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.fault.participant import Heard, Participant, Wrong
from tests.fault.world import API_KEY, World

SETTLED_WITHIN = 30.0
"""What follows from a death (its objects close, its sessions end) is there by then."""


def requests(people: Iterable[Participant]) -> list[Wrong]:
    """Every request was answered exactly once."""
    wrong = []
    for it in people:
        for asked in it.asked:
            if not asked.over and len(asked.answers) != 1:
                kind = "duplicated" if asked.answers else "lost"
                wrong.append(Wrong(asked.at, kind, f"{_who(it)}: {asked.what} has {len(asked.answers)} answers"))
    return wrong


def sequences(people: Iterable[Participant]) -> list[Wrong]:
    """What a client received has consecutive numbers, each once."""
    wrong = []
    for it in people:
        for session in it.sessions:
            ledger = session.ledger
            if ledger.gaps or ledger.duplicates:
                text = f"{_who(it)}: {ledger.gaps} gaps, {ledger.duplicates} duplicates in what came"
                wrong.append(Wrong(it.asked[-1].at, "reordered" if ledger.gaps else "duplicated", text))
    return wrong


def messages(people: Sequence[Participant]) -> list[Wrong]:
    """What was said arrived where somebody was there to hear it: all, once, in order."""
    by_name = {(it.room, it.name): it for it in people}
    wrong = []
    for receiver in people:
        for heard in receiver.heard:
            wrong += _heard(receiver, heard, by_name[receiver.room, heard.sender])
        for sender in people:
            if sender.room == receiver.room and sender is not receiver:
                wrong += _told(sender, receiver)
    return wrong


def _heard(receiver: Participant, heard: Heard, sender: Participant) -> list[Wrong]:
    said = sender.sent.get(heard.life, {})
    came = [n for n, _ in heard.numbers]
    first = 1 if heard.whole else min(came, default=1)
    last = max(came, default=0)
    session = sender.session
    is_there = sender.life == heard.life and session is not None and not session.ended.done()
    if (heard.ended == "sender" and heard.life in sender.left) or (not heard.ended and is_there):
        last = max(last, len(said)) if came or heard.whole else 0
    about = f"{_who(receiver)}: messages of {sender.name} (life {heard.life})"
    return _in_order(about, heard.numbers, range(first, last + 1), lambda n: said.get(n, 0.0))


def _told(sender: Participant, receiver: Participant) -> list[Wrong]:
    came = receiver.told_by.get(sender.name, [])
    expected = sender.told.get(receiver.name, [])
    if sender.lost_sessions or receiver.lost_sessions:
        return []  # what was answered to whom is not known then
    at = came[-1][1] if came else 0.0
    return _in_order(f"{_who(receiver)}: messages of {sender.name} to it alone", came, expected, lambda _: at)


def _in_order(
    about: str, came: Sequence[tuple[int, float]], expected: Iterable[int], said_at: Callable[[int], float]
) -> list[Wrong]:
    wrong = []
    seen: set[int] = set()
    highest = 0
    for n, at in came:
        if n in seen:
            wrong.append(Wrong(at, "duplicated", f"{about}: {n} again"))
        elif n < highest:
            wrong.append(Wrong(at, "reordered", f"{about}: {n} after {highest}"))
        seen.add(n)
        highest = max(highest, n)
    wrong += [Wrong(said_at(n), "lost", f"{about}: {n} is missing") for n in expected if n not in seen]
    return wrong


async def views(world: World, people: Sequence[Participant]) -> list[Wrong]:
    """What each client believes of its room is what the server has."""
    differences: list[str] = []
    async with asyncio.timeout(10 * SETTLED_WITHIN):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLED_WITHIN
        while True:
            differences = [line for it in people if it.joined for line in await _compare(world, it)]
            if not differences or loop.time() > deadline:
                return [Wrong(loop.time(), "unlike", line) for line in differences]
            await asyncio.sleep(1.0)


async def engines(world: World, people: Sequence[Participant]) -> list[Wrong]:
    """Media nodes have what clients believe; to be asked after `views`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLED_WITHIN
    while True:
        nodes = [await asyncio.to_thread(world.registered, node) or {} for node in world.nodes]
        wanted = _objects([it for it in people if it.joined])
        held = {kind: sum(node.get(kind, 0) for node in nodes) for kind in wanted}
        if held == wanted:
            return []
        if loop.time() > deadline:
            return [Wrong(loop.time(), "unlike", f"media nodes have {held}, clients {wanted}")]
        await asyncio.sleep(0.5)


def _objects(people: Sequence[Participant]) -> dict[str, int]:
    """How many of each there must be on media nodes; what died with one may still be told to its clients."""
    consumers = [consumer for it in people for consumer in it.consumers.values() if consumer.transport]
    producers = [paused for it in people for _, paused in it.producers.values()]
    return {
        "transports": sum(len(it.transports) for it in people),
        "producers": len(producers),
        "consumers": len(consumers),
        "paused": sum(producers) + sum(consumer.paused for consumer in consumers),
    }


async def _compare(world: World, it: Participant) -> list[str]:
    room, peer = await asyncio.gather(
        asyncio.to_thread(_ask, world, f"/v1/rooms/{it.room}"),
        asyncio.to_thread(_ask, world, f"/v1/rooms/{it.room}/peers/{it.name}"),
    )
    if not isinstance(room, dict) or not isinstance(peer, dict):
        return [f"{_who(it)}: is there, the server says {room}, {peer}"]
    known = {
        "peers": sorted(it.peers),
        "transports": sorted(it.transports.items()),
        "producers": sorted((id_, *state) for id_, state in it.producers.items()),
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


def _ask(world: World, path: str) -> Any:
    gateway = world.gateways[0].role
    request = urllib.request.Request(f"{gateway.api_url}{path}", headers={"Authorization": f"Bearer {API_KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError) as failure:
        return str(failure)


async def emptiness(world: World) -> list[Wrong]:
    """After all have left nothing is kept but the memory of closed sessions, nothing waits in a queue, and no media
    node has a router."""
    wrong: list[Wrong] = []
    now = asyncio.get_running_loop().time
    for kind, left in (("keys", _keys), ("queues", _queued), ("routers", _routers)):
        deadline = now() + SETTLED_WITHIN
        while (found := await asyncio.to_thread(left, world)) and now() < deadline:
            await asyncio.sleep(0.5)
        wrong += [Wrong(now(), "left", f"{kind}: {what}") for what in found]
    return wrong


def _keys(world: World) -> list[str]:
    patterns = ("room:*", "plenary:partition:*", "plenary:suspects:*", "plenary:dead")
    keys = [key.decode() for pattern in patterns for key in world.redis.scan_iter(pattern)]
    return [key for key in keys if not key.endswith(":gone")]


def _queued(world: World) -> list[str]:
    lines = world.rabbitmq_server.ctl("list_queues", "name", "messages").splitlines()
    return [line for line in lines if line.startswith("rooms.") and line.split("\t")[1] != "0"]


def _routers(world: World) -> list[str]:
    held = {node.name: (world.registered(node) or {}).get("routers", 0) for node in world.nodes}
    return [f"{count} on {node}" for node, count in held.items() if count]


def died(world: World) -> list[tuple[str, str]]:
    """Processes that ended without being told to, with what they said last."""
    return [(process.role.name, process.role.said()) for process in world.processes if not process.role.alive]


def _who(it: Participant) -> str:
    return f"{it.room}/{it.name}"
