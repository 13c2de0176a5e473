"""Who is connected to this gateway, and what concerns them all: bounds, repetition, dead peers.

A connection stays here after its socket has closed, until the room worker has applied its `Disconnect`, or has
released the connection from its resumable session.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final

from gateway.bus.api_calls import Calls
from gateway.bus.partition_publisher import InputPublisher, PartitionPublisher
from gateway.counters import Counters
from gateway.protocol import frame_validation
from gateway.protocol.handshake import Wanted
from gateway.protocol.rate_limit import Bucket
from gateway.protocol.resumable_session import ResumableSession
from gateway.protocol.session import Limits, Session
from gateway.websocket.socket import ClosingSockets
from shared import errors
from shared.aio.iteration import iterate_yielding
from shared.protocol.bus import Message
from shared.protocol.client import Closed
from shared.protocol.protoo import notification_frame
from shared.settings import GatewaySettings
from shared.telemetry import log

if TYPE_CHECKING:
    from gateway.websocket.connection import Connection

SWEEP_EVERY: Final = 0.5
PING_SWEEPS: Final = 40
"""Sweeps between two looks at whether a client is alive; a dead one is gone after two to three times that."""
DEPENDENCY_SWEEPS: Final = 20
"""Sweeps without RabbitMQ or Redis after which requests are answered 503, those that have not left, too:
protoo-client waits 22 s for an answer, and then does not know what became of it."""
HELD_BYTES: Final = 256 * 1024 * 1024
"""Unapplied inputs kept for all sessions, beyond which whoever sends is not read, and nobody new let in."""


class Hub:
    def __init__(self, settings: GatewaySettings, gateway: str, inputs: InputPublisher, counters: Counters) -> None:
        self.settings = settings
        self.gateway = gateway
        self.counters = counters
        self.limits = Limits(items=settings.unapplied_limit)
        self.closing_sockets = ClosingSockets()
        self.calls = Calls(gateway, inputs)
        self.connections: dict[int, Connection] = {}
        self.paused: set[Connection] = set()
        self.held = 0
        self.draining = False
        self.empty = asyncio.Event()
        self.empty.set()
        self._inputs = inputs
        self._last_connection = 0
        self._last_accepted = 0
        self._sweeps = 0
        self._frames_seen = 0
        self.redis_answers = True
        self._down_sweeps = 0
        self._log = log.get("hub")

    @property
    def full(self) -> bool:
        return self.held > HELD_BYTES

    @property
    def dependencies_down(self) -> bool:
        """RabbitMQ or Redis has been away for so long that nobody should wait."""
        return self._down_sweeps >= DEPENDENCY_SWEEPS and not self._servers_answer

    @property
    def _servers_answer(self) -> bool:
        return self._inputs.connected and self.redis_answers

    # --- connections come and go ----------------------------------------------------------------------------

    def publisher_of(self, room: str) -> PartitionPublisher:
        return self._inputs.publisher_of(room)

    def session(self, room: str) -> Session:
        """For a socket about to be accepted; its number is never used again (DELIVERY O3)."""
        number = self._next_connection()
        return Session(room, f"{self.gateway}.{number}", number)

    def resumable(self, wanted: Wanted) -> ResumableSession:
        """The same for a client that can resume its session, or that is about to."""
        number = self._next_connection()
        return ResumableSession(
            wanted.room,
            f"{self.gateway}.{number}" if wanted.resume is None else wanted.resume.session,
            number,
            grace=self.settings.grace_seconds,
            resume=wanted.resume,
        )

    def _next_connection(self) -> int:
        self._last_connection += 1
        return self._last_connection

    def bucket(self, *, resumed: bool = False) -> Bucket | None:
        """What a new connection may send; None: as much as it wants.

        Who resumes has been away for the grace at most, and may say at once what he could have said in that time.
        """
        settings = self.settings
        if not settings.message_rate:
            return None
        extra = int(settings.message_rate * settings.grace_seconds) if resumed else 0
        return Bucket(settings.message_rate, settings.message_burst + extra, asyncio.get_running_loop().time)

    def opened(self, connection: "Connection") -> None:
        session = connection.session
        self.counters.connections_total += 1
        self.connections[session.connection] = connection
        self.empty.clear()
        connection.publisher.sources.add(session)
        # Never equal: of two connections of one peer the later stays (DELIVERY I7).
        self._last_accepted = max(self._last_accepted + 1, time.time_ns() // 1_000_000)
        session.connect(connection.peer, self._last_accepted)
        self.held += session.size
        connection.publisher.schedule(session)
        if self.draining:
            connection.close_as(errors.DRAINING)

    def closed(self, connection: "Connection") -> None:
        session = connection.session
        self.paused.discard(connection)
        before = session.size
        session.disconnect()
        self.held += session.size - before
        self.release_or_schedule(connection)

    def release_or_schedule(self, connection: "Connection") -> None:
        """Publishes what the session has, or lets it go if it is over."""
        session = connection.session
        if session.over:
            connection.publisher.sources.discard(session)
            if self.connections.pop(session.connection, None) and not self.connections:
                self.empty.set()
        else:
            connection.publisher.schedule(session)
            if connection.paused and session.within_half(self.limits) and not self.full:
                connection.resume_reading()

    def dropped(self, connection: "Connection", verdict: frame_validation.RejectedNotification) -> None:
        self.counters.reject_frame("dropped", verdict.code)
        if verdict.code == errors.TooMany.code:
            return  # `too_fast` has said so; a line for each would be a flood, too
        self._log.info(
            "notification dropped",
            session=connection.session.id,
            peer=connection.peer,
            code=verdict.code,
            reason=verdict.reason,
        )

    def too_fast(self, connection: "Connection", times: int) -> None:
        self.counters.rate_limited_total += 1
        if times == 1:
            self._log.warning("client sends too fast", session=connection.session.id, peer=connection.peer)

    def rooms_are_gone(self) -> None:
        """Nothing is left of any room: everybody is told `closed`, and may come anew (DELIVERY C7)."""
        for connection in list(self.connections.values()):
            connection.write(Message(notification_frame(Closed()), []))
            connection.close_as(errors.GONE)

    # --- time -----------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """To be called every `SWEEP_EVERY` seconds: one timer for all."""
        self._sweeps += 1
        turn = self._sweeps % PING_SWEEPS
        self.counters.pace(self.counters.frames_in_total - self._frames_seen)
        self._frames_seen = self.counters.frames_in_total
        self._down_sweeps = 0 if self._servers_answer else self._down_sweeps + 1
        self.closing_sockets.sweep()
        self.calls.sweep()
        if not self.full:
            for connection in [c for c in self.paused if c.session.within_half(self.limits)]:
                connection.resume_reading()
        async for connection in iterate_yielding(list(self.connections.values())):
            self._look_after(connection, turn)

    def _look_after(self, connection: "Connection", turn: int) -> None:
        session = connection.session
        if session.over:
            return  # since the sweep began
        if session.waiting and session.sweep():
            self.counters.republished_total += 1
            connection.publisher.schedule(session)
        if session.overdue:
            connection.close_as(errors.UNAVAILABLE)
        if self.dependencies_down and session.revocable and not session.closed:
            self._take_back(connection)
        if session.connection % PING_SWEEPS == turn and not session.closed:
            connection.check_alive()

    def _take_back(self, connection: "Connection") -> None:
        before = connection.session.size
        for id_ in connection.session.take_back():
            connection.answer_unavailable(id_)
        self.held += connection.session.size - before
