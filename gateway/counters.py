"""The numbers that a gateway counts; `gateway.metrics` exposes them. None is about one room, peer or client."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from shared.telemetry.histogram import Histogram, seconds, sizes

SAMPLES: Final = 256
"""Requests that are timed between two sweeps, about: timing each would cost more than what it tells."""

Rejection: TypeAlias = Literal["answered", "dropped", "malformed", "unavailable"]
"""What becomes of a frame that is not let through: `gateway.protocol.frame_validation`."""


@dataclass(slots=True)
class Counters:
    frames_in_total: int = 0
    frames_out_total: int = 0
    rejected_frames: dict[tuple[Rejection, int], int] = field(default_factory=dict)
    """Rejected frames, by what became of them and error code."""
    rate_limited_total: int = 0
    """Frames beyond a connection's rate, whether refused or dropped."""
    undeliverable_total: int = 0
    """Messages for a connection that is gone or whose session is another, and answers that nobody waits for."""
    republished_total: int = 0
    """Sessions whose inputs were published again after silence."""
    connections_total: int = 0
    resumed_total: int = 0
    """Sessions that went on over a new connection to this gateway."""
    resumes_refused_total: int = 0
    duplicates_total: int = 0
    """Frames that a client has sent before."""
    rejected_sockets_total: int = 0
    too_slow_total: int = 0
    closes: dict[int, int] = field(default_factory=dict)
    """WebSockets that this side closed, by close code."""
    batches_out_total: int = 0
    items_out: Histogram = field(default_factory=sizes)
    messages_in: Histogram = field(default_factory=sizes)
    """Messages and reports in a batch from a room worker."""
    request: Histogram = field(default_factory=seconds)
    """From a frame to the room worker's report that it is applied, which follows its answer; of some frames."""
    notify: Histogram = field(default_factory=seconds)
    """From a room worker's publish to its arrival here."""
    api: dict[tuple[str, int], int] = field(default_factory=dict)
    """Requests to the server API, by operation and HTTP status."""
    api_seconds: Histogram = field(default_factory=seconds)
    stride: int = 1
    """Every how many frames one is timed."""
    until_timed: int = 0

    def reject_frame(self, how: Rejection, code: int) -> None:
        self.rejected_frames[how, code] = self.rejected_frames.get((how, code), 0) + 1

    def rejected_frames_total(self, how: Rejection) -> int:
        return sum(count for (rejection, _), count in self.rejected_frames.items() if rejection == how)

    def close(self, code: int) -> None:
        self.closes[code] = self.closes.get(code, 0) + 1

    def pace(self, frames: int) -> None:
        """Between two sweeps there were so many frames: the next are timed accordingly."""
        self.stride = 1 + frames // SAMPLES
