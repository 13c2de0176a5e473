"""Counts how many entries of a room's stream are young enough to be kept, by this process's monotonic clock. Pure.

A stream is trimmed to a number of entries and not by the times in their ids: those are Redis' wall clock, which may
be set forward or back, and then everything or nothing would be old. Only the process that adds entries knows how long
ago it did. What its predecessors added is as old as its own first commit of the room.
"""

from collections import OrderedDict, deque
from typing import Final

from roomworker.storage.port import Commit
from roomworker.storage.retention import LONGEST

MARKS_PER_PERIOD: Final = 8
"""Times that are remembered of a stream, for each period that its entries are kept: entries stay at most an eighth of
it longer than they must."""


class _Stream:
    """The stream of a room that this process has committed last, at `version`."""

    __slots__ = ("added", "marks", "used", "version")

    def __init__(self, version: str, now: float) -> None:
        self.version = version
        self.added = 0
        self.used = now
        self.marks: deque[tuple[float, int]] = deque([(now, 0)])
        """Times, each with the number of entries that had been added before."""


class StreamAges:
    """Knows when this process added entries to streams, of rooms that it has committed lately."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, _Stream] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def limit(self, commit: Commit, now: float) -> int | None:
        """Returns to how many entries the commit may trim the stream, its own included; None: not at all.

        A room that another worker has committed meanwhile is not at the version that is known here: what is in its
        stream counts from now on.
        """
        stream = self._streams.get(commit.room)
        if stream is None or stream.version != commit.expected:
            stream = self._streams[commit.room] = _Stream(commit.expected, now)
        marks, oldest = stream.marks, now - commit.keep_sent_ms / 1000
        while len(marks) > 1 and marks[1][0] <= oldest:
            marks.popleft()
        time, added_before = marks[0]
        return stream.added - added_before + 1 if time <= oldest else None

    def limit_now(self, room: str, keep_ms: int, now: float) -> tuple[str, int] | None:
        """Returns the version of a room and to how many entries its stream may be trimmed without a commit.

        None: nothing is old enough, or this process has not committed the room lately.
        """
        stream = self._streams.get(room)
        oldest = now - keep_ms / 1000
        if stream is None or not stream.version or stream.marks[0][0] > oldest:
            return None
        if stream.used <= oldest:
            return stream.version, 0
        before = max(added for time, added in stream.marks if time <= oldest)
        return stream.version, stream.added - before

    def stored(self, commit: Commit, now: float) -> None:
        """Notes that the commit, of which `limit` was asked, is stored."""
        stream = self._streams.get(commit.room)
        if not commit.version or stream is None:
            self.forget(commit.room)
            return
        stream.version, stream.used = commit.version, now
        if commit.entry is not None:
            if now - stream.marks[-1][0] >= commit.keep_sent_ms / 1000 / MARKS_PER_PERIOD:
                stream.marks.append((now, stream.added))
            stream.added += 1
        self._streams.move_to_end(commit.room)
        self._forget_unused(now)

    def forget(self, room: str) -> None:
        """Forgets a room that was deleted, or that another worker has committed."""
        self._streams.pop(room, None)

    def _forget_unused(self, now: float) -> None:
        while self._streams and next(iter(self._streams.values())).used < now - LONGEST:
            self._streams.popitem(last=False)
