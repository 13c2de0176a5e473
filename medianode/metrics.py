"""The metrics of a media node, made from its counters at each scrape."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.core import Metric

from medianode.node import MediaNode
from shared.protocol.media import wire_name
from shared.telemetry.metrics import counter, described_in, gauge, histogram

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

OBJECTS = gauge("medianode_objects", "Routers, transports, producers and consumers on each engine.",
                "kind", "engine")  # fmt: skip
ENGINES = gauge("medianode_engines", "Engine processes that run.")
ENGINES_WANTED = gauge("medianode_engines_wanted", "Engine processes that should run, a spare one included.")
ENGINE_DEATHS = counter("medianode_engine_deaths", "Engines that ended by themselves; each is started again.")
SUSPECTS = gauge("medianode_suspect_routers", "Routers that rooms got here after an engine had died under them.")
ENGINE_CPU = counter("medianode_engine_cpu_seconds", "CPU seconds of each engine process; one core is the most.",
                     "engine")  # fmt: skip
ENGINE_MEMORY = gauge("medianode_engine_resident_bytes", "Memory of each engine process.", "engine")
REQUESTS = counter("medianode_requests", "Room workers' requests by kind and outcome (200 or an error's code).",
                   "kind", "code")  # fmt: skip
REQUEST = histogram("medianode_request_seconds", "From a request's arrival here to the engine's answer.")
ORDERS = counter("medianode_orders", "Room workers' orders by kind; old ones, which are ignored, included.", "kind")
EVENTS = counter("medianode_events", "Events sent to rooms: changed profiles, closed routers.")
COMMANDS_IN = histogram("medianode_received_commands", "Requests and orders in a batch from a room worker.")
ANSWERS_OUT = histogram("medianode_published_answers", "Results in a batch to a room worker.")


class Process(NamedTuple):
    """The CPU seconds and the bytes of memory that a process has used."""

    cpu: float
    memory: int


def process(pid: int) -> Process | None:
    """Reads a process's usage from /proc; returns None if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return Process((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * _PAGE)


class NodeMetrics:
    """Makes the metrics of one media node. Implements `shared.telemetry.metrics.Metrics`."""

    described = described_in(globals())

    def __init__(self, node: MediaNode) -> None:
        self._node = node

    async def refresh(self) -> None:
        pass

    def collect(self) -> Iterable[Metric]:
        node, counts = self._node, self._node.counts
        engines = node.engines
        objects: dict[tuple[str, int], int] = {}
        for index, (_, load) in engines.items():
            objects["router", index] = load.routers
            objects["transport", index] = load.transports
            objects["producer", index] = load.producers
            objects["consumer", index] = load.consumers
        yield OBJECTS.with_values(objects)
        yield ENGINES.with_value(len(engines))
        yield ENGINES_WANTED.with_value(node.engines_wanted)
        yield SUSPECTS.with_value(node.suspects)
        yield ENGINE_DEATHS.with_value(node.engine_deaths)
        processes = {index: process(engine.pid) for index, (engine, _) in engines.items() if engine.pid}
        yield ENGINE_CPU.with_values({index: used.cpu for index, used in processes.items() if used})
        yield ENGINE_MEMORY.with_values({index: used.memory for index, used in processes.items() if used})
        yield REQUESTS.with_values(
            {(wire_name(kind), code): count for (kind, code), count in counts.requests.items()}
        )
        yield REQUEST.with_histogram(counts.request_seconds)
        yield ORDERS.with_values({wire_name(kind): count for kind, count in counts.orders.items()})
        yield EVENTS.with_value(node.events)
        yield COMMANDS_IN.with_histogram(counts.commands_in)
        yield ANSWERS_OUT.with_histogram(counts.answers_out)
