"""The counters of a media node: plain numbers, from which `medianode.metrics` makes metrics; none is about a room."""

from dataclasses import dataclass, field
from typing import Final

from shared.protocol import media
from shared.telemetry.histogram import Histogram, seconds, sizes

OK: Final = 200


@dataclass(slots=True)
class Counters:
    requests: dict[tuple[type[media.Request], int], int] = field(default_factory=dict)
    """Requests of room workers by kind and outcome (200 or an error's code)."""
    orders: dict[type[media.Order], int] = field(default_factory=dict)
    request_seconds: Histogram = field(default_factory=seconds)
    """From a request's arrival to its result."""
    commands_in: Histogram = field(default_factory=sizes)
    answers_out: Histogram = field(default_factory=sizes)

    def answered(self, request: type[media.Request], result: media.AnyResult, took: float) -> None:
        outcome = request, result.code if isinstance(result, media.Failed) else OK
        self.requests[outcome] = self.requests.get(outcome, 0) + 1
        self.request_seconds.observe(took)

    def ordered(self, order: type[media.Order]) -> None:
        self.orders[order] = self.orders.get(order, 0) + 1
