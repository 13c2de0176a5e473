"""Defines the store that a room worker keeps rooms in, and the records that go in and out.

`roomworker.storage.store` keeps rooms in Redis, `roomworker.storage.memory` in one process. Both pass
tests/conformance/test_store.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.counters import CommitStatus
from roomworker.storage.stream_entry import Entry
from shared.cluster.redis_keys import index_member
from shared.protocol import media

KEEP_SENT_MS: Final = 30_000
"""Milliseconds that sent messages are kept, unless a commit says otherwise."""
KEEP_CLOSED_S: Final = 600
"""Seconds that closed sessions, answers to API calls, and a deletion's token and trace are known."""
KEEP_ATTEMPTS_S: Final = 3600
"""Seconds that attempts are known after the last of their partition."""
DEAD_LETTERS_KEPT: Final = 1000
UNCOUNTED: Final = 2**63
"""The size of a room with so many fields that to count its bytes would hold up the store."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One change of one room: all of it is stored, or nothing.

    `expected` and `version` are `<incarnation>:<n>`; empty: no such room. `deletion_token`, as loaded, tells which of
    several absences an empty `expected` means. `token` is this commit's own, by which the store recognises it.
    `first`: the room is not in its partition's index yet. Messages older than `keep_sent_ms` may be forgotten.
    `trace` is what a deleted room leaves to a later room of its name; empty: nothing.
    """

    room: str
    partition: int
    expected: str
    version: str
    token: str
    fields: Mapping[str, bytes | None]
    entry: Entry | None
    closed_sessions: Mapping[str, ClosedSession | None]
    answered_calls: Mapping[str, StoredAnswer | None] = field(default_factory=dict)
    first: bool = False
    deletion_token: str = ""
    keep_sent_ms: int = KEEP_SENT_MS
    trace: bytes = b""

    @property
    def index_member(self) -> str:
        """The room's entry in its partition's index."""
        return index_member(self.room, (self.version or self.expected).partition(":")[0])


@dataclass(frozen=True, slots=True)
class Stored:
    """A room as it is stored: `version` is empty if there is none (its closed sessions may still be known).

    `deletion_token` is then the token of the commit that deleted it, as long as that is known. `trace` is what the
    last deleted room of this name left. `unreadable` is the reason why the stored fields are not a room that this
    worker can read; nothing else is set then.
    """

    version: str
    fields: dict[str, bytes]
    closed_sessions: dict[str, ClosedSession]
    answered_calls: dict[str, StoredAnswer] = field(default_factory=dict)
    deletion_token: str = ""
    unreadable: str = ""
    trace: bytes = b""


@dataclass(frozen=True, slots=True)
class PageWanted:
    """A part of a room's stream of sent messages and orders: what follows the entry `entry`, or begins with it.

    `backwards`: what precedes that entry, the latest first. An empty `entry` stands for the stream's end at which
    reading begins.
    """

    room: str
    entry: str = ""
    backwards: bool = False
    inclusive: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """The readable entries of one page with their ids; `last` is the id to go on after, empty if none is left."""

    entries: list[tuple[str, Entry]]
    last: str


class Store(Protocol):
    """The store of all rooms.

    A method that takes several rooms makes one round trip, and an unreadable room does not affect the others. All
    methods but `count_dead_letters` try again until the store answers, so they raise nothing.
    """

    round_trips: int
    failures: int
    """Round trips that were not answered as they should; each was repeated."""

    async def commit(self, commits: Sequence[Commit]) -> list[CommitStatus]:
        """Commits rooms; returns the status of each, in order:

        `OK`        the commit is stored;
        `APPLIED`   this very commit was stored before: its answer was lost;
        `STALE`     the room's version is not the expected one: nothing was stored;
        `FAILED`    the store refuses what it has of the room (keys of a wrong type): nothing was stored.
        """
        ...

    async def state_sizes(self, rooms: Sequence[str]) -> list[int]:
        """Returns the bytes that loading each room would bring, in order; `UNCOUNTED` if it has too many fields."""
        ...

    async def load(self, rooms: Sequence[str]) -> list[Stored]:
        """Returns what is stored of each room, in order."""
        ...

    async def pages(self, wanted: Sequence[PageWanted], size: int) -> list[Page]:
        """Returns a page of about `size` bytes of each stream, in order; what is wanted twice is read once."""
        ...

    async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
        """Returns the orders of the rooms' commits that are kept, with their nodes; those of a room in order."""
        ...

    async def trim(self, rooms: Sequence[str], keep_ms: int) -> int:
        """Removes most of the rooms' sent messages and orders that are older; returns the number of entries."""
        ...

    async def footprints(self, rooms: Sequence[str]) -> list[int]:
        """Returns about how many bytes of the store each room takes, in order, with what it has sent."""
        ...

    async def shorten_past(self, keep_s: int) -> int:
        """Has the store forget what it knows of deleted rooms after `keep_s` seconds; returns of how many rooms.

        What it knows for a shorter time than that is left as it is.
        """
        ...

    async def indexed(self, partition: int) -> list[str]:
        """Returns the names of the rooms of a partition, each once."""
        ...

    async def attempts(self, partition: int) -> dict[str, int]:
        """Returns how often each redelivered batch or message was begun (`roomworker.partitions.poison`)."""
        ...

    async def record_attempt(self, partition: int, name: str) -> int:
        """Counts one more attempt at the batch or message; returns how many there were with it."""
        ...

    async def withdraw_attempts(self, partition: int, names: Sequence[str]) -> None:
        """Counts one attempt less at each of these batches and messages; a count may become 0."""
        ...

    async def clear_attempts(self, partition: int, names: Sequence[str]) -> None:
        """Forgets the attempts at these batches and messages."""
        ...

    async def add_dead_letter(self, partition: int, item: msgspec.Struct, reason: str) -> None:
        """Keeps a message with which workers died, for a person to look at."""
        ...

    async def count_dead_letters(self) -> int:
        """Returns the number of dead letters still kept. Raises `RedisError` or `OSError`."""
        ...
