"""Stores rooms in the memory of one process, by the rules of `commit.lua`, without a server."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.counters import CommitStatus
from roomworker.storage.port import DEAD_LETTERS_KEPT, KEEP_CLOSED_S, Commit, Page, PageWanted, Stored
from roomworker.storage.stream_entry import Entry
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.redis_keys import indexed_rooms
from shared.protocol import media

T = TypeVar("T")


class _KeptEntry(NamedTuple):
    """The outgoing messages and orders of one commit, with its number and the second in which it was made."""

    number: int
    at: float
    entry: Entry


@dataclass(slots=True)
class _Room:
    version: str = ""
    token: str = ""
    fields: dict[str, bytes] = field(default_factory=dict)
    entries: deque[_KeptEntry] = field(default_factory=deque)


@dataclass(slots=True)
class _Past:
    """Closed sessions, answers and the trace of one room, which outlive its deletion."""

    closed_sessions: dict[str, ClosedSession] = field(default_factory=dict)
    answered_calls: dict[str, StoredAnswer] = field(default_factory=dict)
    deletion_token: str = ""
    trace: bytes = b""


class MemoryStore:
    """Implements `roomworker.storage.port.Store`. `cluster` has the index of rooms; `clock` is monotonic, seconds."""

    def __init__(self, cluster: MemoryCluster | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = (cluster or MemoryCluster()).index
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._past: dict[str, _Past] = {}
        self._past_until: dict[str, float] = {}
        """The time at which each of `_past` is forgotten, the soonest first."""
        self._entries_kept = 0
        self._attempts: dict[int, dict[str, int]] = {}
        self.dead_letter_items: deque[tuple[int, msgspec.Struct, str]] = deque(maxlen=DEAD_LETTERS_KEPT)
        self.round_trips = 0
        self.failures = 0

    # --- one room, at once ------------------------------------------------------------------------------------

    def apply(self, commit: Commit) -> CommitStatus:
        """Commits one room."""
        self._forget_past()
        room, past = self._rooms.get(commit.room), self._past.get(commit.room, _Past())
        if commit.first:
            self._index.setdefault(commit.partition, set()).add(commit.index_member)
        version, token = (room.version, room.token) if room else ("", "")
        deleted = past.deletion_token if room is None else ""
        if (version, deleted) != (commit.expected, commit.deletion_token):
            return "APPLIED" if commit.token in (token, deleted) else "STALE"
        if commit.version:
            self._write(commit, room or self._rooms.setdefault(commit.room, _Room()))
        else:
            self._rooms.pop(commit.room, None)
            self._index.get(commit.partition, set()).discard(commit.index_member)
        self._remember_past(commit, past)
        return "OK"

    def read(self, room: str) -> Stored:
        """Loads one room."""
        self._forget_past()
        held, past = self._rooms.get(room), self._past.get(room, _Past())
        closed, answers = dict(past.closed_sessions), dict(past.answered_calls)
        if held is None:
            return Stored("", {}, closed, answers, past.deletion_token, trace=past.trace)
        return Stored(held.version, dict(held.fields), closed, answers, trace=past.trace)

    def _write(self, commit: Commit, room: _Room) -> None:
        room.version, room.token = commit.version, commit.token
        for name, value in commit.fields.items():
            if value is None:
                room.fields.pop(name, None)
            else:
                room.fields[name] = value
        if commit.entry is not None:
            now = self._clock()
            self._entries_kept += 1
            room.entries.append(_KeptEntry(self._entries_kept, now, commit.entry))
            while room.entries[0].at < now - commit.keep_sent_ms / 1000:
                room.entries.popleft()

    def _remember_past(self, commit: Commit, past: _Past) -> None:
        news = [value for changes in (commit.closed_sessions, commit.answered_calls) for value in changes.values()]
        if not commit.version:
            past.deletion_token = commit.token
            past.trace = commit.trace or past.trace
        elif not news:
            return
        for session, last in commit.closed_sessions.items():
            _put(past.closed_sessions, session, last)
        for key, answer in commit.answered_calls.items():
            _put(past.answered_calls, key, answer)
        self._past[commit.room] = past
        if not commit.version or any(value is not None for value in news):
            self._past_until.pop(commit.room, None)
            self._past_until[commit.room] = self._clock() + KEEP_CLOSED_S

    def _forget_past(self) -> None:
        now = self._clock()
        while self._past_until and (first := next(iter(self._past_until.items())))[1] <= now:
            del self._past_until[first[0]]
            del self._past[first[0]]

    # --- the port ---------------------------------------------------------------------------------------------

    async def commit(self, commits: Sequence[Commit]) -> list[CommitStatus]:
        await self._round_trip()
        return [self.apply(commit) for commit in commits]

    async def state_sizes(self, rooms: Sequence[str]) -> list[int]:
        await self._round_trip()
        return [self._size(room) for room in rooms]

    def _size(self, name: str) -> int:
        room, past = self._rooms.get(name, _Room()), self._past.get(name, _Past())
        return sum(len(field) + len(value) for field, value in room.fields.items()) + sum(
            len(key) + len(answer.body) for key, answer in past.answered_calls.items()
        )

    async def load(self, rooms: Sequence[str]) -> list[Stored]:
        await self._round_trip()
        return [self.read(room) for room in rooms]

    async def pages(self, wanted: Sequence[PageWanted], size: int) -> list[Page]:
        await self._round_trip()
        return [self._page(each, size) for each in wanted]

    def _page(self, wanted: PageWanted, size: int) -> Page:
        held = self._rooms.get(wanted.room)
        entries = list(held.entries) if held else []
        if wanted.backwards:
            entries.reverse()
        page: list[tuple[str, Entry]] = []
        beyond = not wanted.entry
        for kept in entries:
            is_named = str(kept.number) == wanted.entry
            if beyond or (is_named and wanted.inclusive):
                size -= sum(len(message.body) for message in kept.entry.messages)
                if page and size < 0:
                    break
                page.append((str(kept.number), kept.entry))
            beyond = beyond or is_named
        return Page(page, page[-1][0] if page else "")

    async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
        await self._round_trip()
        return [order for room in rooms for entry in self._entries(room) for order in entry.orders]

    async def trim(self, rooms: Sequence[str], keep_ms: int) -> int:
        await self._round_trip()
        oldest, removed = self._clock() - keep_ms / 1000, 0
        for room in rooms:
            entries = self._rooms.get(room, _Room()).entries
            while entries and entries[0].at < oldest:
                entries.popleft()
                removed += 1
        return removed

    async def footprints(self, rooms: Sequence[str]) -> list[int]:
        await self._round_trip()
        return [self._footprint(room) for room in rooms]

    def _footprint(self, room: str) -> int:
        held = self._rooms.get(room, _Room())
        return self._size(room) + sum(len(message.body) for kept in held.entries for message in kept.entry.messages)

    async def shorten_past(self, keep_s: int) -> int:
        await self._round_trip()
        until = self._clock() + keep_s
        late = [room for room, at in self._past_until.items() if at > until and room not in self._rooms]
        for room in late:
            self._past_until[room] = until
        self._past_until = dict(sorted(self._past_until.items(), key=lambda entry: entry[1]))
        return len(late)

    def _entries(self, room: str) -> list[Entry]:
        held = self._rooms.get(room)
        return [kept.entry for kept in held.entries] if held else []

    async def indexed(self, partition: int) -> list[str]:
        await self._round_trip()
        return indexed_rooms(self._index.get(partition, ()))

    async def attempts(self, partition: int) -> dict[str, int]:
        await self._round_trip()
        return dict(self._attempts.get(partition, {}))

    async def record_attempt(self, partition: int, name: str) -> int:
        await self._round_trip()
        marked = self._attempts.setdefault(partition, {})
        marked[name] = marked.get(name, 0) + 1
        return marked[name]

    async def withdraw_attempts(self, partition: int, names: Sequence[str]) -> None:
        await self._round_trip()
        marked = self._attempts.setdefault(partition, {})
        for name in names:
            marked[name] = marked.get(name, 0) - 1

    async def clear_attempts(self, partition: int, names: Sequence[str]) -> None:
        await self._round_trip()
        for name in names:
            self._attempts.get(partition, {}).pop(name, None)

    async def add_dead_letter(self, partition: int, item: msgspec.Struct, reason: str) -> None:
        await self._round_trip()
        self.dead_letter_items.append((partition, item, reason))

    async def count_dead_letters(self) -> int:
        return len(self.dead_letter_items)

    async def _round_trip(self) -> None:
        """Lets others run, as waiting for a server would."""
        self.round_trips += 1
        await asyncio.sleep(0)


def _put(known: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        known.pop(name, None)
    else:
        known[name] = value
