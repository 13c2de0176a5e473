"""Lists the attacks: what each does, and what must hold besides a victim that is served."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from tests.hostile.attacks import (
    capabilities,
    fan_out,
    fragments,
    media_connections,
    nested_json,
    non_readers,
    nothing,
    over_rate,
    pings,
    resumptions,
    room_growth,
    static_files,
    unknown_names,
)
from tests.hostile.target import Attack, Counts

Server: TypeAlias = Literal["", "redis", "rabbitmq"]


@dataclass(frozen=True)
class Entry:
    """An attack. `server` is the server that it leaves out of work; then no latency is judged.

    `seconds` is how long it lasts at least. `must` says of its counts what must hold, by a name for the table.
    """

    what: str
    attack: Attack
    server: Server = ""
    seconds: float = 20.0
    engine: bool = False
    """True if it needs a real media engine."""
    page: bool = False
    """True if it needs the built page."""
    must: Mapping[str, Callable[[Counts], bool]] = field(default_factory=dict)


def _all_were_closed(counts: Counts) -> bool:
    return counts["connections"] > 0 and counts["closed by the server"] >= counts["connections"]


ATTACKS: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "pings": Entry("one socket, 3 MB/s of empty pings", pings.run),
        "capabilities": Entry("150 joins with 255 KiB of rtpCapabilities", capabilities.run),
        "unknown-names": Entry("methods, directions, profiles of 250 KiB, 50/s", unknown_names.run),
        "redis-full": Entry("rooms grow until Redis reaches maxmemory", room_growth.run, server="redis"),
        "resumptions": Entry("110 MB of one session, resumed 15 times with ack=0", resumptions.run),
        "fragments": Entry("490 sockets with unfinished messages", fragments.run),
        "non-readers": Entry("300 peers do not read, one talks", non_readers.run),
        "nested-json": Entry("JSON of 250 KiB, all of it 60 levels deep, 100/s", nested_json.run),
        "over-rate": Entry("10 clients × 2,000 requests/s", over_rate.run),
        "fan-out": Entry("60 KB to 99 others, 12/s", fan_out.run),
        "static-files": Entry("the largest file of the page, 80/s", static_files.run, page=True),
        "media-connections": Entry(
            "4,000 silent TCP connections to the media port",
            media_connections.run,
            seconds=30.0,
            engine=True,
            must=MappingProxyType({"connections without ICE are closed": _all_were_closed}),
        ),
        "rabbitmq-blocked": Entry("a memory alarm: RabbitMQ takes no publishes", nothing.run, server="rabbitmq"),
    }
)
