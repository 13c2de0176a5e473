"""A worker by hand: what actors and partitions ask of it is done when the test says."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.partitions.partition import Partition
from roomworker.runtime.executor import OnResult
from roomworker.runtime.room_actor import RoomActor
from roomworker.storage.store import Commit, Status, Stored
from shared.protocol import bus, media
from tests.unit.roomworker.harness_client import Output
from tests.unit.roomworker.room_harness import result_of


@dataclass
class Shelf:
    """The rooms as Redis has them, for one or more desks."""

    rooms: dict[str, Stored] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    stream: dict[str, list[Output]] = field(default_factory=dict)

    def load(self, room: str) -> Stored:
        held = self.rooms.get(room, Stored("", {}, {}))
        return Stored(
            held.version,
            dict(held.fields),
            dict(held.closed_sessions),
            dict(held.answered_calls),
            held.deletion_token,
        )

    def commit(self, commit: Commit) -> Status:
        held = self.load(commit.room)
        if (held.version, held.deletion_token) != (commit.expected, commit.deletion_token):
            return "APPLIED" if self.tokens.get(commit.room) == commit.token else "STALE"
        self.tokens[commit.room] = commit.token
        gone = {
            **held.closed_sessions,
            **{name: last for name, last in commit.closed_sessions.items() if last is not None},
        }
        known = {
            **held.answered_calls,
            **{key: answer for key, answer in commit.answered_calls.items() if answer is not None},
        }
        if not commit.version:
            self.rooms[commit.room] = Stored("", {}, gone, known, commit.token)
            return "OK"
        fields = {**held.fields, **commit.fields}
        kept = {name: value for name, value in fields.items() if value is not None}
        self.rooms[commit.room] = Stored(commit.version, kept, gone, known)
        for message in commit.entry.messages if commit.entry else ():
            for session, out in message.to:
                self.stream.setdefault(session, []).append(Output(out, message.body, message.close))
        return "OK"


class Marks:
    """What a store keeps of suspects, in memory."""

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.aside: list[tuple[Any, str]] = []

    async def suspects(self, partition: int) -> dict[str, int]:
        return dict(self.begun)

    async def suspect(self, partition: int, name: str) -> int:
        self.begun[name] = self.begun.get(name, 0) + 1
        return self.begun[name]

    async def clear_suspects(self, partition: int, names: Sequence[str]) -> None:
        for name in names:
            self.begun.pop(name, None)

    async def set_aside(self, partition: int, item: Any, reason: str) -> None:
        self.aside.append((item, reason))


class FakeWorker:
    """A `PartitionHost`."""

    store: Any

    def __init__(self, shelf: Shelf | None = None, name: str = "worker") -> None:
        self.shelf = shelf or Shelf()
        self.store = Marks()
        self.spawned: list[asyncio.Task[None]] = []
        self.name = name
        self.node: str | None = "node"
        self.loads: list[RoomActor] = []
        self.commits: list[RoomActor] = []
        self.published: list[tuple[Changes, Callable[[], None]]] = []
        self.asked: list[tuple[media.AnyRequest, OnResult]] = []
        self.reports: list[bus.Applied] = []
        self.replies: list[Reply] = []
        self.limits = Limits()
        self.counters = Counters()
        self.activations = 0
        self.ticks: list[bus.Tick] = []
        self.replays: list[bus.Replay] = []
        self.node_reports: list[bus.NodeReport] = []
        self.forgotten: list[RoomActor] = []
        self._tokens = 0

    # --- what the worker is asked -----------------------------------------------------------------------------

    def choose_node(self) -> str | None:
        return self.node

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        self.asked.append((request, on_result))

    def report(self, gateway: str, applied: bus.Applied) -> None:
        self.reports.append(applied)

    def publish(self, changes: Changes, done: Callable[[], None]) -> None:
        self.published.append((changes, done))

    def reply(self, gateway: str, reply: Reply) -> None:
        self.replies.append(reply)

    def want_load(self, actor: RoomActor) -> None:
        if actor not in self.loads:
            self.loads.append(actor)

    def want_commit(self, actor: RoomActor) -> None:
        if actor not in self.commits:
            self.commits.append(actor)

    def keeps_all(self, actor: RoomActor) -> bool:
        return False

    def next_token(self) -> str:
        self._tokens += 1
        return f"{self.name}:{self._tokens}"

    def activated(self, partition: Partition) -> None:
        self.activations += 1

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        self.replays.append(item)

    def ticked(self, partition: Partition, tick: bus.Tick) -> None:
        self.ticks.append(tick)

    def reported(self, partition: Partition, report: bus.NodeReport) -> None:
        self.node_reports.append(report)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.spawned.append(asyncio.get_running_loop().create_task(work))

    def forget(self, actor: RoomActor) -> None:
        self.forgotten.append(actor)

    # --- what the test does -----------------------------------------------------------------------------------

    def load(self) -> None:
        loads, self.loads = self.loads, []
        for actor in loads:
            actor.loaded(self.shelf.load(actor.room))

    def take(self) -> list[tuple[RoomActor, Commit]]:
        """The commits of one trip, begun."""
        commits, self.commits = self.commits, []
        taken = [(actor, actor.take()) for actor in commits]
        return [(actor, commit) for actor, commit in taken if commit is not None]

    def commit(self) -> list[Status]:
        statuses = []
        for actor, commit in self.take():
            statuses.append(self.shelf.commit(commit))
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
        """Until nothing is left to do."""
        while self.loads or self.commits or self.published or self.asked:
            self.load()
            while self.asked:
                self.answer()
            self.commit()
            self.publish_all()

    def closed_sessions(self, room: str) -> dict[str, ClosedSession]:
        return self.shelf.load(room).closed_sessions
