"""Counts what a gateway does; `gateway.metrics` exposes it. No number is about one room, peer or client."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from shared.telemetry.histogram import Histogram, seconds, sizes

SAMPLES: Final = 256
"""About how many requests are timed between two sweeps; to time each one would cost too much."""

Bound: TypeAlias = Literal["over_rate", "unfinished_total", "unfinished_stalled", "unsent", "unsent_total"]
"""The bound beyond which a client's WebSocket was closed: its rate for too long, or bytes of it or of all clients."""

Rejection: TypeAlias = Literal["answered", "dropped", "malformed", "unavailable"]
"""The outcome of a frame that is not forwarded (see `gateway.protocol.frame_validation`)."""

REASONS: Final = (
    "connections",
    "rate",
    "address_connections",
    "address_rate",
    "address_rooms",
    "files",
    "timeout",
    "too_large",
    "malformed",
)
"""Why a connection is refused or cut off before its request is done."""


@dataclass(slots=True)
class Counters:
    """The counters of one gateway, which only grow, and how often requests are timed."""

    frames_in_total: int = 0
    frames_out_total: int = 0
    rejected_frames: dict[tuple[Rejection, int], int] = field(default_factory=dict)
    """Frames that were not forwarded, by outcome and error code."""
    rate_limited_total: int = 0
    """Frames above a connection's rate limit, answered or dropped; control frames, too."""
    undeliverable_total: int = 0
    """Messages for a connection that is removed or has another session, and answers that no caller waits for."""
    republished_total: int = 0
    """Sessions whose inputs were published again after silence."""
    connections_total: int = 0
    resumed_total: int = 0
    """Sessions that went on over a new connection to this gateway."""
    resumes_refused_total: int = 0
    duplicates_total: int = 0
    """Frames that a resumed client sent again."""
    rejected_sockets_total: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Connections that got no WebSocket and no page, by one of `REASONS`."""
    too_slow_total: int = 0
    closes: dict[int, int] = field(default_factory=dict)
    """WebSockets that the gateway closed, by close code."""
    cuts: dict[Bound, int] = field(default_factory=dict)
    """WebSockets that the gateway closed because of a bound, by bound."""
    batches_out_total: int = 0
    items_out: Histogram = field(default_factory=sizes)
    messages_in: Histogram = field(default_factory=sizes)
    """Messages and reports in a batch from a room worker."""
    request: Histogram = field(default_factory=seconds)
    """Seconds from a frame to the report that it is applied, which follows its answer; of the timed frames."""
    notify: Histogram = field(default_factory=seconds)
    """Seconds from a room worker's publish to its arrival here."""
    api: dict[tuple[str, int], int] = field(default_factory=dict)
    """Requests to the server API, by operation and HTTP status."""
    api_seconds: Histogram = field(default_factory=seconds)
    sample_every: int = 1
    """The number of frames of which one is timed."""
    until_sample: int = 0
    """The number of frames before the next that is timed."""

    def count_rejected_frame(self, how: Rejection, code: int) -> None:
        """Counts a frame that was not forwarded; `code` is the error's."""
        self.rejected_frames[how, code] = self.rejected_frames.get((how, code), 0) + 1

    def rejected_frames_total(self, how: Rejection) -> int:
        """Returns the number of frames with this outcome, whatever their error code."""
        return sum(count for (rejection, _), count in self.rejected_frames.items() if rejection == how)

    def count_api(self, operation: str, status: int) -> None:
        """Counts a request to the server API."""
        self.api[operation, status] = self.api.get((operation, status), 0) + 1

    def count_refused(self, reason: str) -> None:
        """Counts a connection that was refused or cut off before its request was done."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def count_close(self, code: int) -> None:
        """Counts a WebSocket that the gateway closes."""
        self.closes[code] = self.closes.get(code, 0) + 1

    def count_cut(self, bound: Bound) -> None:
        """Counts a WebSocket that is closed because its client went beyond a bound."""
        self.cuts[bound] = self.cuts.get(bound, 0) + 1

    def adapt_sampling(self, frames: int) -> None:
        """Chooses how often to time from the number of frames between the last two sweeps."""
        self.sample_every = 1 + frames // SAMPLES
