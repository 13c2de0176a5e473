"""One room in this worker's hands: loading, its runner, the commit under way, and what waits for them.

empty ──first job──▶ loading ──▶ live ⇄ committing
                        ▲          │
                        └──────────┘  stale, or a defect: drop the copy, read again, redo what is not committed
"""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Protocol

from roomworker.core.limits import Limits
from roomworker.core.room import Changes, Placement, Reply, Room
from roomworker.counters import Counts
from roomworker.runtime.executor import OnResult, Runner
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
    counts: Counts

    def choose_node(self) -> str | None: ...

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None: ...

    def report(self, gateway: str, applied: bus.Applied) -> None: ...

    def publish(self, changes: Changes, done: Callable[[], None]) -> None: ...

    def reply(self, gateway: str, reply: Reply) -> None: ...

    def want_load(self, slot: "Slot") -> None: ...

    def want_commit(self, slot: "Slot") -> None: ...

    def next_token(self) -> str: ...

    def keeps_all(self, slot: "Slot") -> bool:
        """Whether messages of the room may not have arrived for long, and none is to be trimmed."""
        ...


class Slot:
    def __init__(self, room: str, partition: int, host: Host, forget: Callable[["Slot"], None]) -> None:
        self.room = room
        self.partition = partition
        self._host = host
        self.counts = host.counts
        self._forget = forget
        self._runner: Runner | None = None
        self._jobs: dict[Job, None] = {}
        self._poisoned: set[Identity] = set()
        self._version = ""
        self._grave = ""
        self._pending: tuple[Runner, Changes, list[Job]] | None = None
        self._deleting = False
        self._publishing = 0
        self._on_live: list[Callable[[Runner], None]] = []
        self._dropped = False

    def gateways(self) -> set[str]:
        """The gateways that its sessions are connected to, as far as it is loaded."""
        sessions = self._runner.room.sessions.values() if self._runner else ()
        return {session.gateway for session in sessions if session.gateway}

    @property
    def content(self) -> Room | None:
        """The room, as far as it is loaded: to be looked at only."""
        return self._runner.room if self._runner else None

    @property
    def wants_time(self) -> bool:
        return self._runner is not None and self._runner.wants_time

    @property
    def placement(self) -> Placement | None:
        """Its place on a media node, as far as it is loaded."""
        return self._runner.room.meta.placement if self._runner else None

    @property
    def has_transports(self) -> bool:
        """Whether its media node has made any that still exists, as far as it is loaded."""
        return self._runner is not None and any(peer.transports for peer in self._runner.room.peers.values())

    def is_on(self, node: str, held: bus.Held) -> bool:
        """Whether it is loaded, and the router that the node has is its own."""
        return self._runner is not None and self._runner.room.is_on(node, held)

    # --- jobs -------------------------------------------------------------------------------------------------

    def receive(self, job: Job) -> None:
        self._jobs[job] = None
        if self._runner is not None:
            self._feed(self._runner, job)
            self._settle()
        else:
            self._load()

    def poison(self, job: Job) -> None:
        """Workers die with it: it is answered 500, or has no effect."""
        self._poisoned.add(job.identity)

    def when_live(self, call: Callable[[Runner], None]) -> None:
        """Runs `call` now or once the room is loaded: for what comes from time or other processes' death."""
        if self._runner is None:
            self._on_live.append(call)
            self._load()
            return
        self._run(call)
        self._settle()

    def _run(self, call: Callable[[Runner], None]) -> None:
        runner = self._runner
        assert runner is not None
        try:
            call(runner)
        except Exception:
            logger.exception("defect", room=self.room)
            self._reload()

    def _feed(self, runner: Runner, job: Job) -> None:
        try:
            runner.receive(job)
        except Defect as defect:
            self._failed(defect)

    def _failed(self, defect: Defect) -> None:
        """The message that did it is answered 500 when it is redone; all else is redone as if nothing had been."""
        logger.error("defect in a handler", room=self.room, item=defect.job.identity, exc_info=defect.__cause__)
        self.counts.defects_total += 1
        self._poisoned.add(defect.job.identity)
        self._reload()

    def _settle(self) -> None:
        """After anything that may have changed the room."""
        runner = self._runner
        if runner is None:
            return
        if self._pending is not None:
            return  # replies might tell of what is not committed, and are due again if it never is
        if runner.changed:
            self._host.want_commit(self)
            return
        for gateway, reply in runner.take_replies():
            self._host.reply(gateway, reply)
        for job in runner.take_finished():
            self.done(job)
        self._leave_if_unused(runner)

    def _leave_if_unused(self, runner: Runner) -> None:
        if not runner.room.empty or runner.changed or self._jobs or self._publishing or self._pending:
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
        if self._dropped or self._runner is not None:
            return
        incarnation, _, n = stored.version.partition(":")
        self._version, self._grave = stored.version, stored.grave
        try:
            room = load(
                self.room,
                self.partition,
                incarnation,
                int(n or 0),
                stored.fields,
                stored.gone,
                stored.answered,
                self._host.limits,
            )
        except Exception:  # whatever is wrong with it, it is wrong for this room only
            logger.exception("room cannot be read; its messages wait for a worker that can", room=self.room)
            return
        if not incarnation:
            room.incarnation = secrets.token_hex(8)
        self._start(room)

    def _start(self, room: Room) -> None:
        runner = self._runner = Runner(room, self, self._poisoned)
        for job in list(self._jobs):
            if self._runner is runner:
                self._feed(runner, job)
        calls, self._on_live = self._on_live, []
        for call in calls:
            if self._runner is runner:
                self._run(call)
        self._settle()

    def _reload(self) -> None:
        if self._runner is not None:
            self._runner.stop()
            self._runner = None
        self._deleting = False
        self._load()

    def drop(self) -> None:
        """This worker is done with the room (or lost it): what is not committed is somebody else's to redo."""
        if self._dropped:
            return
        self._dropped = True
        if self._runner is not None:
            self._runner.stop()
            self._runner = None
        self._forget(self)

    # --- committing -------------------------------------------------------------------------------------------

    def take(self) -> Commit | None:
        """The next commit of this room, if it still wants one."""
        runner = self._runner
        if runner is None or self._pending is not None:
            return None
        if self._deleting:
            return self._take_deletion(runner)
        if not runner.changed:
            return None
        changes, jobs = runner.take()
        self._pending = (runner, changes, jobs)
        return Commit(
            room=self.room,
            partition=self.partition,
            expected=self._version,
            version=f"{runner.room.incarnation}:{changes.n}",
            token=self._host.next_token(),
            fields=changes.fields,
            entry=_entry(changes),
            gone=changes.gone,
            answered=changes.answered,
            first=not self._version,
            grave="" if self._version else self._grave,
            keep_all=self._host.keeps_all(self),
        )

    def _take_deletion(self, runner: Runner) -> Commit | None:
        if runner.changed or self._jobs or not runner.room.empty:
            self._deleting = False
            return self.take()
        runner.stop()
        self._runner = None
        self._pending = (runner, Changes(runner.room.n), [])
        return Commit(
            room=self.room,
            partition=self.partition,
            expected=self._version,
            version="",
            token=self._host.next_token(),
            fields={},
            entry=None,
            gone={},
        )

    def settled(self, commit: Commit, status: Status) -> None:
        """The answer to the commit that `take` gave."""
        assert self._pending is not None
        runner, changes, jobs = self._pending
        self._pending = None
        if self._deleting:
            self._deleted()
            return
        if status == "STALE":
            logger.warning("somebody else has changed this room; reading it again", room=self.room)
            self._reload()
            return
        self._version = commit.version
        runner.committed(changes)
        self._publishing += 1
        self._host.publish(changes, partial(self._published, jobs))
        if self._runner is None:
            self._load()
        else:
            self._settle()

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
        if self._runner is not None:
            self._leave_if_unused(self._runner)

    # --- the runner's shell -----------------------------------------------------------------------------------

    def choose_node(self) -> str | None:
        return self._host.choose_node()

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        runner = self._runner

        def resumed(result: media.AnyResult) -> None:
            if self._runner is not runner:
                return
            try:
                on_result(result)
            except Defect as defect:
                self._failed(defect)
            except Exception:
                logger.exception("defect", room=self.room)
                self._reload()
            self._settle()

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
