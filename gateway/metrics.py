"""A gateway's metrics: all of them, made from what it counts when somebody asks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from shared.aio.iteration import iterate_yielding
from shared.telemetry.metrics import counter, described_in, gauge, histogram

if TYPE_CHECKING:
    from gateway.server import Gateway
    from gateway.websocket.connection import Connection

CONNECTIONS = gauge(
    "gateway_connections", "WebSockets with a session, by what becomes of it without its socket.", "session"
)
DEPARTED = gauge("gateway_departed_connections", "Closed WebSockets whose end no room worker has applied yet.")
PAUSED = gauge("gateway_paused_connections", "WebSockets not read until more of their input is applied.")
DRAINING = gauge("gateway_draining", "1 while the gateway sends its clients elsewhere.")
ACCEPTED = counter("gateway_accepted", "WebSockets accepted that got a session.")
TURNED_AWAY = counter("gateway_turned_away", "WebSockets that got no session: a bad query, or too much unapplied.")
CLOSES = counter("gateway_closes", "WebSockets closed from this side, by close code.", "code")
SLOW = counter("gateway_slow_consumers_closed", "WebSockets closed because their client read too slowly (4003).")
RECEIVED = counter("gateway_frames_received", "Text frames from clients.")
SENT = counter("gateway_frames_sent", "Frames written to clients.")
REFUSED = counter(
    "gateway_refused_frames", "Frames answered with an error, dropped, complained of, or that found servers away.",
    "outcome", "code",
)  # fmt: skip
TOO_FAST = counter("gateway_rate_limited_frames", "Frames beyond their connection's rate.")
DUPLICATES = counter("gateway_duplicate_frames", "Frames that a resumed client sent once more; they are dropped.")
RESUMPTIONS = counter("gateway_resumptions", "Sessions asked to be taken up again, by outcome.", "outcome")
UNCLAIMED = counter("gateway_unclaimed_messages", "Messages and reports for a connection that is not here any more.")
REPEATED = counter("gateway_repeated_sessions", "Times that a session's inputs were published again after silence.")
UNAPPLIED = gauge("gateway_unapplied_inputs", "Inputs kept because no room worker has committed them yet.")
UNAPPLIED_BYTES = gauge("gateway_unapplied_bytes", "Their size; above 256 MiB nobody new is let in.")
UNSENT_BYTES = gauge("gateway_unsent_bytes", "Bytes that clients have not read yet, in this process's buffers.")
REQUEST = histogram(
    "gateway_request_seconds",
    "From a frame to its effect: committed, and its answer written. Measured for about 512 frames a second.",
)
NOTIFY = histogram(
    "gateway_notify_seconds", "From a room worker's publish to the arrival here, by the two machines' clocks."
)
ITEMS_OUT = histogram("gateway_published_items", "Inputs in a batch to a partition.")
MESSAGES_IN = histogram("gateway_received_messages", "Messages and reports in a batch from a room worker.")
API_REQUESTS = counter("gateway_api_requests", "Requests to the server API, by operation and HTTP status.",
                       "operation", "code")  # fmt: skip
API_SECONDS = histogram("gateway_api_request_seconds", "From a request to the server API to its answer.")
API_WAITING = gauge("gateway_api_calls_waiting", "Calls of the server API that no room has answered yet.")


@dataclass
class Census:
    """All connections, looked at one by one."""

    kinds: dict[str, int] = field(default_factory=lambda: {"plain": 0, "resumable": 0})
    departed: int = 0
    unapplied: int = 0
    unsent: int = 0

    def count(self, connection: "Connection") -> None:
        self.unapplied += connection.session.unapplied
        if connection.session.closed:
            self.departed += 1
        else:
            self.kinds[connection.session.kind] += 1
            self.unsent += connection.unsent


class GatewayMetrics:
    described = described_in(globals())

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._census = Census()

    async def refresh(self) -> None:
        census = Census()
        async for connection in iterate_yielding(list(self._gateway.hub.connections.values())):
            census.count(connection)
        self._census = census

    def collect(self) -> Iterable[Metric]:
        hub, counts = self._gateway.hub, self._gateway.counts
        yield from self._connections()
        yield PAUSED.of(len(hub.paused))
        yield DRAINING.of(hub.draining)
        yield ACCEPTED.of(counts.connections_total)
        yield TURNED_AWAY.of(counts.turned_away_total)
        yield CLOSES.by(counts.closes)
        yield SLOW.of(counts.too_slow_total)
        yield RECEIVED.of(counts.frames_in_total)
        yield SENT.of(counts.frames_out_total)
        yield REFUSED.by(counts.refused)
        yield TOO_FAST.of(counts.too_fast_total)
        yield DUPLICATES.of(counts.duplicates_total)
        yield RESUMPTIONS.by({"resumed": counts.resumed_total, "refused": counts.resumes_refused_total})
        yield UNCLAIMED.of(counts.strangers_total)
        yield REPEATED.of(counts.repeated_total)
        yield UNAPPLIED_BYTES.of(hub.held)
        yield REQUEST.spread(counts.request)
        yield NOTIFY.spread(counts.notify)
        yield ITEMS_OUT.spread(counts.items_out)
        yield MESSAGES_IN.spread(counts.messages_in)
        yield API_REQUESTS.by(counts.api)
        yield API_SECONDS.spread(counts.api_seconds)
        yield API_WAITING.of(hub.calls.waiting)

    def _connections(self) -> Iterable[Metric]:
        census = self._census
        yield CONNECTIONS.by(census.kinds)
        yield DEPARTED.of(census.departed)
        yield UNAPPLIED.of(census.unapplied)
        yield UNSENT_BYTES.of(census.unsent)
