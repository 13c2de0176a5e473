"""A worker by hand: what rooms and partitions ask of it is done when the test says."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import ClosedSession
from roomworker.counters import CommitStatus, Counters
from roomworker.partitions.partition import Partition, PartitionCallbacks
from roomworker.runtime.executor import OnResult
from roomworker.runtime.room_actor import RoomActor
from roomworker.runtime.services import RoomServices
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import Commit
from roomworker.storage.retention import Retention
from shared.protocol import bus, media
from tests.unit.roomworker.harness_client import Output
from tests.unit.roomworker.room_harness import result_of


class FakeWorker:
    """Several of these with one store are several workers."""

    def __init__(self, store: MemoryStore | None = None, name: str = "worker") -> None:
        self.store = store or MemoryStore()
        self.stream: dict[str, list[Output]] = {}
        """The messages that this worker sent to each session."""
        self.spawned: list[asyncio.Task[None]] = []
        self.node: str | None = "node"
        self.now = 0.0
        self.loads: list[RoomActor] = []
        self.commits: list[RoomActor] = []
        self.published: list[tuple[Changes, Callable[[], None]]] = []
        self.asked: list[tuple[media.AnyRequest, OnResult]] = []
        self.reports: list[bus.Applied] = []
        self.replies: list[Reply] = []
        self.counters = Counters()
        self.activations = 0
        self.ticks: list[bus.Tick] = []
        self.replays: list[bus.Replay] = []
        self.node_reports: list[bus.NodeReport] = []
        self.forgotten: list[RoomActor] = []
        self.services = self._make_services(name)
        self.handlers = PartitionCallbacks(self._activated, self._ticked, self._reported, self._replay)

    def _make_services(self, name: str) -> RoomServices:
        outbox: Any = SimpleNamespace(
            send=self._send, send_changes=lambda changes, done: self.published.append((changes, done))
        )
        media_client: Any = SimpleNamespace(
            ask=lambda _node, request, on_result, _now: self.asked.append((request, on_result))
        )
        committer: Any = SimpleNamespace(want_load=self._want_load, want_commit=self._want_commit)
        return RoomServices(
            worker=name,
            limits=Limits(),
            counters=self.counters,
            outbox=outbox,
            media=media_client,
            committer=committer,
            retention=Retention(15.0, 0.0),
            choose_node=lambda: self.node,
            clock=lambda: self.now,
        )

    def actor(self, room: str = "room") -> RoomActor:
        return RoomActor(room, 0, self.services, self.forgotten.append)

    def partition(self, number: int = 3) -> Partition:
        return Partition(number, self.services, self.store, self.handlers, self.spawn)

    # --- what the worker is asked -----------------------------------------------------------------------------

    def _send(self, _gateway: str, what: bus.Applied | Reply) -> None:
        if isinstance(what, bus.Applied):
            self.reports.append(what)
        else:
            self.replies.append(what)

    def _want_load(self, actor: RoomActor) -> None:
        if actor not in self.loads:
            self.loads.append(actor)

    def _want_commit(self, actor: RoomActor) -> None:
        if actor not in self.commits:
            self.commits.append(actor)

    def _activated(self, _partition: Partition) -> None:
        self.activations += 1

    def _replay(self, _actor: RoomActor, _gateway: str, item: bus.Replay) -> None:
        self.replays.append(item)

    def _ticked(self, _partition: Partition, tick: bus.Tick) -> None:
        self.ticks.append(tick)

    def _reported(self, _partition: Partition, report: bus.NodeReport) -> None:
        self.node_reports.append(report)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.spawned.append(asyncio.get_running_loop().create_task(work))
        return self.spawned[-1]

    # --- what the test does -----------------------------------------------------------------------------------

    def load(self) -> None:
        loads, self.loads = self.loads, []
        for actor in loads:
            actor.loaded(self.store.read(actor.room))

    def take(self) -> list[tuple[RoomActor, Commit]]:
        """The commits of one trip, begun."""
        commits, self.commits = self.commits, []
        taken = [(actor, actor.next_commit()) for actor in commits]
        return [(actor, commit) for actor, commit in taken if commit is not None]

    def apply(self, commit: Commit) -> CommitStatus:
        """The store's answer to a commit."""
        status = self.store.apply(commit)
        if status == "OK":
            for message in commit.entry.messages if commit.entry else ():
                for session, out in message.to:
                    self.stream.setdefault(session, []).append(Output(out, message.body, message.close))
        return status

    def commit(self) -> list[CommitStatus]:
        statuses = []
        for actor, commit in self.take():
            statuses.append(self.apply(commit))
            actor.commit_answered(commit, statuses[-1])
        return statuses

    def publish_all(self) -> None:
        published, self.published = self.published, []
        for _, done in published:
            done()

    def answer(self) -> None:
        request, on_result = self.asked.pop(0)
        on_result(result_of(request))

    def work(self) -> None:
        """Loads and commits until nothing is left."""
        while self.loads or self.commits or self.published or self.asked:
            self.load()
            while self.asked:
                self.answer()
            self.commit()
            self.publish_all()

    def version(self, room: str = "room") -> str:
        """The stored version of a room."""
        return self.store.read(room).version

    def fields(self, room: str = "room") -> dict[str, bytes]:
        return self.store.read(room).fields

    def closed_sessions(self, room: str = "room") -> dict[str, ClosedSession]:
        return self.store.read(room).closed_sessions

    def answers(self) -> list[tuple[int, int]]:
        """(number, code) of what gateways were answered, with a commit or without."""
        replies = [*self.replies, *(reply for changes, _ in self.published for _, reply in changes.replies)]
        return [(reply.n, reply.code) for reply in replies if isinstance(reply, bus.CallAnswer)]


def foreign_commit(room: str = "room", version: str = "theirs:1", expected: str = "", **fields: bytes) -> Commit:
    """Returns a commit of another worker, of which the test has nothing else."""
    return Commit(room, 0, expected, version, f"another worker's {version}", fields, None, {}, first=not expected)
