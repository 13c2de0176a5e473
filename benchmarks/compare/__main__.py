"""Measures all systems in one run and compares them.

    make bench
    python -m benchmarks.compare [--rounds 3] [--seconds 4] [--json FILE]

The comparison needs redis-server, rabbitmq-server and Node.js. It starts private servers and uses no others.
"""

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from benchmarks.compare.clients import CheckFailed
from benchmarks.compare.goals import judge
from benchmarks.compare.load import Sample
from benchmarks.compare.report import figures, machine, show
from benchmarks.compare.run import IDLE, IN_CALLS, Plan, Results, run
from benchmarks.compare.systems import Unavailable

console = Console()
_SHOWN = ("requests_per_second", "deliveries_per_second", "p50_ms", "p99_ms", "cpu_us_per_request_server")
_SHOWN_OF_CALLS = ("calls_per_second", "set_up_p50_ms", "cpu_ms_per_call_server")


def main(
    rounds: Annotated[int, typer.Option(help="Times that every system is measured.")] = Plan.rounds,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = Plan.seconds,
    connections: Annotated[int, typer.Option(help="WebSockets, a multiple of 100.")] = Plan.connections,
    rate: Annotated[int, typer.Option(help="Requests per second of the measurement at a rate.")] = Plan.rate,
    window: Annotated[int, typer.Option(help="Requests in flight per connection, saturated.")] = Plan.window,
    patience: Annotated[
        float, typer.Option(help="Seconds that each measurement may wait for a quiet machine.")
    ] = Plan.patience,
    json_file: Annotated[str, typer.Option("--json", help="Write the figures there, too.")] = "",
) -> None:
    """Compares Plenary with one Node process, python-socketio over RabbitMQ, and its bare hops."""
    plan = Plan(rounds, seconds, connections, rate, window, patience=patience)
    began = time.monotonic()

    def report(system: str, workload: str, round_: int, sample: Sample) -> None:
        shown = ", ".join(f"{name} {sample[name]:,}" for name in (*_SHOWN, *_SHOWN_OF_CALLS) if name in sample)
        turn = "memory" if workload in (IDLE, IN_CALLS) else f"round {round_ + 1} of {rounds}"
        line = f"{time.monotonic() - began:5.0f} s  {turn}  {system}: {workload}  {shown}"
        console.print(line, highlight=False, soft_wrap=True)

    results = Results(report)
    before = machine()
    console.print(f"{rounds} rounds; this takes about {_minutes(plan)} minutes", highlight=False)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # an exception ends the servers that were started here, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore SIGINT
    try:
        uvloop.run(run(plan, results))
    except Unavailable as why:
        console.print(f"cannot compare: {why}", style="red")
        raise typer.Exit(1) from None
    except CheckFailed as why:
        console.print(f"the comparison failed: {why}", style="red")
        raise typer.Exit(1) from None
    judged = judge(results.samples)
    show(console, results.samples, judged)
    if json_file:
        written = {
            "machine": before,
            "plan": asdict(plan),
            "goals": [it.plain() for it in judged],
            "figures": figures(results.samples),
            "samples": results.samples,
        }
        Path(json_file).write_text(json.dumps(written, indent=1) + "\n")
        console.print(f"written to {json_file}")


def _minutes(plan: Plan) -> int:
    """Estimates the length of a run, from the measured starts and pauses of one round."""
    a_round = 24 * (plan.seconds + 1) + 180
    return round((plan.rounds * a_round + 90) / 60)


if __name__ == "__main__":
    typer.run(main)
