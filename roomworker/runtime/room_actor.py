"""One room in this worker's hands: loading, its executor, the commit under way, and what waits for them.

empty ──first job──▶ loading ──▶ live ⇄ committing
                        ▲          │
                        └──────────┘  stale, or a defect: drop the copy, read again, redo what is not committed
"""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Protocol

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import Placement
from roomworker.core.room import Room
from roomworker.counters import Counters
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.session_queue import Defect, Identity, Job
from roomworker.storage.loader import load
from roomworker.storage.store import Commit, Status, Stored
from roomworker.storage.stream_entry import Entry, SentMessage
from shared.protocol import bus, media
from shared.telemetry import log

logger = log.get("room")


class Host(Protocol):
    """The worker, as a room sees it."""

    limits: Limits
    counters: Counters

    def choose_node(self) -> str | None: ...

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None: ...

    def report(self, gateway: str, applied: bus.Applied) -> None: ...

    def publish(self, changes: Changes, done: Callable[[], None]) -> None: ...

    def reply(self, gateway: str, reply: Reply) -> None: ...

    def want_load(self, actor: "RoomActor") -> None: ...

    def want_commit(self, actor: "RoomActor") -> None: ...

    def next_token(self) -> str: ...

    def keeps_all(self, actor: "RoomActor") -> bool:
        """Whether messages of the room may not have arrived for long, and none is to be trimmed."""
        ...


