"""Exposes the metrics of a gateway, made from its counters when they are collected."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client.core import Metric

from gateway.counters import REASONS
from gateway.server import Gateway
from gateway.websocket.hub import HubConnection
from shared.aio.iteration import iterate_yielding
from shared.telemetry.metrics import counter, described_in, gauge, histogram

CONNECTIONS = gauge("gateway_connections", "Open WebSockets with a session, by kind of session.", "session")
PENDING_DISCONNECTS = gauge(
    "gateway_pending_disconnects", "Closed WebSockets whose disconnect no room worker has applied yet."
)
OVER_RATE = gauge("gateway_over_rate_connections", "WebSockets whose client is over its message rate.")
PAUSED = gauge("gateway_paused_connections", "WebSockets that are not read until more of their inputs are applied.")
DRAINING = gauge("gateway_draining", "1 while the gateway drains: it closes its connections with 1012.")
ACCEPTED = counter("gateway_accepted", "Accepted WebSockets that got a session.")
REJECTED_SOCKETS = counter(
    "gateway_rejected_sockets", "Accepted WebSockets that got no session: invalid query, or gateway overloaded."
)
REFUSED = counter(
    "gateway_refused_connections",
    "Connections that were refused or cut off before a WebSocket or a page: over a limit (connections, rate, "
    "address_connections, address_rate, address_rooms), no file descriptor left (files), too slow (timeout), headers "
    "too large (too_large), no valid request (malformed).",
    "reason",
)
OPEN_SOCKETS = gauge("gateway_open_sockets", "Open connections of the public port, WebSockets and others.")
ADDRESSES = gauge("gateway_client_addresses", "Addresses that have a connection, IPv6 by /64.")
CLOSES = counter("gateway_closes", "WebSockets closed by the gateway, by close code.", "code")
CUTS = counter(
    "gateway_cut_clients",
    "WebSockets closed because of a bound: over the rate for 10 s (over_rate), too many unread bytes of one client"
    " (unsent) or of all (unsent_total), too many bytes of unfinished messages (unfinished_total), or no progress of"
    " one (unfinished_stalled).",
    "bound",
)
SLOW = counter("gateway_slow_consumers_closed", "WebSockets closed because their client read too slowly (4003).")
RECEIVED = counter("gateway_frames_received", "Text frames from clients.")
SENT = counter("gateway_frames_sent", "Frames written to clients.")
REJECTED_FRAMES = counter(
    "gateway_rejected_frames",
    "Frames that were not forwarded, by outcome (answered, dropped, malformed, unavailable) and error code.",
    "outcome",
    "code",
)
RATE_LIMITED = counter(
    "gateway_rate_limited_frames",
    "Frames above their connection's rate limit; control frames and fragments count.",
)
DUPLICATES = counter("gateway_duplicate_frames", "Frames that a resumed client sent again; they are dropped.")
RESUMPTIONS = counter("gateway_resumptions", "Answered requests to resume a session, by outcome.", "outcome")
UNDELIVERABLE = counter(
    "gateway_undeliverable_messages", "Messages and reports for a connection that this gateway no longer has."
)
REPUBLISHED = counter(
    "gateway_republished_sessions", "Times that a session's inputs were published again because no report came."
)
UNAPPLIED = gauge("gateway_unapplied_inputs", "Inputs that no room worker has reported as applied yet.")
UNAPPLIED_BYTES = gauge(
    "gateway_unapplied_bytes", "Size of the unapplied inputs; above 256 MiB new connections are rejected."
)
UNFINISHED_BYTES = gauge(
    "gateway_unfinished_bytes",
    "Bytes of messages that have begun and not ended; above PLENARY_UNFINISHED_LIMIT the largest are given up.",
)
UNSENT_BYTES = gauge("gateway_unsent_bytes", "Bytes in this process's send buffers that clients have not read yet; "
                     "above PLENARY_UNSENT_LIMIT the clients with the most are dropped.")  # fmt: skip
REQUEST = histogram(
    "gateway_request_seconds",
    "Time from a frame to its answer (effect committed), sampled for about 512 frames a second.",
)
NOTIFY = histogram(
    "gateway_notify_seconds",
    "Time from a room worker's publish to the arrival at the gateway, by the clocks of both machines.",
)
ITEMS_OUT = histogram("gateway_published_items", "Inputs in a batch published to a partition.")
MESSAGES_IN = histogram("gateway_received_messages", "Messages and reports in a batch from a room worker.")
API_REQUESTS = counter("gateway_api_requests", "Requests to the server API, by operation and HTTP status.",
                       "operation", "code")  # fmt: skip
API_SECONDS = histogram("gateway_api_request_seconds", "Time from a request to the server API to its answer.")
API_WAITING = gauge("gateway_api_calls_waiting", "Calls of the server API that no room has answered yet.")


@dataclass
class ConnectionCounts:
    """Sums over all connections, made at each refresh."""

    kinds: dict[str, int] = field(default_factory=lambda: {"plain": 0, "resumable": 0})
    pending_disconnects: int = 0
    unapplied: int = 0

    def count(self, connection: HubConnection) -> None:
        self.unapplied += connection.session.unapplied
        if connection.session.closed:
            self.pending_disconnects += 1
        else:
            self.kinds[connection.session.kind] += 1


class GatewayMetrics:
    """Implements `shared.telemetry.metrics.Metrics` for one gateway."""

    described = described_in(globals())

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._counts = ConnectionCounts()

    async def refresh(self) -> None:
        counts = ConnectionCounts()
        async for connection in iterate_yielding(list(self._gateway.hub.connections.values())):
            counts.count(connection)
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        hub, counters = self._gateway.hub, self._gateway.counters
        yield from self._connections()
        yield OVER_RATE.with_value(len(hub.over_rate))
        yield PAUSED.with_value(len(hub.paused))
        yield DRAINING.with_value(hub.draining)
        yield ACCEPTED.with_value(counters.connections_total)
        yield REJECTED_SOCKETS.with_value(counters.rejected_sockets_total)
        yield REFUSED.with_values({reason: counters.refused.get(reason, 0) for reason in REASONS})
        yield OPEN_SOCKETS.with_value(self._gateway.admission.open)
        yield ADDRESSES.with_value(self._gateway.admission.addresses)
        yield CLOSES.with_values(counters.closes)
        yield CUTS.with_values(counters.cuts)
        yield SLOW.with_value(counters.too_slow_total)
        yield RECEIVED.with_value(counters.frames_in_total)
        yield SENT.with_value(counters.frames_out_total)
        yield REJECTED_FRAMES.with_values(counters.rejected_frames)
        yield RATE_LIMITED.with_value(counters.rate_limited_total)
        yield DUPLICATES.with_value(counters.duplicates_total)
        yield RESUMPTIONS.with_values({"resumed": counters.resumed_total, "refused": counters.resumes_refused_total})
        yield UNDELIVERABLE.with_value(counters.undeliverable_total)
        yield REPUBLISHED.with_value(counters.republished_total)
        yield UNAPPLIED_BYTES.with_value(hub.unapplied_bytes.total)
        yield UNFINISHED_BYTES.with_value(hub.unfinished.total)
        yield UNSENT_BYTES.with_value(hub.unsent.total)
        yield REQUEST.with_histogram(counters.request)
        yield NOTIFY.with_histogram(counters.notify)
        yield ITEMS_OUT.with_histogram(counters.items_out)
        yield MESSAGES_IN.with_histogram(counters.messages_in)
        yield API_REQUESTS.with_values(counters.api)
        yield API_SECONDS.with_histogram(counters.api_seconds)
        yield API_WAITING.with_value(hub.calls.waiting)

    def _connections(self) -> Iterable[Metric]:
        counts = self._counts
        yield CONNECTIONS.with_values(counts.kinds)
        yield PENDING_DISCONNECTS.with_value(counts.pending_disconnects)
        yield UNAPPLIED.with_value(counts.unapplied)
