"""What a room worker counts: plain numbers, made into metrics by `roomworker.metrics`. Nothing here is about one
room, peer or client."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from roomworker.storage.store import Status
from shared.protocol import client, media
from shared.telemetry.histogram import Histogram, seconds, sizes

Message: TypeAlias = type[client.FromClient | client.Message]

OK = 200


@dataclass(slots=True)
class Counts:
    handled: dict[Message | None, int] = field(default_factory=dict)
    """Messages of clients that had their effect, by kind."""
    refused: dict[tuple[Message | None, int], int] = field(default_factory=dict)
    """Those that had none, by kind (None: of no kind that there is) and error's code."""
    defects_total: int = 0
    """Messages whose handler raised what it must not."""
    dead_letters_total: int = 0
    """Messages set aside because workers died with them."""
    takeovers_total: int = 0
    """Partitions that this worker became the active one of."""
    hand_overs_total: int = 0
    """Partitions given to the worker whose turn it is."""
    step_downs_total: int = 0
    """Times that all partitions were given up, because Redis did not answer or was emptied."""
    replays_total: int = 0
    """Gateways' questions for messages that they miss."""
    replayed_messages_total: int = 0
    commits: dict[Status, int] = field(default_factory=lambda: {"OK": 0, "APPLIED": 0, "STALE": 0})
    asked: dict[tuple[type[media.Request], int], int] = field(default_factory=dict)
    """Requests to media nodes by kind and outcome (200 or an error's code)."""
    queue: Histogram = field(default_factory=seconds)
    """From a batch's publish to its delivery here."""
    core: Histogram = field(default_factory=seconds)
    """A delivery's time in the core, from its first item until all are handled or wait for a media node."""
    commit: Histogram = field(default_factory=seconds)
    """A round trip that commits."""
    load: Histogram = field(default_factory=seconds)
    """A round trip that loads rooms."""
    media_seconds: Histogram = field(default_factory=seconds)
    """From a request to a media node to its result."""
    items_in: Histogram = field(default_factory=sizes)
    """Items of a delivery, ticks not counted."""
    items_to_gateways: Histogram = field(default_factory=sizes)
    items_to_nodes: Histogram = field(default_factory=sizes)
    rooms_committed: Histogram = field(default_factory=sizes)
    """Rooms that were committed in one round trip."""

    def refuse(self, kind: Message | None, code: int) -> None:
        self.refused[kind, code] = self.refused.get((kind, code), 0) + 1

    def committed(self, statuses: Sequence[Status], took: float) -> None:
        """One round trip, `took` seconds."""
        self.commit.observe(took)
        self.rooms_committed.observe(len(statuses))
        for status in self.commits:
            self.commits[status] += statuses.count(status)

    def answered(self, request: type[media.Request], result: media.AnyResult, took: float) -> None:
        """One request to a media node, `took` seconds."""
        outcome = request, result.code if isinstance(result, media.Failed) else OK
        self.asked[outcome] = self.asked.get(outcome, 0) + 1
        self.media_seconds.observe(took)
