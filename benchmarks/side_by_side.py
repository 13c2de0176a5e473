"""Compares two versions of Plenary: both run at once, and short slices of load alternate between them.

    python -m benchmarks.side_by_side ../before [--rounds 20] [--seconds 3] [--json FILE]

The other version is a checkout with a virtual environment of its own in `.venv`, whose `benchmarks.signaling` knows
`--slices`. The speed of a shared machine
changes by a third within minutes, so that two whole runs cannot be compared. The slices that are compared follow
one another within seconds, the version that goes first changes with each round, and the figures are the medians of
the rounds' ratios, this version ÷ the other.
"""

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.compare.processes import LOAD_GENERATOR

HERE: Final = Path(__file__).resolve().parent.parent

LOADS: Final = ("rate", "saturation")

console = Console()


class Version:
    """Runs `benchmarks.signaling --slices` of one version in its folder."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        python = folder / ".venv/bin/python"
        if not python.exists():
            raise typer.BadParameter(f"{folder} has no virtual environment: run `make .venv/.bench` there")
        self.folder = folder
        self._process = subprocess.Popen(  # noqa: S603 - the folder is given by who measures
            [python, "-m", "benchmarks.signaling", "--slices", *options],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self) -> dict[str, Any]:
        """Returns the next result. Raises `RuntimeError` if the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the benchmark in {self.folder} has ended: {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def measure(self, load: str) -> dict[str, Any]:
        """Runs one slice of a load; returns `requests_per_second`, `p50_ms`, `cpu_us_per_request` …"""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{load}\n")
        self._process.stdin.flush()
        return self.result()

    def close(self) -> None:
        """Ends the benchmark and its servers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()  # Its servers end with it.
            raise


def figures(slice_: dict[str, Any]) -> dict[str, float]:
    """Returns the figures of a slice that are compared."""
    cpu = slice_["cpu_us_per_request"]
    servers = sum(value for name, value in cpu.items() if name != LOAD_GENERATOR)
    return {
        "requests/s": slice_["requests_per_second"],
        "p50 ms": slice_["p50_ms"],
        "p99 ms": slice_["p99_ms"],
        "CPU µs, all servers": servers,
        **{f"CPU µs, {name}": value for name, value in cpu.items()},
    }


def compare(this: Version, other: Version, rounds: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Returns, for each load and each of `figures`, the pairs (this version, the other) of all rounds."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {load: {} for load in LOADS}
    for load in LOADS:
        for version in (this, other):
            version.measure(load)  # The first slice of each version warms it up.
    for number in range(rounds):
        console.print(f"round {number + 1} of {rounds} …")
        for load in LOADS:
            order = (this, other) if number % 2 else (other, this)
            found = {version: figures(version.measure(load)) for version in order}
            for name in found[this]:
                pairs[load].setdefault(name, []).append((found[this][name], found[other][name]))
    return pairs


def summary(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Returns the medians of both versions, and the quartiles of the ratios this ÷ other."""
    ratios = [this / other for this, other in pairs if other]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else [*ratios, *ratios, *ratios] or [0.0] * 3
    return {
        "this": median(this for this, _ in pairs),
        "other": median(other for _, other in pairs),
        "ratio": middle,
        "lower_quartile": low,
        "upper_quartile": high,
    }


def show(title: str, summaries: dict[str, dict[str, float]]) -> None:
    """Prints a table of one load; CPU is per request."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "this", "other", "ratio", "half of the rounds"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in summaries.items():
        between = f"{found['lower_quartile']:.2f} to {found['upper_quartile']:.2f}"
        table.add_row(name, f"{found['this']:.1f}", f"{found['other']:.1f}", f"{found['ratio']:.3f}", between)
    console.print(table)


def main(
    other: Annotated[Path, typer.Argument(help="The folder of the other version.", exists=True, file_okay=False)],
    rounds: Annotated[int, typer.Option(help="Pairs of slices for each load.", min=1)] = 20,
    seconds: Annotated[float, typer.Option(help="Length of each slice.")] = 3.0,
    connections: Annotated[int, typer.Option(help="WebSockets to each version, four to a room.")] = 400,
    rate: Annotated[int, typer.Option(help="Requests per second of the paced slices.")] = 500,
    json_file: Annotated[str, typer.Option("--json", help="Write the figures there, too.")] = "",
) -> None:
    """Compares signaling of this version with another one's on this machine, as ratios."""
    options = ["--connections", str(connections), "--seconds", str(seconds), "--rate", str(rate)]
    with ExitStack() as stack:
        versions = []
        for folder in (HERE, other.resolve()):
            versions.append(Version(folder, options))
            stack.callback(versions[-1].close)
            versions[-1].result()
        pairs = compare(versions[0], versions[1], rounds)
    summaries = {load: {name: summary(found) for name, found in of.items()} for load, of in pairs.items()}
    for load in LOADS:
        show(f"{rate} requests/s" if load == "rate" else load, summaries[load])
    if json_file:
        Path(json_file).write_text(json.dumps({"rounds": rounds, "seconds": seconds, **summaries}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
