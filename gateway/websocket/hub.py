"""Holds the connections of a gateway, and handles what concerns all of them: bounds, silence, dead clients.

A connection stays here after its socket has closed, until the room worker has applied its `Disconnect`, or has
released the connection from its resumable session.
"""

import asyncio
import secrets
import time
from typing import Final, Protocol, assert_never

from gateway.bus.api_calls import ApiCalls
from gateway.bus.partition_publisher import InputPublisher, PartitionPublisher
from gateway.counters import Counters
from gateway.protocol.client_rates import ClientRates
from gateway.protocol.events import Close, Events, Forgotten, Publish, ResumeAnswered
from gateway.protocol.frame_validation import RejectedNotification
from gateway.protocol.handshake import SECRET_BYTES, ConnectionRequest
from gateway.protocol.resumable_session import ResumableSession
from gateway.protocol.session import InputLimits, Session, UnappliedBytes
from gateway.websocket.budgets import Holder, UnfinishedMessages, UnsentBytes
from gateway.websocket.connection_log import ConnectionLog
from gateway.websocket.socket import ClosingSockets
from shared import errors
from shared.aio.iteration import iterate_yielding
from shared.protocol.bus import Message
from shared.protocol.client import Closed
from shared.protocol.protoo import notification_frame
from shared.settings import GatewaySettings
from shared.telemetry import log

SWEEP_EVERY: Final = 0.5
PING_SWEEPS: Final = 38
"""The number of sweeps between two pings to a client, which proxies may take to be idle after 20 s; a dead one is cut
off at the ping after the one that it has not answered."""
REJECTIONS_LOGGED: Final = 5
"""The number of rejected notifications of all clients that are logged between two sweeps."""
DEPENDENCY_SWEEPS: Final = 20
"""The number of sweeps without RabbitMQ or Redis after which requests, unpublished ones too, are answered 503:
protoo-client waits 22 s for an answer, and then cannot know whether its request was done."""
UNAPPLIED_BYTES_LIMIT: Final = 256 * 1024 * 1024
"""The bytes of all sessions' unapplied inputs beyond which no socket is read and no new connection accepted."""


class HubConnection(Holder, Protocol):
    """The connection as the hub uses it (implemented in `gateway.websocket.connection`)."""

    peer: str
    publisher: PartitionPublisher
    timed_input: int

    @property
    def session(self) -> Session: ...
    @property
    def paused(self) -> bool: ...

    def enqueue(self, message: Message) -> bool: ...
    def flush(self) -> None: ...
    def close_as(self, kind: errors.CloseKind) -> None: ...
    def abort(self) -> None: ...
    def answer_unavailable(self, id_: int) -> None: ...
    def input_applied(self) -> None: ...
    def resume_reading(self) -> None: ...
    def check_rate(self) -> bool: ...
    def check_alive(self) -> None: ...


