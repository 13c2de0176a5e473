"""Measures how long a join into a room of 500 holds the event loop of a media node.

    python -m benchmarks.join_of_500 [--members 500] [--rounds 5]

Whoever joins gets a consumer of everybody's microphone: the room worker sends 500 requests in one message. Meanwhile
the event loop counts how long it was kept from other work at a time.
"""

import asyncio
import os
from time import perf_counter
from typing import Annotated

import typer

from benchmarks.media_engine import AUDIO_TYPES, REMOTE, audio
from medianode.node import MediaNode, engine_factory
from plenary.processes.event_loop import run
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.protocol import media
from shared.protocol.media import Command, Commands, Failed, RouterRef
from shared.settings import NodeSettings

ROUTER = RouterRef("router", 0, "room", "i", 1)
WORKER = "worker"


class Room:
    """A media node and the room worker that commands it, over a broker in memory."""

    def __init__(self, node: MediaNode, broker: MemoryBroker) -> None:
        self._node = node
        self._broker = broker
        self._left = 0
        self._answered = asyncio.Event()

    async def start(self) -> None:
        await self._broker.subscribe_exclusive(
            "media", WORKER, self._received, on_lost=lambda: None, on_restored=lambda: None
        )

    async def command(self, requests: list[media.AnyRequest]) -> None:
        """Sends the requests in one message and returns when all are answered. Raises `RuntimeError` if one fails."""
        self._left = len(requests)
        self._answered.clear()
        commands = Commands(WORKER, [Command(n, request) for n, request in enumerate(requests, 1)])
        await self._broker.publish("media", self._node.id, media.encode(commands), mandatory=True)
        await self._answered.wait()

    def _received(self, body: bytes) -> None:
        for answer in media.decode_results(body).answers:
            if isinstance(answer.result, Failed):
                raise RuntimeError(answer.result.reason)
            self._left -= 1
        if not self._left:
            self._answered.set()


async def longest_hold(stop: asyncio.Event) -> float:
    """Returns the longest time, in seconds, from one turn of the event loop to the next."""
    longest, last = 0.0, perf_counter()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = perf_counter()
        longest, last = max(longest, now - last), now
    return longest


async def measure(members: int, rounds: int) -> list[tuple[float, float]]:
    """Returns for each round the longest hold of the event loop, and the time until all is answered, in seconds."""
    path = os.environ.get("PLENARY_MEDIASOUP_WORKER", "")
    settings = NodeSettings(engines=1, engine_path=path, announced_ip="127.0.0.1")
    hub = MemoryHub(partitions=1)
    broker, of_worker = MemoryBroker(hub), MemoryBroker(hub)
    await broker.connect()
    await of_worker.connect()
    node = MediaNode(settings, broker, MemoryCluster(), await engine_factory(settings))
    await node.start()
    room = Room(node, of_worker)
    await room.start()
    try:
        send = media.CreateTransport(ROUTER, "send", dtls_parameters=REMOTE)
        producers: list[media.AnyRequest] = [
            media.Produce(ROUTER, "send", f"p{n}", "audio", audio(111, 1000 + n), AUDIO_TYPES, [10_000 + n])
            for n in range(members)
        ]
        await room.command([send, *producers])
        found = []
        for number in range(rounds):
            found.append(await join(room, number, members))
        return found
    finally:
        await node.close()


async def join(room: Room, number: int, members: int) -> tuple[float, float]:
    recv = f"recv{number}"
    await room.command([media.CreateTransport(ROUTER, recv, dtls_parameters=REMOTE)])
    consumers: list[media.AnyRequest] = [
        media.Consume(ROUTER, recv, f"{recv}.{n}", f"p{n}", "audio", audio(100, 100_000 + n), [10_000 + n])
        for n in range(members)
    ]
    stop, began = asyncio.Event(), perf_counter()
    watching = asyncio.create_task(longest_hold(stop))
    await room.command(consumers)
    took = perf_counter() - began
    stop.set()
    return await watching, took


def main(
    members: Annotated[int, typer.Option(help="Microphones in the room.")] = 500,
    rounds: Annotated[int, typer.Option(help="Joins.")] = 5,
) -> None:
    """Measures how long a join into a large room holds a media node's event loop."""

    async def show(_: asyncio.Event) -> None:
        for hold, took in await measure(members, rounds):
            typer.echo(f"held the event loop for {1000 * hold:.1f} ms; all answered after {1000 * took:.0f} ms")

    run(show)  # with the event loop and the garbage collection of a media node's process


if __name__ == "__main__":
    typer.run(main)