class RoomActor:
    def __init__(self, room: str, partition: int, host: Host, forget: Callable[["RoomActor"], None]) -> None:
        self.room = room
        self.partition = partition
        self._host = host
        self.counters = host.counters
        self._forget = forget
        self._executor: Executor | None = None
        self._jobs: dict[Job, None] = {}
        self._poisoned: set[Identity] = set()
        self._version = ""
        self._deletion_token = ""
        self._pending: tuple[Executor, Changes, list[Job]] | None = None
        self._deleting = False
        self._publishing = 0
        self._on_live: list[Callable[[Executor], None]] = []
        self._dropped = False

    def gateways(self) -> set[str]:
        """The gateways that its sessions are connected to, as far as it is loaded."""
        sessions = self._executor.room.sessions.values() if self._executor else ()
        return {session.gateway for session in sessions if session.gateway}

    @property
    def content(self) -> Room | None:
        """The room, as far as it is loaded: to be looked at only."""
        return self._executor.room if self._executor else None

    @property
    def wants_time(self) -> bool:
        return self._executor is not None and self._executor.wants_time

    @property
    def placement(self) -> Placement | None:
        """Its place on a media node, as far as it is loaded."""
        return self._executor.room.meta.placement if self._executor else None

    @property
    def has_transports(self) -> bool:
        """Whether its media node has made any that still exists, as far as it is loaded."""
        return self._executor is not None and any(peer.transports for peer in self._executor.room.peers.values())

    def is_on(self, node: str, held: bus.HeldRouter) -> bool:
        """Whether it is loaded, and the router that the node has is its own."""
        return self._executor is not None and self._executor.room.is_on(node, held)

    # --- jobs -------------------------------------------------------------------------------------------------

    def receive(self, job: Job) -> None:
        self._jobs[job] = None
        if self._executor is not None:
            self._feed(self._executor, job)
            self.release_or_schedule()
        else:
            self._load()

    def poison(self, job: Job) -> None:
        """Workers die with it: it is answered 500, or has no effect."""
        self._poisoned.add(job.identity)

    def when_live(self, call: Callable[[Executor], None]) -> None:
        """Runs `call` now or once the room is loaded: for what comes from time or other processes' death."""
        if self._executor is None:
            self._on_live.append(call)
            self._load()
            return
        self._run(call)
        self.release_or_schedule()

    def _run(self, call: Callable[[Executor], None]) -> None:
        executor = self._executor
        assert executor is not None
        try:
            call(executor)
        except Exception:
            logger.exception("defect", room=self.room)
            self._reload()

    def _feed(self, executor: Executor, job: Job) -> None:
        try:
            executor.receive(job)
        except Defect as defect:
            self._failed(defect)

    def _failed(self, defect: Defect) -> None:
        """The message that did it is answered 500 when it is redone; all else is redone as if nothing had been."""
        logger.error("defect in a handler", room=self.room, item=defect.job.identity, exc_info=defect.__cause__)
        self.counters.defects_total += 1
        self._poisoned.add(defect.job.identity)
        self._reload()

    def release_or_schedule(self) -> None:
        """After anything that may have changed the room."""
        executor = self._executor
        if executor is None:
            return
        if self._pending is not None:
            return  # replies might tell of what is not committed, and are due again if it never is
        if executor.changed:
            self._host.want_commit(self)
            return
        for gateway, reply in executor.take_replies():
            self._host.reply(gateway, reply)
        for job in executor.take_finished():
            self.done(job)
        self._leave_if_unused(executor)

    def _leave_if_unused(self, executor: Executor) -> None:
        if not executor.room.empty or executor.changed or self._jobs or self._publishing or self._pending:
            return
        if self._version and not self._deleting:
            self._deleting = True
            self._host.want_commit(self)
        elif not self._version:
            self.drop()

    # --- loading ----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._pending is None and not self._dropped:
            self._host.want_load(self)

    def loaded(self, stored: Stored) -> None:
        """What Redis has of the room, asked for by `want_load`."""
        if self._dropped or self._executor is not None:
            return
        incarnation, _, n = stored.version.partition(":")
        self._version, self._deletion_token = stored.version, stored.deletion_token
        try:
            room = load(
                self.room,
                self.partition,
                incarnation,
                int(n or 0),
                stored.fields,
                stored.closed_sessions,
                stored.answered_calls,
                self._host.limits,
            )
        except Exception:  # whatever is wrong with it, it is wrong for this room only
            logger.exception("room cannot be read; its messages wait for a worker that can", room=self.room)
            return
        if not incarnation:
            room.incarnation = secrets.token_hex(8)
        self._start(room)

    def _start(self, room: Room) -> None:
        executor = self._executor = Executor(room, self, self._poisoned)
        for job in list(self._jobs):
            if self._executor is executor:
                self._feed(executor, job)
        calls, self._on_live = self._on_live, []
        for call in calls:
            if self._executor is executor:
                self._run(call)
        self.release_or_schedule()

    def _reload(self) -> None:
        if self._executor is not None:
            self._executor.stop()
            self._executor = None
        self._deleting = False
        self._load()

    def drop(self) -> None:
        """This worker is done with the room (or lost it): what is not committed is somebody else's to redo."""
        if self._dropped:
            return
        self._dropped = True
        if self._executor is not None:
            self._executor.stop()
            self._executor = None
        self._forget(self)

    # --- committing -------------------------------------------------------------------------------------------

    def take(self) -> Commit | None:
        """The next commit of this room, if it still wants one."""
        executor = self._executor
        if executor is None or self._pending is not None:
            return None
        if self._deleting:
            return self._take_deletion(executor)
        if not executor.changed:
            return None
        changes, jobs = executor.take()
        self._pending = (executor, changes, jobs)
        return Commit(
            room=self.room,
            partition=self.partition,
            expected=self._version,
            version=f"{executor.room.incarnation}:{changes.n}",
            token=self._host.next_token(),
            fields=changes.fields,
            entry=_entry(changes),
            closed_sessions=changes.closed_sessions,
            answered_calls=changes.answered_calls,
            first=not self._version,
            deletion_token="" if self._version else self._deletion_token,
            keep_all=self._host.keeps_all(self),
        )

    def _take_deletion(self, executor: Executor) -> Commit | None:
        if executor.changed or self._jobs or not executor.room.empty:
            self._deleting = False
            return self.take()
        executor.stop()
        self._executor = None
        self._pending = (executor, Changes(executor.room.n), [])
        return Commit(
            room=self.room,
            partition=self.partition,
            expected=self._version,
            version="",
            token=self._host.next_token(),
            fields={},
            entry=None,
            closed_sessions={},
        )

    def commit_answered(self, commit: Commit, status: Status) -> None:
        """The answer to the commit that `take` gave."""
        assert self._pending is not None
        executor, changes, jobs = self._pending
        self._pending = None
        if self._deleting:
            self._deleted()
            return
        if status == "STALE":
            logger.warning("somebody else has changed this room; reading it again", room=self.room)
            self._reload()
            return
        self._version = commit.version
        executor.committed(changes)
        self._publishing += 1
        self._host.publish(changes, partial(self._published, jobs))
        if self._executor is None:
            self._load()
        else:
            self.release_or_schedule()

    def _deleted(self) -> None:
        self._deleting = False
        self._version = ""
        if self._jobs or self._on_live:
            self._load()
        else:
            self.drop()

    def _published(self, jobs: list[Job]) -> None:
        self._publishing -= 1
        for job in jobs:
            self.done(job)
        if self._executor is not None:
            self._leave_if_unused(self._executor)

    # --- the executor's shell -----------------------------------------------------------------------------------

    def choose_node(self) -> str | None:
        return self._host.choose_node()

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        executor = self._executor

        def resumed(result: media.AnyResult) -> None:
            if self._executor is not executor:
                return
            try:
                on_result(result)
            except Defect as defect:
                self._failed(defect)
            except Exception:
                logger.exception("defect", room=self.room)
                self._reload()
            self.release_or_schedule()

        self._host.ask(node, request, resumed)

    def report(self, gateway: str, applied: bus.Applied) -> None:
        self._host.report(gateway, applied)

    def done(self, job: Job) -> None:
        if job in self._jobs:
            del self._jobs[job]
            self._poisoned.discard(job.identity)
            job.done()


def _entry(changes: Changes) -> Entry | None:
    if not changes.messages and not changes.orders:
        return None
    messages = [
        SentMessage(message.body, [(session.id, out) for session, out in message.to], message.close)
        for message in changes.messages
    ]
    return Entry(messages, changes.orders)
