"""Drives one room's messages through the handlers, in the order of their numbers.

The executor does no I/O: its owner gives it items and results, and takes from it what is to be committed. Messages
of one session are handled one after another; those of different sessions may overlap during media requests.
"""

import logging
from collections.abc import Callable, Generator
from functools import partial
from time import perf_counter
from typing import TypeAlias, TypeVar, cast

from roomworker.core import api_calls, dispatch, media_events, resumption, sessions, teardown
from roomworker.core.dispatch import Handled
from roomworker.core.journal import Changes, Reply
from roomworker.core.media_steps import Place, Placed, Step, Steps, resume_failing, resume_with
from roomworker.core.model import ClosedSession, Session
from roomworker.core.room import Room
from roomworker.counters import OK
from roomworker.runtime.services import RoomServices
from roomworker.runtime.session_queue import Defect, Identity, Job, SessionQueue, input_number
from roomworker.runtime.stats_requests import StatsRequests
from shared.errors import SESSION_UNKNOWN, CloseKind, InternalError, PlenaryError, Unavailable, error
from shared.protocol import bus, client, media, protoo
from shared.telemetry import log

logger = log.get("room")

T = TypeVar("T")
OnResult: TypeAlias = Callable[[media.AnyResult], None]
Ask: TypeAlias = Callable[[str, media.AnyRequest, OnResult], None]
Done: TypeAlias = Callable[[Job], None]


