"""Carries batches from the gateway's notify queue to the sockets. Nothing waits here: each client has a buffer."""

import time

import msgspec

from gateway.protocol.resumable_session import ResumableSession
from gateway.websocket.hub import Hub, HubConnection
from shared.protocol.bus import Applied, Link, Message, decode_to_gateway
from shared.telemetry import log


class OutputDelivery:
    """Handles the deliveries of the notify queue."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._log = log.get("delivery")

    def receive(self, body: bytes) -> None:
        """Carries out one batch: messages first, so that no report that counts them looks like a gap."""
        hub, counters = self._hub, self._hub.counters
        try:
            batch = decode_to_gateway(body)
        except msgspec.DecodeError as invalid:
            self._log.error("batch.unreadable", error=str(invalid), bytes_in=len(body))
            return
        counters.messages_in.observe(len(batch.messages) + len(batch.applied))
        if batch.sent:
            counters.notify.observe(max(0.0, time.time() - batch.sent))
        for message in batch.messages:
            self._message(message)
        for report in batch.applied:
            self._applied(report)
        for link in batch.links:
            self._link(link)
        hub.flush()
        for answer in batch.answers:
            if not hub.calls.resolve(answer):
                counters.undeliverable_total += 1

    def _message(self, message: Message) -> None:
        hub = self._hub
        connections = hub.connections
        for to in message.to:
            connection = connections.get(to.connection)
            if connection is None or connection.session.id != to.session:
                hub.counters.undeliverable_total += 1
            else:
                hub.perform(connection, connection.session.receive(to.out, message))

    def _applied(self, report: Applied) -> None:
        connection = self._find(report.connection, report.session)
        if connection is None:
            return
        if events := connection.session.applied(report):
            self._hub.perform(connection, events)
        if 0 <= connection.timed_input <= report.n:
            connection.input_applied()
        if connection.paused:
            self._hub.resume_reading(connection)

    def _link(self, link: Link) -> None:
        connection = self._find(link.connection, link.session)
        if connection is None:
            return
        session = connection.session
        if not isinstance(session, ResumableSession):
            self._hub.counters.undeliverable_total += 1
            return
        self._hub.perform(connection, session.linked(link))
        if connection.paused:
            self._hub.resume_reading(connection)

    def _find(self, connection: int, session: str) -> HubConnection | None:
        """Returns the connection if it exists and belongs to the session (DELIVERY O3)."""
        found = self._hub.connections.get(connection)
        if found is not None and found.session.id == session:
            return found
        self._hub.counters.undeliverable_total += 1
        return None
