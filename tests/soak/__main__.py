"""Soaks a media engine in calls and shows its memory: python -m tests.soak --help."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medianode.node import engine_factory
from shared.settings import NodeSettings
from tests.soak.calls import PROTOCOLS, Sample, growth, soak


async def run(minutes: float, protocols: list[str], calls_per_sample: int, pause: float) -> list[Sample]:
    """Returns the samples of that many minutes. Raises `RuntimeError` if the engine dies."""
    settings = NodeSettings(announced_ip="127.0.0.1", listen_ip="127.0.0.1")
    engine = (await engine_factory(settings))(0)
    death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await engine.start(lambda _: None, death.set_result)
    samples: list[Sample] = []
    try:
        async for sample in soak(engine, protocols, calls_per_sample=calls_per_sample, pause=pause):
            samples.append(sample)
            typer.echo(f"{sample.seconds:7.0f} s {sample.calls:8} calls {sample.kibibytes:8} KiB")
            if sample.seconds >= 60 * minutes:
                return samples
    finally:
        await engine.close()
        if death.done():
            raise RuntimeError(f"the engine has died: {death.result()}")
    raise AssertionError("a soak does not end by itself")


def main(
    minutes: Annotated[float, typer.Option(help="How long to soak.")] = 60.0,
    protocol: Annotated[list[str], typer.Option(help="udp, tcp or both.")] = list(PROTOCOLS),  # noqa: B006
    calls: Annotated[int, typer.Option(help="Calls from one look at the memory to the next.")] = 60,
    pause: Annotated[float, typer.Option(help="Seconds from one call to the next.")] = 0.0,
    file: Annotated[Path | None, typer.Option("--json", help="Write the samples there.")] = None,
) -> None:
    """Sets up and ends calls on one engine, one after another, and shows whether its memory grows."""
    samples = asyncio.run(run(minutes, protocol, calls, pause))
    typer.echo(f"growth: {growth(samples):.0f} bytes per call, from the second third to the last")
    if file:
        found: dict[str, Any] = {
            "protocols": protocol,
            "growth_bytes_per_call": growth(samples),
            "samples": [[it.calls, it.kibibytes, round(it.seconds)] for it in samples],
        }
        file.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    typer.run(main)
