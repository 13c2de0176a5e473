"""Measures requests through one gateway and one room worker on real RabbitMQ and Redis, with the null engine.

    python -m benchmarks.signaling [--connections 400] [--seconds 8] [--rate 500] [--json FILE]

One run measures the rate at saturation (every connection keeps `--window` requests in flight), the latency
at a fixed rate, and per request the CPU of every process, the AMQP messages and the Redis round trips. The
request is a `pauseProducer` or `resumeProducer` sent as a protoo request in rooms of four: it changes state, is
committed (Redis appendfsync always), answered, and notified to three other peers.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.client import FloodClient
from benchmarks.compare.processes import listening
from devtools import servers
from devtools.cluster import Cluster
from loadtest.model.histogram import percentile

console = Console()
PEERS = 4


@contextmanager
def running_servers() -> Iterator[tuple[servers.Server, servers.Server]]:
    with ExitStack() as stack:
        started = []
        for make in (servers.redis, servers.rabbitmq):
            server = make()
            server.start()
            stack.callback(server.stop)
            started.append(server)
        yield started[0], started[1]


class Usage:
    """The CPU seconds and counters of all processes at one time."""

    def __init__(self, cluster: Cluster, processes: dict[str, list[psutil.Process]]) -> None:
        self.cpu = {name: sum(sum(process.cpu_times()[:2]) for process in group) for name, group in processes.items()}
        self.counters = {
            registry: [json.loads(value) for value in cluster.redis.hvals(f"plenary:{registry}")]
            for registry in ("gateways", "workers")
        }

    def since(self, before: "Usage", requests: int) -> dict[str, Any]:
        """Returns per request the CPU µs of each process, AMQP messages and Redis round trips."""
        cpu = {name: (self.cpu[name] - before.cpu[name]) / requests * 1e6 for name in self.cpu}

        def grown(registry: str, counter: str) -> float:
            count = sum(member[counter] for member in self.counters[registry])
            return float(count - sum(member[counter] for member in before.counters[registry]))

        published = grown("gateways", "published") + grown("workers", "published")
        return {
            "cpu_us_per_request": {name: round(value, 1) for name, value in cpu.items()},
            "cpu_us_per_request_server": round(sum(v for name, v in cpu.items() if name != "load generator"), 1),
            "amqp_messages_per_request": round(published / requests, 3),
            "redis_round_trips_per_request": round(grown("workers", "round_trips") / requests, 3),
        }


async def prepare(url: str, connections: int) -> list[FloodClient]:
    clients = [
        await FloodClient.open(url, f"bench{number // PEERS}", f"peer{number}") for number in range(connections)
    ]
    for step in (FloodClient.prepare, FloodClient.enable):
        for start in range(0, connections, 50):
            await asyncio.gather(*(step(client) for client in clients[start : start + 50]))
    return clients


async def measured(
    cluster: Cluster, processes: dict[str, list[psutil.Process]], flood: Callable[[], Any]
) -> dict[str, Any]:
    """Measures one load. Counters in the registry are up to a second old, so they are read after a pause."""
    await asyncio.sleep(1.5)
    before = Usage(cluster, processes)
    result: dict[str, Any] = await flood()
    cpu_after = Usage(cluster, processes).cpu
    await asyncio.sleep(1.5)
    after = Usage(cluster, processes)
    after.cpu = cpu_after
    return result | after.since(before, result["requests"])


async def saturate(clients: list[FloodClient], seconds: float, window: int) -> dict[str, Any]:
    began = time.perf_counter()
    told = sum(client.notifications for client in clients)
    latencies = await asyncio.gather(*(client.flood(began + seconds, window) for client in clients))
    took = time.perf_counter() - began
    merged = [latency for some in latencies for latency in some]
    return _result(merged, took, sum(client.notifications for client in clients) - told)


async def pace(clients: list[FloodClient], seconds: float, rate: int) -> dict[str, Any]:
    began = time.perf_counter()
    pending = []
    told = sum(client.notifications for client in clients)
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        pending.append(clients[number % len(clients)].ask())
    latencies = await asyncio.gather(*pending)
    took = time.perf_counter() - began
    return _result(list(latencies), took, sum(client.notifications for client in clients) - told)


def _result(latencies: list[float], took: float, notifications: int) -> dict[str, Any]:
    return {
        "requests": len(latencies),
        "requests_per_second": round(len(latencies) / took),
        "notifications": notifications,
        "p50_ms": round(percentile(latencies, 0.5) * 1e3, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1e3, 2),
        "max_ms": round(max(latencies) * 1e3, 2),
    }


@dataclass
class System:
    """A cluster of one gateway, one room worker and one media node, its processes, and clients that are connected."""

    cluster: Cluster
    processes: dict[str, list[psutil.Process]]
    clients: list[FloodClient]


@asynccontextmanager
async def running_system(connections: int) -> AsyncIterator[System]:
    """Starts servers, a cluster and `connections` clients in rooms of `PEERS`; stops all of them at the end."""
    with running_servers() as (redis_server, rabbitmq_server), tempfile.TemporaryDirectory() as logs:
        unlimited = ["--message-rate", "0"]
        cluster = Cluster(redis_server.url, rabbitmq_server.url, Path(logs), gateway_options=unlimited)
        try:
            cluster.start("null", gateways=1, workers=1)
            processes = {
                "gateway": [psutil.Process(cluster.roles["gateway1"].process.pid)],
                "room worker": [psutil.Process(cluster.roles["worker1"].process.pid)],
                "media node": [psutil.Process(cluster.roles["node1"].process.pid)],
                "RabbitMQ": [listening(urlsplit(rabbitmq_server.url).port or 5672)],
                "Redis": [listening(urlsplit(redis_server.url).port or 6379)],
                "load generator": [psutil.Process(os.getpid())],
            }
            console.print(f"preparing {connections} connections in rooms of {PEERS} …")
            clients = await prepare(cluster.roles["gateway1"].url, connections)
            yield System(cluster, processes, clients)
            for client in clients:
                client.close()
        finally:
            cluster.stop()


async def run(connections: int, seconds: float, rate: int, window: int) -> dict[str, Any]:
    async with running_system(connections) as system:
        cluster, processes, clients = system.cluster, system.processes, system.clients
        console.print(f"{rate} requests/s for {seconds} s …")
        paced = await measured(cluster, processes, lambda: pace(clients, seconds, rate))
        console.print(f"saturation for {seconds} s …")
        saturated = await measured(cluster, processes, lambda: saturate(clients, seconds, window))
        return {"at_rate": paced, "at_saturation": saturated}


async def run_slices(connections: int, seconds: float, rate: int, window: int) -> None:
    """Waits for lines on standard input: "rate" or "saturation" each ask for one measurement, printed as JSON.

    `benchmarks.side_by_side` drives two versions by it, each in its own folder.
    """
    async with running_system(connections) as system:
        typer.echo(json.dumps({"ready": connections}))
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            before = Usage(system.cluster, system.processes)
            if line == "rate":
                result = await pace(system.clients, seconds, rate)
            else:
                result = await saturate(system.clients, seconds, window)
            cpu = Usage(system.cluster, system.processes).cpu
            used = {name: (cpu[name] - before.cpu[name]) / result["requests"] * 1e6 for name in cpu}
            typer.echo(json.dumps(result | {"cpu_us_per_request": used}))


def show(results: dict[str, Any]) -> None:
    table = Table(title="per request", title_justify="left")
    for heading in ("", *results):
        table.add_column(heading, justify="left" if not heading else "right")
    first = next(iter(results.values()))
    for name, value in first.items():
        if isinstance(value, dict):
            for part in value:
                table.add_row(f"CPU µs: {part}", *(str(result[name][part]) for result in results.values()))
        else:
            table.add_row(name, *(str(result[name]) for result in results.values()))
    console.print(table)


def main(
    connections: Annotated[int, typer.Option(help="WebSockets, four to a room.")] = 400,
    seconds: Annotated[float, typer.Option(help="Length of each measurement.")] = 8.0,
    rate: Annotated[int, typer.Option(help="Requests per second of the paced measurement.")] = 500,
    window: Annotated[int, typer.Option(help="Requests in flight per connection at saturation.")] = 4,
    json_file: Annotated[str, typer.Option("--json", help="Write the figures there, too.")] = "",
    slices: Annotated[bool, typer.Option(help="Measure when a line on standard input asks for it.")] = False,
) -> None:
    """Measures signaling on this machine, with private servers."""
    if slices:
        console.file = sys.stderr
        uvloop.run(run_slices(connections, seconds, rate, window))
        return
    results = uvloop.run(run(connections, seconds, rate, window))
    show(results)
    if json_file:
        Path(json_file).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
