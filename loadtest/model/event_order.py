"""Checks that every member of a room sees every event, once and in one order. Pure.

The events that all members see (a peer joins, creates or closes a producer, sends a message to all, or leaves) have
one order. Each member sees the events between its own join and its own leave: those of others as notifications, its
own as answers. So all members read one log, each at its own position. The member that is furthest writes the log; all
others must find the same. A member's position follows from its own join, which the others see. No check depends on
when an event arrives.

A correct server has no failures. Every fault of an incorrect one is counted at least once. Whether one member saw too
little or another too much cannot always be known, so a fault may be counted for several members.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from loadtest.model.failures import Fail

Kind: TypeAlias = Literal["join", "producer", "close", "message", "leave"]

END: Final = 1 << 40
"""The number of a leave that the peer did not request, which comes after all its events."""
_TRIM: Final = 512
_LIVES_KEPT: Final = 16
"""Lives kept per peer: older ones affect no member."""


class Key(NamedTuple):
    """Identifies an event: the `n`th of a peer's life, counted from its join (0)."""

    peer: str
    life: int
    n: int


Listed: TypeAlias = Mapping[str, tuple[int, frozenset[int]]]
"""The members that a join answer lists: life and open producers (their `n`) by name."""


class Entry(NamedTuple):
    key: Key
    kind: Kind
    about: int = 0
    """The `n` of the producer, if it is a `close`."""


