"""Messages that gateways missed are sent again: many sessions in one round trip, one trip at a time."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.runtime.replay import SESSIONS_PER_TRIP, Replayer
from roomworker.storage.stream_entry import SentMessage
from shared.errors import GAP, SESSION_UNKNOWN
from shared.protocol import bus

Found = list[tuple[SentMessage, int]]


class SlowStore:
    """Keeps `messages` for every session, and counts the round trips under way."""

    def __init__(self, messages: Found) -> None:
        self.messages = messages
        self.trips: list[int] = []
        self.under_way = 0
        self.most_at_once = 0

    async def replay(self, sessions: Sequence[tuple[str, str, int]]) -> list[Found]:
        self.trips.append(len(sessions))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return [[(sent, out) for sent, out in self.messages if out > after] for _, _, after in sessions]


class LoadedRoom:
    """A room that is loaded, with the sessions of `committed`."""

    def __init__(self, committed: dict[str, ClosedSession], living: bool = True) -> None:
        self.committed = committed
        self.room = SimpleNamespace(sessions=committed if living else {})

    def when_live(self, call: Callable[[Any], None]) -> None:
        call(self)

    def position(self, session: str) -> ClosedSession | None:
        return self.committed.get(session)

    def report_released(self, gateway: str, item: bus.Replay) -> bool:
        return False


class RecordingOutbox:
    def __init__(self) -> None:
        self.messages: list[tuple[str, int, int]] = []
        """(session, output number, close code)"""
        self.applied: list[bus.Applied] = []

    def send(self, gateway: str, what: Any) -> None:
        if isinstance(what, bus.Applied):
            self.applied.append(what)
        else:
            self.messages += [(to.session, to.out, what.close) for to in what.to]


async def replayed(actor: LoadedRoom, store: SlowStore, *items: bus.Replay) -> RecordingOutbox:
    outbox, counters = RecordingOutbox(), Counters()
    replayer = Replayer(store, outbox, counters)  # type: ignore[arg-type]
    running = asyncio.create_task(replayer.run())
    for item in items:
        replayer.replay(actor, "gateway", item)  # type: ignore[arg-type]
    for _ in range(50):
        await asyncio.sleep(0)
    running.cancel()
    return outbox


def kept(*outs: int) -> Found:
    return [(SentMessage(b"{}", []), out) for out in outs]


async def test_missed_messages_are_sent_again_and_then_the_position() -> None:
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(7, 5)}), SlowStore(kept(3, 4, 5)), bus.Replay("room", "s", 1, 3)
    )
    assert outbox.messages == [("s", 4, 0), ("s", 5, 0)]
    assert outbox.applied == [bus.Applied(1, "s", 7, 5)]


@pytest.mark.parametrize("outs", [(5, 6), (4, 6)])
async def test_a_session_whose_messages_are_not_all_kept_is_closed(outs: tuple[int, int]) -> None:
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(7, 6)}), SlowStore(kept(*outs)), bus.Replay("room", "s", 1, 3)
    )
    assert outbox.messages[-1] == ("s", 0, GAP.code)
    assert outbox.applied == []


async def test_an_unknown_session_is_closed() -> None:
    outbox = await replayed(LoadedRoom({}), SlowStore([]), bus.Replay("room", "s", 1, 3))
    assert outbox.messages == [("s", 0, SESSION_UNKNOWN.code)]


async def test_a_closed_session_without_messages_is_closed() -> None:
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(7, 3)}, living=False), SlowStore([]), bus.Replay("room", "s", 1, 3)
    )
    assert outbox.messages == [("s", 0, SESSION_UNKNOWN.code)]


async def test_500_replay_requests_take_few_round_trips_in_turn() -> None:
    store = SlowStore([])
    committed = {f"s{n}": ClosedSession(1, 0) for n in range(500)}
    outbox = await replayed(
        LoadedRoom(committed), store, *(bus.Replay(f"room{n}", f"s{n}", n, 0) for n in range(500))
    )
    assert len(outbox.applied) == 500
    assert store.most_at_once == 1
    assert len(store.trips) == 1 + 499 // SESSIONS_PER_TRIP


async def test_repeated_replay_request_is_answered_once() -> None:
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(1, 0)}), SlowStore([]), *[bus.Replay("room", "s", 1, 0)] * 5
    )
    assert len(outbox.applied) == 1
