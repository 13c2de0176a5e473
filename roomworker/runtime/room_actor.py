"""The actor of one room: loads it, drives its executor, commits, and starts again when a commit is refused.

empty ──first job──▶ loading ──▶ live ⇄ committing
                    ▲   │  ▲       │
                    │   │  └───────┘  stale, or a defect: drop the copy, read again, redo what is not committed
       after a while└── unreadable    what is stored is not a room: jobs are put off, gateways send theirs again
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from roomworker.core.journal import Changes
from roomworker.core.model import Placement
from roomworker.core.room import Room
from roomworker.counters import CommitStatus
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.room_log import RoomLog
from roomworker.runtime.services import RoomServices
from roomworker.runtime.session_queue import Defect, Identity, Job
from roomworker.storage.loader import load_stored, trace_of
from roomworker.storage.port import Commit, Stored
from roomworker.storage.stream_entry import entry_of
from shared.errors import REASON_CHARS, Unavailable, cut
from shared.protocol import bus, media
from shared.telemetry import log

RETRY_UNREADABLE_AFTER: Final = 10.0
"""Seconds after which a room that could not be read is read again."""
EVENTS_KEPT: Final = 256
"""Events of media nodes that wait for a room that cannot be read: media nodes do not repeat them."""

_UNREADABLE: Final = b"the room cannot be read: try again later"

logger = log.get("room")


@dataclass(slots=True)
class _Pending:
    """The commit under way, with the jobs and log events that it completes."""

    executor: Executor
    changes: Changes
    jobs: list[Job] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class RoomActor:
    """One room that this worker serves, until it calls `forget`, once."""

    def __init__(
        self, room: str, partition: int, services: RoomServices, forget: Callable[["RoomActor"], None]
    ) -> None:
        self.room = room
        self.partition = partition
        self.unreadable = ""
        """The reason why the stored room could not be read; empty if it could, or was not tried."""
        self._services = services
        self._forget = forget
        self._log = RoomLog(room, partition, services.counters)
        self._executor: Executor | None = None
        self._jobs: dict[Job, None] = {}
        self._poisoned: set[Identity] = set()
        self._version = ""
        self._deletion_token = ""
        self._pending: _Pending | None = None
        self._deleting = False
        self._publishing = 0
        self._calls_when_live: list[Callable[[Executor], None]] = []
        self._retry_at = 0.0
        self._closed = False

    def gateways(self) -> set[str]:
        """Returns the gateways that the room's sessions are connected to; none while it is not loaded."""
        sessions = self._executor.room.sessions.values() if self._executor else ()
        return {session.gateway for session in sessions if session.gateway}

    @property
    def loaded_room(self) -> Room | None:
        """The room, for reading only; None while it is not loaded."""
        return self._executor.room if self._executor else None

    @property
    def needs_ticks(self) -> bool:
        """Whether anything in the room may become due by time."""
        return self._executor is not None and self._executor.needs_ticks

    @property
    def placement(self) -> Placement | None:
        """The room's place on a media node; None if it has none or is not loaded."""
        return self.loaded_room.meta.placement if self.loaded_room else None

    @property
    def has_transports(self) -> bool:
        """Whether the room is loaded and any of its peers has a transport."""
        return self._executor is not None and any(peer.transports for peer in self._executor.room.peers.values())

    def is_on(self, node: str, held: bus.HeldRouter) -> bool:
        """Whether the room is loaded and the router that the node holds is its own."""
        return self._executor is not None and self._executor.room.is_on(node, held)

    # --- jobs -------------------------------------------------------------------------------------------------

    def receive(self, job: Job) -> None:
        """Takes a job; `job.done` is called once its effect is committed and published, or it has none."""
        self._jobs[job] = None
        if self._executor is not None:
            self._execute(self._executor, job)
            self._release_or_schedule()
        elif self.unreadable:
            self._postpone(job)
        else:
            self._load()

    def mark_as_poison(self, job: Job) -> None:
        """Marks a job with which workers died: it will be answered 500, or have no effect."""
        self._poisoned.add(job.identity)

    def when_live(self, call: Callable[[Executor], None]) -> None:
        """Runs `call` now or once the room is loaded, on behalf of a tick, a report or another process's death.

        While the room cannot be read, calls are dropped: their callers repeat them.
        """
        if self._executor is not None:
            self._run(call)
            self._release_or_schedule()
        elif not self.unreadable:
            self._calls_when_live.append(call)
            self._load()

    def announce(self) -> None:
        """Reports to gateways what is committed of their sessions, after another worker served the room."""
        self.when_live(self._announce)

    def _announce(self, executor: Executor) -> None:
        if executor.room.exists:
            self._log.taken_over(executor.room)
        executor.announce()

    def _run(self, call: Callable[[Executor], None]) -> None:
        executor = self._executor
        assert executor is not None
        try:
            call(executor)
        except Exception:
            logger.exception("room.defect", room=self.room)
            self._reload()

    def _execute(self, executor: Executor, job: Job) -> None:
        try:
            executor.receive(job)
        except Defect as defect:
            self._handle_defect(defect)

    def _handle_defect(self, defect: Defect) -> None:
        """Reads the room again: the message that met the defect is answered 500, all others are done again."""
        logger.error("room.defect", room=self.room, item=defect.job.identity, exc_info=defect.__cause__)
        self._services.counters.defects_total += 1
        self._poisoned.add(defect.job.identity)
        self._reload()

    def _release_or_schedule(self) -> None:
        """Schedules a commit if the room has changed, else ends the jobs that need none."""
        executor = self._executor
        if executor is None:
            return
        if self._pending is not None:
            return  # replies might report what is not committed yet, and are due again if it never is
        if executor.changed:
            self._services.committer.want_commit(self)
            return
        for gateway, reply in executor.take_replies():
            self._services.outbox.send(gateway, reply)
        for job in executor.take_finished():
            self._finish(job)
        self._close_if_unused(executor)

    def _close_if_unused(self, executor: Executor) -> None:
        if executor.room.exists or executor.changed or self._jobs or self._publishing or self._pending:
            return
        if self._version and not self._deleting:
            self._deleting = True
            self._services.committer.want_commit(self)
        elif not self._version:
            self.close()

    # --- loading ----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._pending is None and not self._closed:
            self._services.committer.want_load(self)

    def loaded(self, stored: Stored) -> None:
        """Takes what is stored of the room, after `want_load`."""
        if self._closed or self._executor is not None:
            return
        if stored.unreadable:
            logger.error("room.unreadable", room=self.room, partition=self.partition, error=stored.unreadable)
            self._set_unreadable(stored.unreadable)
            return
        self._version, self._deletion_token = stored.version, stored.deletion_token
        services = self._services
        try:
            room = load_stored(self.room, self.partition, stored, services.limits, services.total)
        except Exception as broken:  # a fault of this room must not reach the others
            logger.exception("room.unreadable", room=self.room, partition=self.partition)
            self._set_unreadable(repr(broken))
            return
        if not room.incarnation:
            room.incarnation = secrets.token_hex(8)
        self._log.loaded(room)
        self._start(room)

    def _start(self, room: Room) -> None:
        if self.unreadable:
            logger.info("room.readable", room=self.room, partition=self.partition)
            self.unreadable = ""
            self._calls_when_live.append(Executor.announce)
        executor = self._executor = Executor(room, self._services, self._poisoned, self._ask, self._finish)
        for job in list(self._jobs):
            if self._executor is executor:
                self._execute(executor, job)
        calls, self._calls_when_live = self._calls_when_live, []
        for call in calls:
            if self._executor is executor:
                self._run(call)
        self._release_or_schedule()

    def _reload(self) -> None:
        self._stop()
        self._deleting = False
        self._load()

    def _stop(self) -> None:
        if self._executor is not None:
            self._executor.stop()
            self._executor = None

    def close(self) -> None:
        """Gives the room up; jobs that are not committed are redone by the next worker that gets them."""
        if self._closed:
            return
        self._closed = True
        self._stop()
        self._forget(self)

    # --- unreadable rooms -----------------------------------------------------------------------------------------

    def _set_unreadable(self, reason: str) -> None:
        if self._closed:
            return
        self.unreadable = cut(reason, REASON_CHARS)
        self._retry_at = self._services.clock() + RETRY_UNREADABLE_AFTER
        self._stop()
        self._deleting = False
        self._calls_when_live.clear()
        for job in list(self._jobs):
            self._postpone(job)

    def _postpone(self, job: Job) -> None:
        """Ends a job of an unreadable room, so that its delivery is acknowledged and the partition goes on.

        Gateways send their messages again until these are reported applied. A call of the server API is answered 503.
        """
        if job.done is _already_acknowledged:
            return
        if isinstance(job.item, bus.Call):
            self._services.outbox.send(job.item.reply_to, bus.CallAnswer(job.item.n, Unavailable.code, _UNREADABLE))
        elif isinstance(job.item, bus.MediaEvent) and len(self._jobs) <= EVENTS_KEPT:
            self._jobs[Job(job.item, job.origin, _already_acknowledged)] = None
        self._finish(job)

    def retry(self) -> None:
        """Loads an unreadable room again every `RETRY_UNREADABLE_AFTER`; to be called every second or so."""
        if self.unreadable and self._services.clock() >= self._retry_at:
            self._retry_at = self._services.clock() + RETRY_UNREADABLE_AFTER
            self._load()

    # --- committing -------------------------------------------------------------------------------------------

    def next_commit(self) -> Commit | None:
        """Returns the next commit of this room; None if nothing has changed or a commit is under way."""
        executor = self._executor
        if executor is None or self._pending is not None:
            return None
        if self._deleting:
            return self._next_deletion(executor)
        if not executor.changed:
            return None
        changes, jobs = executor.take()
        first = not self._version
        self._pending = _Pending(executor, changes, jobs, self._log.events_of(executor.room, changes, first=first))
        services = self._services
        return Commit(
            room=self.room,
            partition=self.partition,
            expected=self._version,
            version=f"{executor.room.incarnation}:{changes.n}",
            token=services.next_token(),
            fields=changes.fields,
            entry=entry_of(changes),
            closed_sessions=changes.closed_sessions,
            answered_calls=changes.answered_calls,
            first=first,
            deletion_token=self._deletion_token if first else "",
            keep_sent_ms=services.retention.keep_ms(self.gateways, services.clock()),
        )

    def _next_deletion(self, executor: Executor) -> Commit | None:
        if executor.changed or self._jobs or executor.room.exists:
            self._deleting = False
            return self.next_commit()
        self._stop()
        self._pending = _Pending(executor, Changes(executor.room.n))
        place = self.room, self.partition, self._version, "", self._services.next_token()
        return Commit(*place, fields={}, entry=None, closed_sessions={}, trace=trace_of(executor.room))

    def commit_answered(self, commit: Commit, status: CommitStatus) -> None:
        """Takes the store's answer to the commit that `next_commit` returned."""
        pending, self._pending = self._pending, None
        assert pending is not None
        if status == "FAILED":
            self._set_unreadable("the store refuses to write it")
        elif self._deleting:
            self._deleted(status)
        elif status == "STALE":
            logger.warning("room.stale", room=self.room, partition=self.partition)
            self._reload()
        else:
            self._committed(commit, pending)

    def _committed(self, commit: Commit, pending: _Pending) -> None:
        self._version = commit.version
        pending.executor.committed(pending.changes)
        self._log.committed(pending.events)
        self._publishing += 1
        self._services.outbox.send_changes(pending.changes, partial(self._published, pending.jobs))
        if self._executor is None:
            self._load()
        else:
            self._release_or_schedule()

    def _deleted(self, status: CommitStatus) -> None:
        self._deleting = False
        self._version = ""
        if status != "STALE":
            self._log.ended()
        if self._jobs or self._calls_when_live:
            self._load()
        else:
            self.close()

    def _published(self, jobs: list[Job]) -> None:
        self._publishing -= 1
        for job in jobs:
            self._finish(job)
        if self._executor is not None:
            self._close_if_unused(self._executor)

    # --- media requests and jobs ----------------------------------------------------------------------------------

    def _ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        executor = self._executor

        def resumed(result: media.AnyResult) -> None:
            if self._executor is not executor:
                return
            try:
                on_result(result)
            except Defect as defect:
                self._handle_defect(defect)
            except Exception:
                logger.exception("room.defect", room=self.room)
                self._reload()
            self._release_or_schedule()

        self._services.media.ask(node, request, resumed, self._services.clock())

    def _finish(self, job: Job) -> None:
        if job in self._jobs:
            del self._jobs[job]
            self._poisoned.discard(job.identity)
            job.done()


def _already_acknowledged() -> None:
    """Does nothing when a job is done whose delivery was acknowledged before."""
