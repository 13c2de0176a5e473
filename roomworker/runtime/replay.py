"""Answers gateways that miss outputs of a session: sends what is kept again, then the session's last numbers.

The room's stream is read in pages, from its end backwards until the first missed output is found, then forwards. The
next page of a session is read when RabbitMQ has taken the one before, so that a replay holds one page in memory
however much was missed. A session that missed more than the limit is told to start anew.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.messaging.outbox import Outbox, Receipt
from roomworker.runtime.executor import Executor
from roomworker.runtime.room_actor import RoomActor
from roomworker.storage.port import Page, PageWanted, Store
from roomworker.storage.stream_entry import Entry, SentMessage
from shared.errors import GAP, REPLAY_TOO_LARGE, SESSION_UNKNOWN, CloseKind
from shared.protocol import bus

SESSIONS_PER_TRIP: Final = 64
"""Replays that are under way at once; others wait."""
PAGE_BYTES: Final = 64 * 1024
"""Bytes of a stream that are read at a time for one session."""

SessionKey: TypeAlias = tuple[str, str]
"""A room's name and the id of a session."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A gateway's request for missed outputs of one session.

    `committed` has the session's last committed numbers; `is_open` is false if the session is closed.
    """

    gateway: str
    item: bus.Replay
    committed: ClosedSession
    is_open: bool

    def repeats(self, other: "ReplayRequest") -> bool:
        """Whether this is the other request once more."""
        return (self.gateway, self.item) == (other.gateway, other.item)


class _Replay:
    """One replay under way."""

    def __init__(self, request: ReplayRequest) -> None:
        self.request = request
        self.next_output = request.item.after + 1
        self.is_sending = False
        """True once the entry with the first missed output is found: pages are then read forwards."""
        self.awaits_confirm = False
        self.missed_bytes = 0
        """Size of the missed outputs that were found so far."""
        self.is_lost = False
        """True once it is known that the first missed output is not kept."""
        self._lowest = request.committed.n_out + 1
        self.wanted = PageWanted(request.item.room, backwards=True)

    @property
    def is_complete(self) -> bool:
        """Whether all outputs that were committed at the request are sent."""
        return self.next_output > self.request.committed.n_out

    def search(self, page: Page) -> Page:
        """Looks in a page that was read backwards for the entry with the first missed output.

        Returns the page to send from, empty if there is none yet; `wanted` is the page to read next.
        """
        is_first = not self.wanted.entry
        for at, (id_, entry) in enumerate(page.entries):  # the latest first
            for message, out in self._outputs(entry):
                self._lowest = min(self._lowest, out)
                self.missed_bytes += len(message.body) if self._is_missed(out) else 0
            if self._lowest <= self.next_output:
                self.is_sending = True
                self.wanted = PageWanted(self.request.item.room, id_, inclusive=True)
                return Page(page.entries[at::-1], page.entries[0][0]) if is_first else Page([], id_)
        self.is_lost = not page.last
        self.wanted = PageWanted(self.request.item.room, page.last, backwards=True)
        return Page([], page.last)

    def missed(self, page: Page) -> Iterator[tuple[SentMessage, int]]:
        """Yields the missed outputs of a page that was read forwards; `wanted` is then the page after it."""
        self.wanted = PageWanted(self.request.item.room, page.last)
        for _, entry in page.entries:
            yield from ((message, out) for message, out in self._outputs(entry) if self._is_missed(out))

    def _outputs(self, entry: Entry) -> Iterator[tuple[SentMessage, int]]:
        session = self.request.item.session
        return ((message, out) for message in entry.messages for to, out in message.to if to == session)

    def _is_missed(self, out: int) -> bool:
        return out > self.request.item.after


class Replayer:
    """Answers all replay requests of one worker, `SESSIONS_PER_TRIP` at a time, in one round trip after another.

    A session has one replay at a time: another request of it ends the one before, unless it is the same once more.
    `limit`: bytes of missed outputs up to which a session is sent them again.
    """

    def __init__(self, store: Store, outbox: Outbox, counters: Counters, limit: int) -> None:
        self._store = store
        self._outbox = outbox
        self._counters = counters
        self._limit = limit
        self._replays: dict[SessionKey, _Replay] = {}
        self._any = asyncio.Event()

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        """Takes a request, which is answered once the room is loaded."""
        actor.when_live(lambda executor: self._enqueue(executor, gateway, item))

    def _enqueue(self, executor: Executor, gateway: str, item: bus.Replay) -> None:
        committed = executor.position(item.session)
        if committed is None:
            self._close(gateway, item, SESSION_UNKNOWN)
        elif not executor.report_released(gateway, item):
            request = ReplayRequest(gateway, item, committed, item.session in executor.room.sessions)
            key = item.room, item.session
            under_way = self._replays.get(key)
            if under_way is None or not request.repeats(under_way.request):
                self._replays.pop(key, None)  # behind all others, whom it would keep waiting
                self._replays[key] = _Replay(request)
                self._any.set()

    async def run(self) -> None:
        """Answers requests for ever."""
        while True:
            await self._any.wait()
            under_way = islice(self._replays.items(), SESSIONS_PER_TRIP)
            ready = [(key, replay) for key, replay in under_way if not replay.awaits_confirm]
            if not ready:
                self._any.clear()
                continue
            unread = [(key, replay) for key, replay in ready if not self._end_if_complete(key, replay)]
            pages = await self._store.pages([replay.wanted for _, replay in unread], PAGE_BYTES) if unread else []
            for (key, replay), page in zip(unread, pages, strict=True):
                if self._replays.get(key) is replay:  # else another request of the session came meanwhile
                    self._continue(key, replay, page)

    def _end_if_complete(self, key: SessionKey, replay: _Replay) -> bool:
        if replay.is_complete:
            self._end(key, replay)
        return replay.is_complete

    def _continue(self, key: SessionKey, replay: _Replay, page: Page) -> None:
        """Goes on with a replay after a page was read."""
        if not replay.is_sending:
            page = replay.search(page)
            if replay.missed_bytes > self._limit:
                self._counters.replays_refused_total += 1
                self._end(key, replay, REPLAY_TOO_LARGE)
            elif replay.is_lost:
                self._end(key, replay, GAP)
            if not (page.entries and self._replays.get(key) is replay):
                return
        is_whole = self._send(replay, replay.missed(page))
        if not is_whole or not (page.last or replay.is_complete):
            self._end(key, replay, GAP)
        else:
            self._end_if_complete(key, replay)

    def _send(self, replay: _Replay, missed: Iterable[tuple[SentMessage, int]]) -> bool:
        """Sends outputs in their order; returns false at the first that is missing before another."""
        gateway, item = replay.request.gateway, replay.request.item
        receipt = Receipt(lambda: self._confirmed(replay))
        replay.awaits_confirm = True
        try:
            for message, out in missed:
                if out != replay.next_output:
                    return False
                recipient = bus.Recipient(item.connection, item.session, out)
                self._outbox.send(gateway, bus.Message(message.body, [recipient], message.close), receipt.add())
                replay.next_output += 1
                self._counters.replayed_messages_total += 1
        finally:
            receipt.confirm()
        return True

    def _confirmed(self, replay: _Replay) -> None:
        replay.awaits_confirm = False
        self._any.set()

    def _end(self, key: SessionKey, replay: _Replay, why: CloseKind | None = None) -> None:
        """Tells the gateway the session's numbers, or why it ends: a gateway repeats its request until then."""
        del self._replays[key]
        request, item = replay.request, replay.request.item
        self._counters.replays_total += 1
        if why is None and replay.next_output == item.after + 1 and not request.is_open:
            why = SESSION_UNKNOWN
        if why is not None:
            self._close(request.gateway, item, why)
        else:
            out = max(replay.next_output - 1, request.committed.n_out)
            applied = bus.Applied(item.connection, item.session, request.committed.n_in, out)
            self._outbox.send(request.gateway, applied)

    def _close(self, gateway: str, item: bus.Replay, why: CloseKind) -> None:
        recipient = bus.Recipient(item.connection, item.session, 0)
        self._outbox.send(gateway, bus.Message(why.reason.encode(), [recipient], why.code))
