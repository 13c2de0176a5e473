"""Fuzzes the media port of an engine: python -m tests.fuzz --help.

With PLENARY_MEDIASOUP_WORKER an engine that was built with an address sanitizer can be given.
"""

import asyncio
import time
from collections import Counter
from typing import Annotated

import typer

from medianode.node import engine_factory
from shared.settings import NodeSettings
from tests.fuzz.media_port import fuzz

PACKETS_PER_LINE = 20_000


async def run(seed: int, packets: int) -> Counter[str]:
    """Returns what was sent and received. Raises `RuntimeError` if the engine dies."""
    settings = NodeSettings(announced_ip="127.0.0.1", listen_ip="127.0.0.1")
    engine = (await engine_factory(settings))(0)
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    total, began = Counter[str](), time.monotonic()
    try:
        for part, first in enumerate(range(0, packets, PACKETS_PER_LINE)):
            total += await fuzz(engine, seed + part, min(PACKETS_PER_LINE, packets - first))
            sent = sum(total.values()) - total["received RTP"]
            typer.echo(f"{time.monotonic() - began:6.0f} s {sent:9} packets sent (seed {seed + part})")
    finally:
        await engine.close()
        if deaths:
            raise RuntimeError(f"the engine has died: {deaths[0]}")
    return total


def main(
    packets: Annotated[int, typer.Option(help="Packets to send.")] = 200_000,
    seed: Annotated[int, typer.Option(help="The first seed; each 20,000 packets have the next.")] = 1,
) -> None:
    """Sends hostile packets to an engine: SRTP, SRTCP, STUN, DTLS and noise, valid and changed."""
    for kind, count in sorted(asyncio.run(run(seed, packets)).items()):
        typer.echo(f"{count:9} {kind}")


if __name__ == "__main__":
    typer.run(main)
