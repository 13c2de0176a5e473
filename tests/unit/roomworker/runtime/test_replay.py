"""Messages that gateways missed are sent again: page by page, many sessions in one round trip, one trip at a time."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.messaging.outbox import Receipt
from roomworker.runtime.replay import PAGE_BYTES, SESSIONS_PER_TRIP, Replayer
from roomworker.storage.port import Page, PageWanted
from roomworker.storage.stream_entry import Entry, SentMessage
from shared.errors import GAP, REPLAY_TOO_LARGE, SESSION_UNKNOWN
from shared.protocol import bus

Found = list[tuple[SentMessage, int]]


class SlowStore:
    """Keeps `messages` for every session, one in each entry, and counts the round trips and what they read."""

    def __init__(self, messages: Found, session: str = "s") -> None:
        self.entries = [
            (f"{at:06}", Entry([SentMessage(sent.body, [(session, out)], sent.close)], []))
            for at, (sent, out) in enumerate(messages)
        ]
        self.trips: list[int] = []
        self.under_way = 0
        self.most_at_once = 0
        self.bytes_read = 0

    async def pages(self, wanted: Sequence[PageWanted], size: int) -> list[Page]:
        self.trips.append(len(wanted))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return [self._page(each, size) for each in wanted]

    def _page(self, wanted: PageWanted, size: int) -> Page:
        found: list[tuple[str, Entry]] = []
        for id_, entry in reversed(self.entries) if wanted.backwards else self.entries:
            is_beyond = id_ < wanted.entry if wanted.backwards else id_ > wanted.entry
            if is_beyond or not wanted.entry or (wanted.inclusive and id_ == wanted.entry):
                length = len(entry.messages[0].body)
                if found and length > size:
                    break
                size -= length
                self.bytes_read += length
                found.append((id_, entry))
        return Page(found, found[-1][0] if found else "")


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
    """Records what is sent; what has a receipt is confirmed at once, or by the test if it is `slow`."""

    def __init__(self, *, slow: bool = False) -> None:
        self.messages: list[tuple[str, int, int]] = []
        """(session, output number, close code)"""
        self.connections: list[int] = []
        self.applied: list[bus.Applied] = []
        self.unconfirmed: list[Receipt] = []
        self.slow = slow

    def send(self, gateway: str, what: Any, receipt: Receipt | None = None) -> None:
        if receipt is not None:
            self.unconfirmed.append(receipt)
        if isinstance(what, bus.Applied):
            self.applied.append(what)
        else:
            self.messages += [(to.session, to.out, what.close) for to in what.to]
            self.connections += [to.connection for to in what.to]
        if not self.slow:
            self.confirm()

    def confirm(self) -> None:
        unconfirmed, self.unconfirmed = self.unconfirmed, []
        for receipt in unconfirmed:
            receipt.confirm()


class Scene:
    """A replayer that runs; `turns` lets it work."""

    def __init__(self, store: SlowStore, *, slow: bool = False, limit: int = 1_000_000) -> None:
        self.outbox, self.counters = RecordingOutbox(slow=slow), Counters()
        self.replayer = Replayer(store, self.outbox, self.counters, limit)  # type: ignore[arg-type]
        self._running = asyncio.create_task(self.replayer.run())

    def ask(self, actor: LoadedRoom, *items: bus.Replay) -> None:
        for item in items:
            self.replayer.replay(actor, "gateway", item)  # type: ignore[arg-type]

    async def turns(self, count: int = 100) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


async def replayed(
    actor: LoadedRoom, store: SlowStore, *items: bus.Replay, limit: int = 1_000_000
) -> RecordingOutbox:
    scene = Scene(store, limit=limit)
    scene.ask(actor, *items)
    await scene.turns()
    await scene.end()
    return scene.outbox


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
    store = SlowStore(kept(1, 2))
    for _, entry in store.entries:
        entry.messages[0].to[:] = [(f"s{n}", out) for _, out in entry.messages[0].to for n in range(500)]
    committed = {f"s{n}": ClosedSession(1, 2) for n in range(500)}
    outbox = await replayed(
        LoadedRoom(committed), store, *(bus.Replay(f"room{n}", f"s{n}", n, 0) for n in range(500))
    )
    assert len(outbox.applied) == 500
    assert store.most_at_once == 1
    assert len(store.trips) == 1 + 499 // SESSIONS_PER_TRIP


async def test_repeated_replay_request_is_answered_once() -> None:
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(1, 1)}), SlowStore(kept(1)), *[bus.Replay("room", "s", 1, 0)] * 5
    )
    assert len(outbox.applied) == 1
    assert outbox.messages == [("s", 1, 0)]


def large(count: int, size: int = PAGE_BYTES // 2) -> Found:
    """Outputs 1 to `count`, two of which are a page."""
    return [(SentMessage(b"x" * size, []), out) for out in range(1, count + 1)]


async def test_replay_of_many_pages_is_sent_in_order_one_page_at_a_time() -> None:
    store, room = SlowStore(large(41)), LoadedRoom({"s": ClosedSession(7, 41)})
    scene = Scene(store, slow=True, limit=10**7)
    scene.ask(room, bus.Replay("room", "s", 1, 0))
    most = 0
    while not scene.outbox.applied:
        await scene.turns()
        most = max(most, len(scene.outbox.unconfirmed))
        assert scene.outbox.unconfirmed
        scene.outbox.confirm()
        await scene.turns()
    await scene.end()

    assert scene.outbox.messages == [("s", out, 0) for out in range(1, 42)]
    assert scene.outbox.applied == [bus.Applied(1, "s", 7, 41)]
    assert most == 2


async def test_replay_reads_no_more_than_what_was_missed_and_a_page() -> None:
    store = SlowStore(large(1000))
    outbox = await replayed(LoadedRoom({"s": ClosedSession(7, 1000)}), store, bus.Replay("room", "s", 1, 999))

    assert outbox.messages == [("s", 1000, 0)]
    assert store.bytes_read <= PAGE_BYTES


async def test_session_that_missed_more_than_the_limit_is_closed_and_sent_nothing() -> None:
    store, limit = SlowStore(large(1000)), 10 * PAGE_BYTES
    outbox = await replayed(
        LoadedRoom({"s": ClosedSession(7, 1000)}), store, bus.Replay("room", "s", 1, 0), limit=limit
    )

    assert outbox.messages == [("s", 0, REPLAY_TOO_LARGE.code)]
    assert outbox.applied == []
    assert store.bytes_read <= limit + PAGE_BYTES


async def test_newer_resumption_ends_the_older_replay() -> None:
    store, room = SlowStore(large(100)), LoadedRoom({"s": ClosedSession(7, 100)})
    scene = Scene(store, slow=True, limit=10**7)
    for connection in range(1, 16):
        scene.ask(room, bus.Replay("room", "s", connection, 0))
        await scene.turns()
    await scene.turns()
    scene.outbox.slow = False
    scene.outbox.confirm()
    await scene.turns(1000)
    await scene.end()

    assert scene.outbox.messages[-100:] == [("s", out, 0) for out in range(1, 101)]
    assert set(scene.outbox.connections[-100:]) == {15}
    assert scene.outbox.applied == [bus.Applied(15, "s", 7, 100)]
    assert len(scene.outbox.messages) <= 100 + 14 * 2


async def test_sessions_that_resume_again_and_again_do_not_keep_others_waiting() -> None:
    names = [f"s{n}" for n in range(SESSIONS_PER_TRIP)]
    room = LoadedRoom({name: ClosedSession(0, 20) for name in (*names, "patient")})
    scene = Scene(SlowStore(large(20)), limit=10**7)
    scene.ask(room, *[bus.Replay("room", name, 0, 0) for name in names])
    scene.ask(room, bus.Replay("room", "patient", 1, 0))
    for connection in range(1, 20):
        scene.ask(room, *[bus.Replay("room", name, connection, 0) for name in names])
        await scene.turns(3)
    await scene.end()

    assert "patient" in [session for session, _, _ in scene.outbox.messages]


async def test_entries_of_other_sessions_are_passed_over() -> None:
    store = SlowStore(large(3))
    others = [
        (f"1{id_}", Entry([SentMessage(b"y" * PAGE_BYTES, [("other", 1)])], [])) for id_, _ in store.entries * 9
    ]
    store.entries += [(f"{at:06}", entry) for at, (_, entry) in enumerate(others, 100)]
    outbox = await replayed(LoadedRoom({"s": ClosedSession(7, 3)}), store, bus.Replay("room", "s", 1, 1))

    assert outbox.messages == [("s", 2, 0), ("s", 3, 0)]
    assert outbox.applied == [bus.Applied(1, "s", 7, 3)]
