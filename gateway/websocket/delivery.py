"""From this gateway's notify queue to the sockets. Nothing here waits: a slow client has its own buffer."""

import time
from typing import TYPE_CHECKING

import msgspec

from gateway.protocol.resumable_session import ResumableSession
from gateway.websocket.hub import Hub
from shared import errors
from shared.protocol.bus import Applied, Link, Message, decode_to_gateway
from shared.telemetry import log

if TYPE_CHECKING:
    from gateway.websocket.connection import Connection


class OutputDelivery:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._log = log.get("delivery")
        self._collected: list[Connection] = []
        """Who has frames to be flushed when the batch is through."""

    def receive(self, body: bytes) -> None:
        """Carries one batch out: messages first, so that no report of theirs looks like a gap."""
        counters = self._hub.counters
        try:
            batch = decode_to_gateway(body)
        except msgspec.DecodeError as broken:
            self._log.error("batch not understood", why=str(broken), bytes=len(body))
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
        collected, self._collected = self._collected, []
        for connection in collected:
            connection.flush()
        for answer in batch.answers:
            if not self._hub.calls.answer(answer):
                self._hub.counters.undeliverable_total += 1

    def _message(self, message: Message) -> None:
        connections = self._hub.connections
        for to in message.to:
            connection = connections.get(to.connection)
            if connection is None or connection.session.id != to.session:
                self._hub.counters.undeliverable_total += 1
                continue
            session = connection.session
            for ready in session.receive(to.out, message):
                self._collect(connection, ready)
            if session.sendable:
                connection.publisher.schedule(session)

    def _collect(self, connection: "Connection", message: Message) -> None:
        if connection.collect(message):
            self._collected.append(connection)

    def _applied(self, report: Applied) -> None:
        hub = self._hub
        connection = hub.connections.get(report.connection)
        if connection is None or connection.session.id != report.session:
            hub.counters.undeliverable_total += 1
            return
        session = connection.session
        before = session.size
        session.applied(report)
        hub.held += session.size - before
        if isinstance(session, ResumableSession):
            for ready in session.answered():
                self._collect(connection, ready)
        if 0 <= connection.timed <= report.n:
            connection.timing_ended()
        if session.forgotten and not session.closed:
            connection.close_as(errors.GONE)
        hub.release_or_schedule(connection)

    def _link(self, link: Link) -> None:
        hub = self._hub
        connection = hub.connections.get(link.connection)
        session = connection.session if connection is not None else None
        if connection is None or not isinstance(session, ResumableSession) or session.id != link.session:
            hub.counters.undeliverable_total += 1
            return
        before, asked = session.size, session.resuming
        for ready in session.linked(link):
            self._collect(connection, ready)
        hub.held += session.size - before
        if not session.greeted:
            hub.counters.resumes_refused_total += asked
            connection.close_as(errors.GONE)
        elif session.forgotten:
            # Not for ever: if nobody took over, the worker took this gateway for dead, and the client is to resume.
            # One whose token another uses is refused, and settles it with a new session.
            connection.close_as(errors.RELEASED)
        else:
            hub.counters.resumed_total += asked
        hub.release_or_schedule(connection)