@dataclass(eq=False)
class Member:
    """The life of a peer from one join to its leave."""

    name: str
    life: int
    segment: "Segment | None" = None
    """The segment, or None until the member's position is known."""
    start: int = 0
    cursor: int = 0
    has_left: bool = False
    """True if the member left before its position was known."""
    listed: Listed = field(default_factory=dict)
    pending: list[Entry] = field(default_factory=list)
    """Events that the member saw before its position was known."""
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Life and number of the last event that the member saw, by peer."""
    missed: dict[Key, Kind] = field(default_factory=dict)
    """Events that the member passed without seeing them."""

    @property
    def own(self) -> tuple[str, int]:
        return self.name, self.life


class Segment:
    """The log since the room was last empty. Positions are counted from its first entry ever."""

    def __init__(self) -> None:
        self.base = 0
        self.entries: list[Entry] = []
        self.index: dict[Key, int] = {}
        self.view: dict[str, tuple[int, set[int]]] = {}
        self.members: set[Member] = set()
        self.trimmed: dict[str, tuple[int, int]] = {}
        """Life and number of the last event that was trimmed, by peer."""
        self.departed: list[Member] = []
        """Members that left, while another member may still be at an earlier position."""
        self.reserved: dict[tuple[str, int], tuple[int, Listed]] = {}
        """Joins that others saw: the position, and the members then."""

    @property
    def end(self) -> int:
        return self.base + len(self.entries)

    def insert(self, at: int, entry: Entry) -> None:
        """Inserts an event, usually at the end; elsewhere only one that others have missed."""
        self.entries.insert(at - self.base, entry)
        for later in self.entries[at - self.base + 1 :]:
            self.index[later.key] += 1
        for joined, (place, here) in self.reserved.items():
            if place >= at:
                self.reserved[joined] = (place + 1, here)
        self.index[entry.key] = at
        self._apply(at, entry)

    def _apply(self, at: int, entry: Entry) -> None:
        (peer, life, n), kind, about = entry
        match kind:
            case "join":
                here: Listed = {name: (there, frozenset(open_)) for name, (there, open_) in self.view.items()}
                self.reserved[peer, life] = (at, here)
                self.view[peer] = (life, set())
            case "leave":
                self.view.pop(peer, None)
            case "producer" if peer in self.view:
                self.view[peer][1].add(n)
            case "close" if peer in self.view:
                self.view[peer][1].discard(about)
            case _:
                pass

    def trim(self) -> None:
        """Drops the events that every member is past."""
        places = [member.cursor for member in self.members] + [at for at, _ in self.reserved.values()]
        past = min(places, default=self.end) - self.base
        self.departed = [member for member in self.departed if member.cursor > self.base + past]
        for entry in self.entries[:past]:
            del self.index[entry.key]
            peer, life, n = entry.key
            self.trimmed[peer] = max((life, n), self.trimmed.get(peer, (0, -1)))
        del self.entries[:past]
        self.base += past


class EventOrder:
    """Checks the events of one room against the one order in which all members must see them."""

    def __init__(self, room: str, fail: Fail) -> None:
        self._room = room
        self._fail = fail
        self._segments: dict[str, dict[int, Segment]] = {}
        """The segments of the last lives, by peer and life."""
        self._joining: set[tuple[str, int]] = set()
        """Lives whose join is requested and not answered: they will see later joins."""
        self._unplaced: dict[tuple[str, int], Member] = {}
        self._ended_early: set[tuple[str, int]] = set()
        """Lives that ended before they had a position: others may still see them join."""

    # --- what members report ------------------------------------------------------------------------------------

    def joining(self, member: Member) -> None:
        """Records that a join was sent."""
        self._joining.add(member.own)

    def joined(self, member: Member, listed: Listed) -> None:
        """Records the answer to a join, which lists the members."""
        self._joining.discard(member.own)
        member.listed = listed
        self._unplaced[member.own] = member
        member.last = {name: (life, max(open_, default=0)) for name, (life, open_) in listed.items()}
        if listed:
            self._place_all()
            self._place_unwitnessed()
        else:
            self._begin(member)

    def observe(self, member: Member, key: Key, kind: Kind, about: int = 0) -> None:
        """Records a notification, or the answer to the member's own request."""
        entry = Entry(key, kind, about)
        if member.segment is None:
            member.pending.append(entry)
        else:
            self._advance(member, member.segment, entry)

    def left(self, member: Member, key: Key) -> None:
        """Records the answer to a leave: the member has seen all earlier events."""
        self.observe(member, key, "leave")
        if member.segment is None:
            member.has_left = True
        else:
            self._remove(member)

    def ended(self, member: Member) -> None:
        """Records the end of a session, before or after the join was answered: the member sees nothing more."""
        self._joining.discard(member.own)
        if member.segment is None:
            self._ended_early.add(member.own)
        self._remove(member)

    def _place_unwitnessed(self) -> None:
        """Places the members whose join no remaining member will see."""
        for waiting in list(self._unplaced.values()):
            if waiting.own in self._unplaced and not self._is_witnessed(waiting):
                self._begin_log_of(waiting)

    # --- the end ----------------------------------------------------------------------------------------------

    def check_complete(self) -> None:
        """Reports what members have missed. Each must be at the end of the log, so nothing may be on its way."""
        for waiting in list(self._unplaced.values()):
            self._fail("mismatch", f"{self._name(waiting)}: no peer that its join listed has seen it join")
            self._begin_log_of(waiting)
        living = {segment for lives in self._segments.values() for segment in lives.values() if segment.members}
        if len(living) > 1:
            names = sorted(min(member.name for member in segment.members) for segment in living)
            self._fail("mismatch", f"{self._room}: {', '.join(names)} are in it, but not with each other")
        for segment in living:
            for member in segment.members:
                for entry in segment.entries[member.cursor - segment.base :]:
                    member.missed[entry.key] = entry.kind
                member.cursor = segment.end
                self._report_missed(member)

    def view(self) -> dict[str, tuple[int, set[int]]]:
        """Returns the members by the log: life and open producers by name."""
        segments = {segment for lives in self._segments.values() for segment in lives.values() if segment.members}
        return {name: there for segment in segments for name, there in segment.view.items()}

    # --- the log ----------------------------------------------------------------------------------------------

    def _advance(self, member: Member, segment: Segment, entry: Entry) -> None:
        key = entry.key
        if (key.life, key.n) <= member.last.get(key.peer, (0, -1)):
            self._observe_late(member, segment, entry)
            return
        member.last[key.peer] = (key.life, key.n)
        at = segment.index.get(key)
        if at is None:
            self._write(member, segment, entry)
        elif at >= member.cursor:
            for skipped in segment.entries[member.cursor - segment.base : at - segment.base]:
                member.missed[skipped.key] = skipped.kind
            member.cursor = at + 1
        else:
            self._report_repeated(member, entry)

    def _write(self, member: Member, segment: Segment, entry: Entry) -> None:
        """Writes a new event. Usually the member is the first to see it; otherwise the others have missed it."""
        at = member.cursor
        if at < segment.end:
            at = self._position_after_own(member, segment, entry)
            self._insert(segment, at, entry)
        segment.insert(at, entry)
        member.cursor = at + 1
        if entry.kind == "join":
            joined = (entry.key.peer, entry.key.life)
            if joined in self._ended_early:
                self._ended_early.discard(joined)
                del segment.reserved[joined]
            elif joined in self._unplaced:
                self._place_all()
        if len(segment.entries) > _TRIM:
            segment.trim()

    def _position_after_own(self, member: Member, segment: Segment, entry: Entry) -> int:
        """Returns the position after the same peer's earlier events, which the member has missed."""
        upcoming = segment.entries[member.cursor - segment.base :]
        for at in range(len(upcoming), 0, -1):
            before = upcoming[at - 1].key
            if before.peer == entry.key.peer and before < entry.key:
                member.missed |= {skipped.key: skipped.kind for skipped in upcoming[:at]}
                return member.cursor + at
        return member.cursor

    def _insert(self, segment: Segment, at: int, entry: Entry) -> None:
        """Inserts an event. Members that are past its position, and were in the room then, have missed it."""
        for other in (*segment.members, *segment.departed):
            if at >= other.cursor:
                continue
            other.cursor += 1
            if other.start > at:
                other.start += 1
            else:
                other.missed[entry.key] = entry.kind
                if other in segment.departed:
                    self._report_missed(other)

    def _observe_late(self, member: Member, segment: Segment, entry: Entry) -> None:
        """Records an event that came after a later one of the same peer."""
        key = entry.key
        if key in segment.index or (key.life, key.n) <= segment.trimmed.get(key.peer, (0, -1)):
            self._report_repeated(member, entry)
        else:
            member.missed[key] = entry.kind
            self._report_repeated(member, entry)
            self._write(member, segment, entry)

    def _report_repeated(self, member: Member, entry: Entry) -> None:
        about = f"{self._name(member)}: {_describe(entry.key, entry.kind)}"
        if member.missed.pop(entry.key, None) is not None:
            self._fail("reordered", f"{about} came after what followed it")
        else:
            self._fail("duplicated", f"{about} came again")

    # --- positions -----------------------------------------------------------------------------------------------

    def _begin(self, member: Member) -> None:
        """Begins the log of an empty room."""
        segment = Segment()
        segment.insert(0, Entry(Key(*member.own, 0), "join"))
        self._place(member, segment)
        self._place_all()

    def _place_all(self) -> None:
        """Places all members whose join was seen; a placed member may be the witness of another."""
        found = True
        while found:
            found = False
            for member in list(self._unplaced.values()):
                segment = next((it for it in self._segments_of(member) if member.own in it.reserved), None)
                if segment is not None:
                    self._place(member, segment)
                    found = True

    def _place(self, member: Member, segment: Segment) -> None:
        if self._unplaced.pop(member.own, None) is None:
            return  # the member was placed while its witnesses were
        at, here = segment.reserved.pop(member.own)
        if here != member.listed:
            self._fail(
                "mismatch", f"{self._name(member)}: was told {_listed(member.listed)}, there is {_listed(here)}"
            )
        member.segment, member.start, member.cursor = segment, at + 1, at + 1
        segment.members.add(member)
        lives = self._segments.setdefault(member.name, {})
        lives[member.life] = segment
        while len(lives) > _LIVES_KEPT:
            del lives[min(lives)]
        pending, member.pending = member.pending, []
        for entry in pending:
            self._advance(member, segment, entry)
        if member.has_left:
            self._remove(member)

    def _segments_of(self, member: Member) -> list[Segment]:
        """Returns the segments of the listed members; several if sessions of some have ended long ago."""
        found = (self._segments.get(name, {}).get(life) for name, (life, _) in member.listed.items())
        return [segment for segment in dict.fromkeys(found) if segment is not None]

    def _is_witnessed(self, member: Member) -> bool:
        """Returns whether a member is left that sees the join, or has seen it."""
        if any(segment.members or member.own in segment.reserved for segment in self._segments_of(member)):
            return True
        others = {(name, life) for name, (life, _) in member.listed.items()}
        return any(other in self._unplaced or other in self._joining for other in others)

    def _begin_log_of(self, member: Member) -> None:
        """Begins a log for a member whose join no remaining member will see."""
        segment = Segment()
        segment.view = {name: (life, set(open_)) for name, (life, open_) in member.listed.items()}
        segment.insert(0, Entry(Key(*member.own, 0), "join"))
        self._place(member, segment)
        self._place_all()

    def _remove(self, member: Member) -> None:
        self._unplaced.pop(member.own, None)
        for segment in self._segments.get(member.name, {}).values():
            segment.reserved.pop(member.own, None)
        if member.segment is not None:
            member.segment.members.discard(member)
            member.segment.departed.append(member)
            self._report_missed(member)
        self._place_unwitnessed()

    def _report_missed(self, member: Member) -> None:
        for key, kind in member.missed.items():
            self._fail("lost", f"{self._name(member)}: {_describe(key, kind)} never came")
        member.missed.clear()

    def _name(self, member: Member) -> str:
        return f"{self._room}/{member.name} (life {member.life})"


def _describe(key: Key, kind: Kind) -> str:
    what = {"join": "newPeer", "producer": "newConsumer", "close": "consumerClosed", "leave": "peerClosed"}.get(
        kind, kind
    )
    return f"{what} of {key.peer} (life {key.life}, its event {'last' if key.n >= END else key.n})"


def _listed(listed: Listed) -> str:
    there = (f"{name} (life {life}, producers {sorted(open_)})" for name, (life, open_) in sorted(listed.items()))
    return ", ".join(there) or "nobody"
