"""The counters of a media node: plain numbers, from which `medianode.metrics` makes metrics."""

from dataclasses import dataclass, field
from typing import Final

from shared.protocol import media
from shared.telemetry.histogram import Histogram, seconds, sizes

OK: Final = 200


@dataclass(slots=True)
class Counters:
    """Counters of what a media node has done since it started, over all rooms."""

    requests: dict[tuple[type[media.Request], int], int] = field(default_factory=dict)
    """Number of room workers' requests by kind and outcome (200 or an error's code)."""
    orders: dict[type[media.Order], int] = field(default_factory=dict)
    """Number of room workers' orders by kind, ignored ones included."""
    request_seconds: Histogram = field(default_factory=seconds)
    """Seconds from a request's arrival to its result."""
    commands_in: Histogram = field(default_factory=sizes)
    """Requests and orders per received batch."""
    answers_out: Histogram = field(default_factory=sizes)
    """Results per published batch."""

    def answered(self, request: type[media.Request], result: media.AnyResult, took: float) -> None:
        outcome = request, result.code if isinstance(result, media.Failed) else OK
        self.requests[outcome] = self.requests.get(outcome, 0) + 1
        self.request_seconds.observe(took)

    def ordered(self, order: type[media.Order]) -> None:
        self.orders[order] = self.orders.get(order, 0) + 1