class Executor:
    """Handles the items of one room in memory and gathers what they change until it is taken for a commit.

    `ask` sends a request to a media node: its callback is called exactly once, later, with a `media.Failed` if no
    answer comes in time. `done` is called with jobs that need no commit. `poisoned` jobs must not be run again.
    """

    def __init__(self, room: Room, services: RoomServices, poisoned: set[Identity], ask: Ask, done: Done) -> None:
        self.room = room
        self._services = services
        self._counters = services.counters
        self._poisoned = poisoned
        self._ask_node = ask
        self._done = done
        self._stats = StatsRequests(room, ask)
        self._logs_requests = log.is_enabled(logging.DEBUG)
        self._queues = {session.id: SessionQueue(session) for session in room.sessions.values()}
        self._committed = {
            session.id: ClosedSession(session.n_in, session.n_out) for session in room.sessions.values()
        }
        self._closed_sessions = dict(room.closed_sessions)
        self._finished: list[Job] = []
        self._now = 0
        self._alive = True

    # --- in ---------------------------------------------------------------------------------------------------

    def receive(self, job: Job) -> None:
        """Handles one item, or queues it behind its session's earlier ones. Raises `Defect`."""
        item = job.item
        if job.identity in self._poisoned and not isinstance(item, bus.Input):
            if isinstance(item, bus.Call):
                api_calls.reject(self.room, item, InternalError("this call met a defect of the server"))
            self._finished.append(job)
            return
        match item:
            case bus.MediaEvent():
                self._guarded(job, partial(media_events.apply, self.room, item, self._room_time))
                self._finished.append(job)
            case bus.Call():
                self._guarded(job, partial(api_calls.handle, self.room, item))
                self._finished.append(job)
                self._drop_queues()
            case bus.Resume():
                self._guarded(job, partial(resumption.resume, self.room, job.origin, item))
                self._finished.append(job)
            case bus.ConnectionLost():
                self._guarded(job, partial(resumption.connection_lost, self.room, job.origin, item, self._room_time))
                self._finished.append(job)
                self._drop_queues()
            case bus.Connect():
                self._guarded(job, partial(self._connect, job, item))
            case bus.Disconnect():
                if (queue := self._queue_expecting(job, item)) is not None:
                    self._guarded(job, partial(self._disconnect, queue, job, item))
            case bus.Input() | bus.RejectedInput():
                self.report_released(job.origin, item)
                if (queue := self._queue_expecting(job, item)) is not None:
                    queue.received = item.n
                    queue.waiting.append(job)
                    self._run(queue)

    def _connect(self, job: Job, item: bus.Connect) -> None:
        if item.session in self.room.sessions or item.session in self.room.closed_sessions:
            self._handle_duplicate(job, item)
            return
        session = sessions.connect(self.room, job.origin, item)
        self._drop_queues()
        if session.id in self.room.sessions:
            self._queues[session.id] = SessionQueue(session)
        self._finished.append(job)

    def _queue_expecting(self, job: Job, item: bus.SessionItem) -> SessionQueue | None:
        """Returns the session's queue if `item` is its next input; else ends the job and reports to the gateway."""
        queue = self._queues.get(item.session)
        n = input_number(item)
        if queue is not None and n == queue.received + 1:
            return queue
        if queue is not None and n > queue.received:
            self._report(queue.session, again=True)
            self._done(job)
        elif queue is None and item.session not in self.room.closed_sessions:
            self._services.outbox.send(job.origin, bus.Applied(item.connection, item.session, -1, 0))
            self._done(job)
        else:
            self._handle_duplicate(job, item)
        return None

    def _handle_duplicate(self, job: Job, item: bus.SessionItem) -> None:
        """Ends the job of an item that came before; reports again what is committed, as the gateway missed it."""
        queue = self._queues.get(item.session)
        if queue is not None:
            if isinstance(item, bus.Connect):
                self.report_released(job.origin, item)
            self._report(queue.session)
        elif (closed := self._closed_sessions.get(item.session)) is not None:
            n = max(closed.n_in, input_number(item))
            self._services.outbox.send(job.origin, bus.Applied(item.connection, item.session, n, closed.n_out))
        self._done(job)

    def _report(self, session: Session, *, again: bool = False) -> None:
        committed = self._committed.get(session.id)
        if committed is not None and session.gateway:
            self._services.outbox.send(
                session.gateway,
                bus.Applied(session.connection, session.id, committed.n_in, committed.n_out, again),
            )

    def position(self, session_id: str) -> ClosedSession | None:
        """Returns a session's last committed numbers; None if there is no such session, or none are committed."""
        return self._committed.get(session_id) or self._closed_sessions.get(session_id)

    def report_released(self, gateway: str, item: bus.SessionItem | bus.Replay) -> bool:
        """Reports `released` to the gateway if its connection is not the session's any more; returns whether it did.

        The gateway may have been taken for dead while it had no queue. Nothing that it sends is lost.
        """
        session = self.room.sessions.get(item.session)
        if session is None or not session.token:
            return False
        if (session.gateway, session.connection) == (gateway, item.connection):
            return False
        self.room.reply_link(gateway, bus.Link(item.connection, item.session, "released"))
        return True

    def announce(self) -> None:
        """Reports to every session's gateway what is committed: after a takeover it fetches what it missed."""
        for session in self.room.sessions.values():
            self._report(session)

    def gateway_died(self, gateway: str) -> None:
        """Detaches or closes the sessions of a gateway that has died, as if their sockets had closed.

        Should the gateway live after all, it closes the sockets: it gets the sessions' close code, or their release.
        """
        for session in [s for s in self.room.sessions.values() if s.gateway == gateway]:
            if session.token:
                self.room.reply_link(gateway, bus.Link(session.connection, session.id, "released"))
                resumption.detach(self.room, session, self._room_time)
            else:
                teardown.close_session_by_server(self.room, session, SESSION_UNKNOWN)
        self._drop_queues()

    @property
    def needs_ticks(self) -> bool:
        """Whether anything in the room may become due by time."""
        room = self.room
        return (
            bool(room.stats_due)
            or room.meta.created is not None
            or any(session.lost_at is not None for session in room.sessions.values())
        )

    @property
    def _room_time(self) -> int:
        """The partition's time at its last tick, ms; 0: unknown. A room in which nothing is due gets no ticks."""
        return max(self._now, self._services.room_time[self.room.partition])

    def tick(self, now: int, grace: int = resumption.GRACE) -> None:
        """Does what is due at `now`, ms, room time; `grace`: ms that a session may be without a connection."""
        self._now = now
        api_calls.expire_idle_room(self.room, now)
        for session in resumption.close_expired(self.room, now, grace):
            logger.info("session.expired", room=self.room.name, peer=session.peer, session=session.id)
        self._drop_queues()
        self._stats.request_due(now)

    def end_room(self, why: CloseKind) -> None:
        """Ends the room: every socket is closed with the code of `why`."""
        teardown.close_room_by_server(self.room, why=why)
        self._drop_queues()

    def node_died(self) -> None:
        """Takes the room off its media node, which has died."""
        teardown.lose_media_node(self.room)

    def router_reported(self, node: str, held: bus.HeldRouter) -> None:
        """Closes a router that a media node made for the room, unless it is the room's own (DELIVERY T3)."""
        if not self.room.is_on(node, held):
            logger.info("router.closed_foreign", room=self.room.name, node=node, epoch=held.epoch)
            self.room.close_foreign_router(node, held)

    # --- handling ---------------------------------------------------------------------------------------------

    def _disconnect(self, queue: SessionQueue, job: Job, item: bus.Disconnect) -> None:
        """Closes the session; its jobs under way are given up, since no client waits for their answers."""
        queue.session.n_in = item.n
        teardown.close_session(self.room, queue.session)
        self._drop_queues()
        self._finished.append(job)

    def _drop_queues(self) -> None:
        """Gives up the jobs of sessions that are closed."""
        for session_id in self._queues.keys() - self.room.sessions.keys():
            self._finished.extend(self._queues.pop(session_id).abandon())

    def _run(self, queue: SessionQueue) -> None:
        while queue.job is None and queue.waiting:
            job = queue.job = queue.waiting.popleft()
            queue.began = perf_counter()
            item = cast("bus.Input | bus.RejectedInput", job.item)
            if isinstance(item, bus.RejectedInput):
                queue.kind = None
                self._finish(queue, error(item.code, item.reason))
                continue
            handled = self._guarded(job, partial(self._start, queue, item))
            if isinstance(handled, Generator):
                queue.steps = handled
                self._step(queue, partial(next, handled))
            else:
                self._finish(queue, handled)

    def _start(self, queue: SessionQueue, item: bus.Input) -> Handled | PlenaryError:
        if (item.session, item.n) in self._poisoned:
            queue.kind = dispatch.intended_kind(item)
            return InternalError("this message met a defect of the server")
        try:
            message = dispatch.read(item)
        except PlenaryError as refused:
            queue.kind = dispatch.intended_kind(item)
            return refused
        queue.kind = type(message)
        self.room.now = self._services.room_time[self.room.partition]
        try:
            return dispatch.handle(self.room, queue.session, message)
        except PlenaryError as refused:
            return refused

    def _step(self, queue: SessionQueue, resume: Callable[[], Step]) -> None:
        """Resumes the queue's handler until it waits for the media node or has ended."""
        job, steps = queue.job, queue.steps
        assert job is not None
        assert steps is not None
        outcome: client.AnyAnswer | PlenaryError
        while True:
            try:
                step = self._guarded(job, resume)
            except StopIteration as end:
                outcome = end.value
                break
            except PlenaryError as refused:
                outcome = refused
                break
            if isinstance(step, Place):
                node = self._services.choose_node()
                if node is None:
                    resume = resume_failing(steps, Unavailable("no media node is available: try again later"))
                else:
                    resume = resume_with(steps, Placed(node, self._room_time))
                continue
            self._ask(queue, steps, step)
            return
        queue.steps = None
        self._finish(queue, outcome)

    def _ask(self, queue: SessionQueue, steps: Steps[client.AnyAnswer], request: media.AnyRequest) -> None:
        def on_result(result: media.AnyResult) -> None:
            if not self._alive or queue.steps is not steps:
                return
            if isinstance(result, media.Failed):
                self._step(queue, resume_failing(steps, error(result.code, result.reason)))
            else:
                self._step(queue, resume_with(steps, result))
            self._run(queue)

        placement = self.room.meta.placement
        assert placement is not None  # `request.router` could not have been made without
        self._ask_node(placement.node, request, on_result)

    def _finish(self, queue: SessionQueue, outcome: client.AnyAnswer | PlenaryError) -> None:
        job, session = queue.job, queue.session
        assert job is not None
        item = cast("bus.Input | bus.RejectedInput", job.item)
        queue.job = None
        sent = self.room.sent_bytes
        session.n_in = item.n
        self.room.save_session(session)
        if not isinstance(outcome, PlenaryError):
            self._counters.handled[queue.kind] = self._counters.handled.get(queue.kind, 0) + 1
            if item.id is not None:
                self.room.send(session, protoo.answer_frame(item.id, outcome))
        else:
            self._counters.count_rejection(queue.kind, outcome.code)
            if item.id is not None:
                self.room.send(session, protoo.error_frame(item.id, outcome))
        self._count_sent(session.id, self.room.sent_bytes - sent)
        if self._logs_requests:
            self._log(queue, outcome)
        self._finished.append(job)
        self._stats.request_first()

    def _log(self, queue: SessionQueue, outcome: client.AnyAnswer | PlenaryError) -> None:
        refused = outcome if isinstance(outcome, PlenaryError) else None
        logger.debug(
            "request.handled",
            room=self.room.name,
            peer=queue.session.peer,
            session=queue.session.id,
            method=client.method_of(queue.kind) if queue.kind else "other",
            code=refused.code if refused else OK,
            seconds=round(perf_counter() - queue.began, 6),
            **({"reason": refused.reason} if refused else {}),
        )

    def _guarded(self, job: Job, call: Callable[[], T]) -> T:
        """Calls a handler; any exception that is not an answer to the client becomes a `Defect`.

        What it sends is counted as sent on behalf of the job's session.
        """
        sent = self.room.sent_bytes
        try:
            return call()
        except (PlenaryError, StopIteration):
            raise
        except Exception as defect:
            raise Defect(job) from defect
        finally:
            if isinstance(job.item, bus.Input):
                self._count_sent(job.item.session, self.room.sent_bytes - sent)

    def _count_sent(self, session_id: str, sent: int) -> None:
        """Counts bytes times receivers that were sent on behalf of a session."""
        if sent and (session := self.room.sessions.get(session_id)) is not None:
            self.room.fan_out.spend(session.peer, sent, self.room.now)
            self._counters.fan_out_bytes_total += sent

    # --- out --------------------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        return self.room.changed

    def take(self) -> tuple[Changes, list[Job]]:
        """Returns what is to be committed, and the jobs whose effect that is."""
        finished, self._finished = self._finished, []
        return self.room.take(), finished

    def take_finished(self) -> list[Job]:
        """Returns the jobs that are done and changed nothing."""
        finished, self._finished = self._finished, []
        return finished

    def take_replies(self) -> list[tuple[str, Reply]]:
        """Returns the replies to gateways, by their ids."""
        return self.room.take_replies()

    def committed(self, changes: Changes) -> None:
        """Notes which numbers are committed now."""
        for session, n_in, n_out in changes.applied:
            if session.id in self._queues:
                self._committed[session.id] = ClosedSession(n_in, n_out)
            else:
                self._committed.pop(session.id, None)
        for session_id, closed in changes.closed_sessions.items():
            if closed is None:
                self._closed_sessions.pop(session_id, None)
            else:
                self._closed_sessions[session_id] = closed

    def stop(self) -> None:
        """Gives the room in memory up: handlers under way end without effect, results are ignored."""
        self._alive = False
        self._stats.stop()
        for queue in self._queues.values():
            queue.abandon()