class Hub:
    """Holds the connections by number, and the limits, counters and publishers that they share."""

    def __init__(self, settings: GatewaySettings, gateway: str, inputs: InputPublisher, counters: Counters) -> None:
        self.settings = settings
        self.gateway = gateway
        self.counters = counters
        self.limits = InputLimits(items=settings.unapplied_limit)
        self.unapplied_bytes = UnappliedBytes()
        self.unfinished = UnfinishedMessages(settings.unfinished_limit)
        self.unsent = UnsentBytes(settings.unsent_limit)
        self.closing_sockets = ClosingSockets()
        self.client_rates = ClientRates(
            time.monotonic,
            per_second=settings.message_rate,
            burst=settings.message_burst,
            bytes_per_second=settings.byte_rate,
            grace=settings.grace_seconds,
        )
        self.log = ConnectionLog()
        self.calls = ApiCalls(gateway, inputs)
        self.connections: dict[int, HubConnection] = {}
        self.paused: set[HubConnection] = set()
        self.over_rate: set[HubConnection] = set()
        """The connections that were over their rate at the last sweep, or since then."""
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()
        self.redis_answers = True
        self.redis_is_full = False
        """True while Redis is short of memory, so that no new session is opened."""
        self._inputs = inputs
        self._unflushed: list[HubConnection] = []
        self._last_connection = 0
        self._last_accepted = 0
        self._sweeps = 0
        self._frames_seen = 0
        self._sweeps_down = 0
        self._rejections_logged = 0
        self._log = log.get("hub")

    @property
    def overloaded(self) -> bool:
        """True while too many inputs are unapplied: no socket is read, and no new connection accepted."""
        return self.unapplied_bytes.total > UNAPPLIED_BYTES_LIMIT

    @property
    def dependencies_down(self) -> bool:
        """True if RabbitMQ or Redis has not answered for so long that requests are answered 503."""
        return self._sweeps_down >= DEPENDENCY_SWEEPS and not self._dependencies_answer

    @property
    def _dependencies_answer(self) -> bool:
        return self._inputs.takes_messages and self.redis_answers

    # --- new connections ------------------------------------------------------------------------------------

    def publisher_of(self, room: str) -> PartitionPublisher:
        """Returns the publisher of the room's partition."""
        return self._inputs.publisher_of(room)

    def new_session(self, room: str) -> Session:
        """Makes the session of a new connection; the connection's number is never used again (DELIVERY O3)."""
        number = self._next_connection()
        return Session(room, f"{self.gateway}.{number}", number, self.unapplied_bytes)

    def new_resumable_session(self, wanted: ConnectionRequest) -> ResumableSession:
        """Makes the session of a new connection whose client can resume it, or asks to."""
        number = self._next_connection()
        return ResumableSession(
            wanted.room,
            f"{self.gateway}.{number}" if wanted.resume is None else wanted.resume.session,
            number,
            self.unapplied_bytes,
            grace=self.settings.grace_seconds,
            secret=secrets.token_hex(SECRET_BYTES) if wanted.resume is None else "",
            resume=wanted.resume,
        )

    def _next_connection(self) -> int:
        self._last_connection += 1
        return self._last_connection

    def add(self, connection: HubConnection) -> None:
        """Adds a connection whose WebSocket has opened."""
        session = connection.session
        self.counters.connections_total += 1
        self.connections[session.connection] = connection
        self.empty.clear()
        connection.publisher.sources.add(session)
        # for workers of the version before: those of this version go by the order of arrival (DELIVERY I7)
        self._last_accepted = max(self._last_accepted + 1, time.time_ns() // 1_000_000)
        self.perform(connection, session.connect(connection.peer, self._last_accepted))
        if self.draining:
            connection.close_as(errors.DRAINING)

    def socket_closed(self, connection: HubConnection) -> None:
        """Disconnects the session of a closed WebSocket; the connection stays until its session is forgotten."""
        self.paused.discard(connection)
        self.over_rate.discard(connection)
        self.unsent.remove(connection)
        self.perform(connection, connection.session.disconnect())

    # --- what sessions ask for ------------------------------------------------------------------------------

    def perform(self, connection: HubConnection, events: Events) -> None:
        """Carries out what the connection's session asks for; frames are written by `flush`."""
        for event in events:
            match event:
                case Message():
                    if connection.enqueue(event):
                        self._unflushed.append(connection)
                case Publish():
                    self.counters.republished_total += event.repeated
                    connection.publisher.schedule(connection.session)
                case Close():
                    connection.close_as(event.kind)
                case ResumeAnswered():
                    self.counters.resumed_total += event.resumed
                    self.counters.resumes_refused_total += not event.resumed
                case Forgotten():
                    self._remove(connection)
                case _:
                    assert_never(event)

    def flush(self) -> None:
        """Writes the frames that were queued since the last call: all of one connection at once."""
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            connection.flush()

    def _remove(self, connection: HubConnection) -> None:
        session = connection.session
        connection.publisher.sources.discard(session)
        self.connections.pop(session.connection, None)
        if not self.connections:
            self.empty.set()

    def resume_reading(self, connection: HubConnection) -> None:
        """Reads a paused connection again if enough of its inputs is applied."""
        if connection.session.below_half(self.limits) and not self.overloaded:
            connection.resume_reading()

    def end_all_sessions(self) -> None:
        """Closes every session with `closed`, since Redis was emptied and no room exists any more (DELIVERY C7)."""
        for connection in list(self.connections.values()):
            connection.enqueue(Message(notification_frame(Closed()), []))
            connection.close_as(errors.SESSION_UNKNOWN)

    def count_rejected_notification(self, connection: HubConnection, rejected: RejectedNotification) -> None:
        """Counts a dropped notification; some are logged, but none of those above the rate limit."""
        self.counters.count_rejected_frame("dropped", rejected.code)
        if rejected.code != errors.TooMany.code and self._rejections_logged < REJECTIONS_LOGGED:
            self._rejections_logged += 1
            self._log.info(
                "notification.rejected",
                room=connection.session.room,
                peer=connection.peer,
                session=connection.session.id,
                code=rejected.code,
                reason=rejected.reason,
            )

    def count_refused(self, connection: HubConnection, times: int) -> None:
        """Counts a frame above the connection's rate limit, its `times`-th; the first is logged."""
        self.counters.rate_limited_total += 1
        self.over_rate.add(connection)
        if times == 1:
            session = connection.session
            self._log.warning("connection.rate_limited", room=session.room, peer=connection.peer, session=session.id)

    # --- time -----------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Does what is due by time for all connections. To be called every `SWEEP_EVERY` seconds."""
        self._sweeps += 1
        self._rejections_logged = 0
        turn = self._sweeps % PING_SWEEPS
        self.counters.adapt_sampling(self.counters.frames_in_total - self._frames_seen)
        self._frames_seen = self.counters.frames_in_total
        self._sweeps_down = 0 if self._dependencies_answer else self._sweeps_down + 1
        self.closing_sockets.sweep()
        self.unfinished.sweep()
        self.unsent.refresh()
        self.over_rate = {connection for connection in list(self.over_rate) if connection.check_rate()}
        self.calls.sweep()
        if not self.overloaded:
            for connection in [c for c in self.paused if c.session.below_half(self.limits)]:
                connection.resume_reading()
        async for connection in iterate_yielding(list(self.connections.values())):
            self._sweep_connection(connection, turn)

    def _sweep_connection(self, connection: HubConnection, turn: int) -> None:
        session = connection.session
        if session.connection not in self.connections:
            return  # removed since the sweep began
        self.perform(connection, session.sweep())
        if session.closed:
            return
        if session.cancellable and self.dependencies_down:
            for id_ in session.cancel_unpublished():
                connection.answer_unavailable(id_)
        if session.connection % PING_SWEEPS == turn:
            connection.check_alive()
