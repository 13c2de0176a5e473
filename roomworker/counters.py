"""Counters of a room worker: plain numbers, made into metrics by `roomworker.metrics`.

No counter is about one room, peer or client.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from shared.protocol import client, media
from shared.telemetry.histogram import Histogram, seconds, sizes

Message: TypeAlias = type[client.FromClient | client.Message]
CommitStatus: TypeAlias = Literal["OK", "APPLIED", "STALE", "FAILED"]

OK = 200


@dataclass(slots=True)
class Counters:
    """Counters of one room worker process."""

    handled: dict[Message | None, int] = field(default_factory=dict)
    """Clients' messages that took effect, by kind."""
    rejected: dict[tuple[Message | None, int], int] = field(default_factory=dict)
    """Clients' messages that had no effect, by kind (None: an unknown kind) and the error's code."""
    defects_total: int = 0
    """Messages whose handler raised an exception other than `PlenaryError`."""
    dead_letters_total: int = 0
    """Messages put into the dead-letter stream because workers crashed while handling them."""
    takeovers_total: int = 0
    """Partitions that this worker became active for."""
    hand_overs_total: int = 0
    """Partitions handed over to their primary worker."""
    step_downs_total: int = 0
    """Times that all partitions were given up, because Redis did not answer or was emptied."""
    media_refusals_total: int = 0
    """Times that a room lost its media, because engines died under it."""
    fan_out_bytes_total: int = 0
    """Bytes sent on behalf of clients, times their receivers."""
    replays_total: int = 0
    """Gateways' requests for messages that they missed."""
    replayed_messages_total: int = 0
    """Messages sent again in answer to these requests."""
    replays_refused_total: int = 0
    """Those of the requests whose session had missed more than the limit."""
    trimmed_entries_total: int = 0
    """Stream entries removed to save Redis' memory, besides those that commits trim."""
    evicted_rooms_total: int = 0
    """Rooms ended because Redis' memory was nearly used up."""
    commits: dict[CommitStatus, int] = field(default_factory=lambda: {"OK": 0, "APPLIED": 0, "STALE": 0, "FAILED": 0})
    """Commits of single rooms, by Redis' answer."""
    media_requests: dict[tuple[type[media.Request], int], int] = field(default_factory=dict)
    """Requests to media nodes, by kind and outcome (200 or an error's code)."""
    queue: Histogram = field(default_factory=seconds)
    """Seconds from a batch's publish to its delivery here."""
    core: Histogram = field(default_factory=seconds)
    """Seconds of one delivery in the core, until all its items are handled or wait for a media node."""
    commit: Histogram = field(default_factory=seconds)
    """Seconds of a round trip that commits."""
    load: Histogram = field(default_factory=seconds)
    """Seconds of a round trip that loads rooms."""
    media_seconds: Histogram = field(default_factory=seconds)
    """Seconds from a request to a media node to its result."""
    items_in: Histogram = field(default_factory=sizes)
    """Items of one delivery, ticks not counted."""
    items_to_gateways: Histogram = field(default_factory=sizes)
    """Items of one batch to a gateway."""
    items_to_nodes: Histogram = field(default_factory=sizes)
    """Commands of one batch to a media node."""
    rooms_committed: Histogram = field(default_factory=sizes)
    """Rooms committed in one round trip."""

    def count_rejection(self, kind: Message | None, code: int) -> None:
        """Counts one client's message that was answered with an error, or ignored with one."""
        self.rejected[kind, code] = self.rejected.get((kind, code), 0) + 1

    def count_commits(self, statuses: Sequence[CommitStatus], took: float) -> None:
        """Counts one round trip that committed a room per status and took `took` seconds."""
        self.commit.observe(took)
        self.rooms_committed.observe(len(statuses))
        for status in self.commits:
            self.commits[status] += statuses.count(status)

    def count_media_request(self, request: type[media.Request], result: media.AnyResult, took: float) -> None:
        """Counts one request to a media node, answered after `took` seconds."""
        outcome = request, result.code if isinstance(result, media.Failed) else OK
        self.media_requests[outcome] = self.media_requests.get(outcome, 0) + 1
        self.media_seconds.observe(took)
