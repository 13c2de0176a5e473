"""Gateways, room worker and client of a resumable session together: their own code on all three sides, between them
sockets that are cut, a bus that loses, repeats and reorders, and workers that die."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from roomworker.core.journal import Changes
from roomworker.runtime.executor import Executor
from shared.protocol import bus
from tests.support.sampling import examples
from tests.support.simulated_network import STEPS, Down, SimulatedNetwork, Steps, run_steps
from tests.unit.roomworker.room_harness import RoomHarness

GATEWAY = "gw"


@dataclass
class RealWorker:
    """The room worker's core; its commits take time, and between any two steps of one it may die."""

    harness: RoomHarness = field(default_factory=lambda: RoomHarness(prompt=False))
    inputs: dict[str, list[int]] = field(default_factory=dict)
    stored: list[Changes] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.harness.observers.append(self.on_stored)

    def on_stored(self, changes: Changes) -> None:
        self.stored.append(changes)
        for session, n_in, _ in changes.applied:
            seen = self.inputs.setdefault(session.id, [])
            seen += range(len(seen) + 1, n_in + 1)

    def take(self, item: bus.AnyItem) -> list[Down]:
        if isinstance(item, bus.Replay):
            return self.replay(item)
        self.harness.receive(item, GATEWAY)  # type: ignore[arg-type]
        return self.said()

    def replay(self, item: bus.Replay) -> list[Down]:
        where = self.harness.executor.position(item.session)
        if where is None:
            return []
        to = [(sent, bus.Recipient(item.connection, item.session, sent.out)) for sent in self.stream_of(item.session)]
        replayed = [bus.Message(sent.body, [it], sent.close) for sent, it in to if sent.out > item.after]
        return [*replayed, bus.Applied(item.connection, item.session, where.n_in, where.n_out)]

    def advance(self, at: int) -> list[Down]:
        harness = self.harness
        match at:
            case 0 | 1 | 2:
                harness.take()
            case 3 | 4 if harness.pending is not None and not self.stored:
                harness.store()
            case 5 | 6 | 7:
                harness.commit() if harness.pending is None else self.finish()
            case 8:
                self.stored.clear()
                harness.crash()
                harness.act(Executor.announce)
            case _:
                pass
        return self.said()

    def finish(self) -> None:
        if not self.stored:
            self.harness.store()
        self.harness.finish()

    def settle(self) -> list[Down]:
        if self.harness.pending is not None:
            self.finish()
        self.harness.commit()
        return self.said()

    def said(self) -> list[Down]:
        """Returns what gateways get: the messages of confirmed commits, then reports and links."""
        down: list[Down] = []
        if self.harness.pending is None:
            for changes in self.stored:
                down += self.messages(changes)
            self.stored.clear()
        down += [report for _, report in self.harness.reports]
        down += [link for gateway, link in self.harness.links if gateway]
        self.harness.reports.clear()
        self.harness.links.clear()
        assert not self.harness.defects
        return down

    @staticmethod
    def messages(changes: Changes) -> list[Down]:
        down: list[Down] = []
        for message in changes.messages:
            to = [bus.Recipient(it.connection, it.id, out) for it, out in message.to if it.gateway]
            down += [bus.Message(message.body, [one], message.close) for one in to]
        down += [bus.Applied(it.connection, it.id, n_in, n_out) for it, n_in, n_out in changes.applied if it.gateway]
        return down

    def stream_of(self, session: str) -> list[Any]:
        return self.harness.stream.get(session, [])

    def applied(self, session: str) -> list[int]:
        return self.inputs[session]

    def stream(self, session: str) -> list[bytes]:
        return [sent.body for sent in self.stream_of(session)]

    def connections(self) -> Collection[int]:
        return {session.connection for session in self.harness.room.sessions.values() if session.gateway}


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=20, max_size=200),
    st.booleans(),
    st.booleans(),
)
def test_resumable_session_survives_cuts_losses_and_worker_deaths(steps: Steps, early: bool, leave: bool) -> None:
    worker = RealWorker()
    network = SimulatedNetwork(worker, worker.harness.name)
    run_steps(network, steps, early=early, leave=leave)
    assert [frame["id"] for frame in network.got] == list(range(1, network.sent + 1))
