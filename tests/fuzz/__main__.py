"""Fuzzes everything that reads what others send: python -m tests.fuzz --help."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from devtools.cluster import Role, all_in_one
from medianode.node import engine_factory
from shared.settings import NodeSettings
from shared.telemetry import log
from tests.fuzz import api, gateway_port, inputs, media_port

PACKETS_PER_LINE = 20_000
API_KEY = "fuzzing"
Seed = Annotated[int, typer.Option(help="The same seed makes the same inputs.")]
First = Annotated[int, typer.Option(help="The number of the first input, to repeat one that went wrong.")]

app = typer.Typer(
    help="Sends inputs that are wrong in some way to what reads them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show(outcomes: Counter[str]) -> None:
    for outcome, count in sorted(outcomes.items()):
        typer.echo(f"{count:9} {outcome}")


@contextmanager
def gateway(*options: str) -> Iterator[Role]:
    """Runs `plenary run` with the null engine. Raises `AssertionError` if its log tells of an exception."""
    with tempfile.TemporaryDirectory(prefix="plenary-fuzz-") as folder:
        with all_in_one(Path(folder), "--engine", "null", *options) as role:
            yield role
        if found := gateway_port.defects(role):
            raise AssertionError("\n".join(("the log has errors:", *found[:5])))


@app.command()
def room(seed: Seed = 1, first: First = 0, count: int = 100_000) -> None:
    """Frames of a client, through the gateway's validation and a room: capabilities and RTP parameters among them."""
    _inside("room", seed, first, count)


@app.command()
def amqp(seed: Seed = 1, first: First = 0, count: int = 500_000) -> None:
    """Bytes of a RabbitMQ."""
    _inside("amqp", seed, first, count)


def _inside(name: str, seed: int, first: int, count: int) -> None:
    log.configure("warning")
    target, total, began = inputs.TARGETS[name](), Counter[str](), time.monotonic()
    for start in range(first, first + count, inputs.INPUTS_PER_LINE):
        total += inputs.fuzz(target, seed, start, min(inputs.INPUTS_PER_LINE, first + count - start))
        typer.echo(f"{time.monotonic() - began:6.0f} s {sum(total.values()):9} inputs")
    _show(total)


@app.command("gateway")
def gateway_command(seed: Seed = 1, first: First = 0, count: int = 200_000) -> None:
    """HTTP, queries and WebSocket frames, at the port of a gateway."""
    total, began = Counter[str](), time.monotonic()
    with gateway() as role:
        for start in range(first, first + count, inputs.INPUTS_PER_LINE):
            some = min(inputs.INPUTS_PER_LINE, first + count - start)
            total += asyncio.run(gateway_port.fuzz(role, seed, start, some))
            typer.echo(f"{time.monotonic() - began:6.0f} s {sum(total.values()):9} inputs")
    _show(total)


@app.command("api")
def api_command(
    seed: Seed = 1, examples: Annotated[int, typer.Option(help="Inputs for each operation.")] = 1000
) -> None:
    """Calls of the server API, by its OpenAPI document."""
    with gateway("--api-port", "0", "--api-key", API_KEY) as role, tempfile.TemporaryDirectory() as folder:
        url = role.until_listening("api")
        typer.echo(api.fuzz(url, API_KEY, seed=seed, examples=examples, folder=Path(folder)))


@app.command("media-port")
def media_port_command(
    seed: Annotated[int, typer.Option(help="The first seed; each 20,000 packets have the next.")] = 1,
    packets: Annotated[int, typer.Option(help="Packets to send.")] = 200_000,
) -> None:
    """SRTP, SRTCP, STUN, DTLS and noise, valid and changed, at the media port of an engine.

    With PLENARY_MEDIASOUP_WORKER an engine that was built with an address sanitizer can be given.
    """
    _show(asyncio.run(_media_port(seed, packets)))


async def _media_port(seed: int, packets: int) -> Counter[str]:
    """Returns what was sent and received. Raises `RuntimeError` if the engine dies."""
    settings = NodeSettings(announced_ip="127.0.0.1", listen_ip="127.0.0.1")
    engine = (await engine_factory(settings))(0)
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    total, began = Counter[str](), time.monotonic()
    try:
        for part, first in enumerate(range(0, packets, PACKETS_PER_LINE)):
            total += await media_port.fuzz(engine, seed + part, min(PACKETS_PER_LINE, packets - first))
            sent = sum(total.values()) - total["received RTP"]
            typer.echo(f"{time.monotonic() - began:6.0f} s {sent:9} packets sent (seed {seed + part})")
    finally:
        await engine.close()
        if deaths:
            raise RuntimeError(f"the engine has died: {deaths[0]}")
    return total


if __name__ == "__main__":
    app()
