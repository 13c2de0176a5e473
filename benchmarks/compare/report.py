"""Formats the figures as tables and as JSON."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.compare.goals import DISTURBED_CORES, Judged, Samples
from benchmarks.compare.load import Sample
from benchmarks.compare.processes import OTHERS


def plain(sample: Sample) -> dict[str, float]:
    """Returns a sample without nesting: {"cores, Redis": 0.2}."""
    flat: dict[str, float] = {}
    for name, value in sample.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}, {part}": number for part, number in value.items()})
        else:
            flat[name] = value
    return flat


def figures(samples: Samples) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Returns median, least and most of the rounds, by workload, metric and system."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for system, workloads in samples.items():
        for workload, rounds in workloads.items():
            flat = [plain(sample) for sample in rounds]
            for metric in flat[0]:
                values = [sample[metric] for sample in flat if metric in sample]
                spread = {"median": median(values), "least": min(values), "most": max(values)}
                found.setdefault(workload, {}).setdefault(metric, {})[system] = spread
    return found


ORDER: Final = ("Plenary", "Plenary, everysec", "Node", "python-socketio", "floor", "floor, everysec")
HEADINGS: Final = {
    "requests_per_second": "requests/s",
    "deliveries_per_second": "deliveries/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "one_by_one_p50_ms": "p50 one by one, ms",
    "generator_late_p99_ms": "generator late p99, ms",
    "calls_per_second": "calls/s",
    "set_up_p50_ms": "set-up p50, ms",
    "set_up_p99_ms": "set-up p99, ms",
    "amqp_messages_per_request": "AMQP messages per request",
    "redis_round_trips_per_request": "Redis round trips per request",
    "cpu_us_per_request_server": "CPU µs per request",
    "cpu_us_per_message_server": "CPU µs per message",
    "cpu_ms_per_call_server": "CPU ms per call",
}
"""Headings of the lines that are shown; the parts of nested figures follow them."""
PARTS: Final = {
    "cpu_us_per_request": "CPU µs per request",
    "cpu_ms_per_call": "CPU ms per call",
    "bytes_per_connection": "bytes per connection",
    "bytes_per_peer": "bytes per peer",
    "redis_bytes_per_peer": "keys in Redis, bytes per peer",
    "redis_bytes_per_peer_later": "keys in Redis, half a minute later",
}


def show(console: Console, samples: Samples, judged: list[Judged]) -> None:
    """Prints the main figures; the rest is in the JSON."""
    for workload, metrics in figures(samples).items():
        present = {system for by_system in metrics.values() for system in by_system}
        systems = [system for system in ORDER if system in present]
        table = Table(title=workload, title_justify="left")
        table.add_column("median (least … most)")
        for system in systems:
            table.add_column(system, justify="right")
        for metric, by_system in metrics.items():
            if (heading := _heading(metric)) is not None:
                table.add_row(heading, *(_spread(by_system.get(system)) for system in systems))
        console.print(table)
    table = Table(title="goals", title_justify="left")
    for heading in ("", "median (least … most)", "goal", ""):
        table.add_column(heading)
    for it in judged:
        spread = {"median": it.value, "least": min(it.values), "most": max(it.values)}
        bound = f"{'≥' if it.goal.at_least else '≤'} {it.goal.bound:g}"
        verdict = "[green]met" if it.met else "[red]missed"
        table.add_row(it.goal.text, _spread(spread), bound, f"{verdict}, disturbed" if it.disturbed else verdict)
    console.print(table)
    if any(it.disturbed for it in judged):
        console.print(f"disturbed: other processes used more than {DISTURBED_CORES} cores in most rounds")


def _heading(metric: str) -> str | None:
    kind, _, part = metric.partition(", ")
    if metric == f"cores, {OTHERS}":
        return "disturbance, cores"
    return f"{PARTS[kind]}: {part}" if part and kind in PARTS else HEADINGS.get(metric)


def _spread(values: Mapping[str, float] | None) -> str:
    if values is None:
        return ""
    if values["least"] == values["most"]:
        return _number(values["median"])
    return f"{_number(values['median'])} ({_number(values['least'])} … {_number(values['most'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def machine() -> dict[str, Any]:
    """Returns the properties of this machine, without its name."""
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _said("node", "--version"),
        "redis": _said("redis-server", "--version"),
        "rabbitmq": _said("dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"),
        **{name: version(name) for name in ("picows", "aio-pika", "aiormq", "uvloop", "python-socketio", "aiohttp")},
    }


def _said(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+\.\d+", said)
    return found.group() if found else ""
