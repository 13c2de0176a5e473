"""Whether everybody in a room is told everything, once and in one order. Pure: no socket, no clock.

What happens in a room for all to see (somebody joins, sends, closes a producer, says something to all, leaves)
happens in one order, and each member sees it between its own join and its own leaving: what others did as a
notification, what it did itself as the answer. So all members read one log, each at its own place. Whoever is
furthest writes it; all others must find the same. A member's place follows from its own join, which the others
see. Nothing here depends on when things come.

A correct server is never blamed. Of an incorrect one every fault is counted at least once; whether one member was
told too little or another too much cannot always be known, so that one fault may be counted for several of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["join", "producer", "close", "message", "leave"]
Fail: TypeAlias = Callable[[str, str], None]
"""Is told of each failure: its kind and a sentence."""

END: Final = 1 << 40
"""The number of a leave that the peer itself did not announce: it comes after all it did."""
_TRIM: Final = 512
_LIVES_KEPT: Final = 16
"""Of each peer: by then everybody has been told of them."""


class Key(NamedTuple):
    """One thing that happened: the `n`th of a peer's life, counted from its join (0)."""

    peer: str
    life: int
    n: int


Listed: TypeAlias = Mapping[str, tuple[int, frozenset[int]]]
"""Who is there: life and open producers (their `n`) by name."""


class Entry(NamedTuple):
    key: Key
    kind: Kind
    about: int = 0
    """Of a `close`: the `n` of its producer."""


@dataclass(eq=False)
class Member:
    """One life of one peer, from its join to its leaving."""

    name: str
    life: int
    segment: "Segment | None" = None
    """None until it is known where in the log it joined."""
    start: int = 0
    cursor: int = 0
    gone: bool = False
    """It left before its place was known."""
    listed: Listed = field(default_factory=dict)
    held: list[Entry] = field(default_factory=list)
    """What it saw before its place was known."""
    last: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By peer: life and number of the last it saw."""
    missed: dict[Key, Kind] = field(default_factory=dict)
    """What it passed without seeing it."""

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
        """By peer: life and number of the last that is forgotten."""
        self.departed: list[Member] = []
        """Who left, while somebody may still be behind."""
        self.reserved: dict[tuple[str, int], tuple[int, Listed]] = {}
        """Joins that others saw: the place, and who was there then."""

    @property
    def end(self) -> int:
        return self.base + len(self.entries)

    def put(self, at: int, entry: Entry) -> None:
        """Usually at the end; elsewhere only what others have missed."""
        self.entries.insert(at - self.base, entry)
        for later in self.entries[at - self.base + 1 :]:
            self.index[later.key] += 1
        for joined, (place, here) in self.reserved.items():
            if place >= at:
                self.reserved[joined] = (place + 1, here)
        self.index[entry.key] = at
        self._fold(at, entry)

    def _fold(self, at: int, entry: Entry) -> None:
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
        """Forgets what everybody is past."""
        places = [member.cursor for member in self.members] + [at for at, _ in self.reserved.values()]
        past = min(places, default=self.end) - self.base
        self.departed = [member for member in self.departed if member.cursor > self.base + past]
        for entry in self.entries[:past]:
            del self.index[entry.key]
            peer, life, n = entry.key
            self.trimmed[peer] = max((life, n), self.trimmed.get(peer, (0, -1)))
        del self.entries[:past]
        self.base += past


class RoomLog:
    def __init__(self, room: str, fail: Fail) -> None:
        self._room = room
        self._fail = fail
        self._segments: dict[str, dict[int, Segment]] = {}
        """Where each peer's last lives were."""
        self._joining: set[tuple[str, int]] = set()
        """Lives whose join is asked for and not answered: they will see who joins after them."""
        self._unplaced: dict[tuple[str, int], Member] = {}
        self._over: set[tuple[str, int]] = set()
        """Lives that ended before they had a place: others may still see them join."""

    # --- what members tell ------------------------------------------------------------------------------------

    def joining(self, member: Member) -> None:
        """Its join is sent."""
        self._joining.add(member.own)

    def joined(self, member: Member, listed: Listed) -> None:
        """Its join was answered with who is there."""
        self._joining.discard(member.own)
        member.listed = listed
        self._unplaced[member.own] = member
        member.last = {name: (life, max(open_, default=0)) for name, (life, open_) in listed.items()}
        if listed:
            self._place_all()
            self._orphan_unwitnessed()
        else:
            self._begin(member)

    def saw(self, member: Member, key: Key, kind: Kind, about: int = 0) -> None:
        """A notification, or the answer to what it did itself."""
        entry = Entry(key, kind, about)
        if member.segment is None:
            member.held.append(entry)
        else:
            self._advance(member, member.segment, entry)

    def left(self, member: Member, key: Key) -> None:
        """Its leave was answered: all that came before has come."""
        self.saw(member, key, "leave")
        if member.segment is None:
            member.gone = True
        else:
            self._remove(member)

    def ended(self, member: Member) -> None:
        """Its session ended, whether or not it had joined: what it did not see by now it will not see."""
        self._joining.discard(member.own)
        if member.segment is None:
            self._over.add(member.own)
        self._remove(member)

    def _orphan_unwitnessed(self) -> None:
        """Places the members whose join nobody can see any more: those who could are gone."""
        for waiting in list(self._unplaced.values()):
            if waiting.own in self._unplaced and not self._is_witnessed(waiting):
                self._orphan(waiting)

    # --- the end ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing is under way any more, so everybody must be at the end of the log."""
        for waiting in list(self._unplaced.values()):
            self._fail("mismatch", f"{self._who(waiting)}: nobody whom it was told of has seen it join")
            self._orphan(waiting)
        living = {segment for lives in self._segments.values() for segment in lives.values() if segment.members}
        if len(living) > 1:
            names = sorted(min(member.name for member in segment.members) for segment in living)
            self._fail("mismatch", f"{self._room}: {', '.join(names)} are in it, but not with each other")
        for segment in living:
            for member in segment.members:
                for entry in segment.entries[member.cursor - segment.base :]:
                    member.missed[entry.key] = entry.kind
                member.cursor = segment.end
                self._give_up(member)

    def view(self) -> dict[str, tuple[int, set[int]]]:
        """Who should be there now, by the log; life and open producers."""
        segments = {segment for lives in self._segments.values() for segment in lives.values() if segment.members}
        return {name: there for segment in segments for name, there in segment.view.items()}

    # --- the log ----------------------------------------------------------------------------------------------

    def _advance(self, member: Member, segment: Segment, entry: Entry) -> None:
        key = entry.key
        if (key.life, key.n) <= member.last.get(key.peer, (0, -1)):
            self._late(member, segment, entry)
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
            self._again(member, entry)

    def _write(self, member: Member, segment: Segment, entry: Entry) -> None:
        """Usually the member is the first to see it. If it is not, the others have missed it."""
        at = member.cursor
        if at < segment.end:
            at = self._behind(member, segment, entry)
            self._insert(segment, at, entry)
        segment.put(at, entry)
        member.cursor = at + 1
        if entry.kind == "join":
            joined = (entry.key.peer, entry.key.life)
            if joined in self._over:
                self._over.discard(joined)
                del segment.reserved[joined]
            elif joined in self._unplaced:
                self._place_all()
        if len(segment.entries) > _TRIM:
            segment.trim()

    def _behind(self, member: Member, segment: Segment, entry: Entry) -> int:
        """Its place: behind what the same peer did before, which the member has missed then."""
        upcoming = segment.entries[member.cursor - segment.base :]
        for at in range(len(upcoming), 0, -1):
            before = upcoming[at - 1].key
            if before.peer == entry.key.peer and before < entry.key:
                member.missed |= {skipped.key: skipped.kind for skipped in upcoming[:at]}
                return member.cursor + at
        return member.cursor

    def _insert(self, segment: Segment, at: int, entry: Entry) -> None:
        """Whoever is past this place, and was there, has missed it."""
        for other in (*segment.members, *segment.departed):
            if at >= other.cursor:
                continue
            other.cursor += 1
            if other.start > at:
                other.start += 1
            else:
                other.missed[entry.key] = entry.kind
                if other in segment.departed:
                    self._give_up(other)

    def _late(self, member: Member, segment: Segment, entry: Entry) -> None:
        """What the same peer did later has been seen."""
        key = entry.key
        if key in segment.index or (key.life, key.n) <= segment.trimmed.get(key.peer, (0, -1)):
            self._again(member, entry)
        else:
            member.missed[key] = entry.kind
            self._again(member, entry)
            self._write(member, segment, entry)

    def _again(self, member: Member, entry: Entry) -> None:
        about = f"{self._who(member)}: {_said(entry.key, entry.kind)}"
        if member.missed.pop(entry.key, None) is not None:
            self._fail("reordered", f"{about} came after what followed it")
        else:
            self._fail("duplicated", f"{about} came again")

    # --- places -----------------------------------------------------------------------------------------------

    def _begin(self, member: Member) -> None:
        """It is the first in an empty room."""
        segment = Segment()
        segment.put(0, Entry(Key(*member.own, 0), "join"))
        self._settle_in(member, segment)
        self._place_all()

    def _place_all(self) -> None:
        """One that finds its place may be the one that another is waiting for."""
        found = True
        while found:
            found = False
            for member in list(self._unplaced.values()):
                segment = next((it for it in self._segments_of(member) if member.own in it.reserved), None)
                if segment is not None:
                    self._settle_in(member, segment)
                    found = True

    def _settle_in(self, member: Member, segment: Segment) -> None:
        if self._unplaced.pop(member.own, None) is None:
            return  # while its place was made, it was found
        at, here = segment.reserved.pop(member.own)
        if here != member.listed:
            self._fail(
                "mismatch", f"{self._who(member)}: was told {_listed(member.listed)}, there is {_listed(here)}"
            )
        member.segment, member.start, member.cursor = segment, at + 1, at + 1
        segment.members.add(member)
        lives = self._segments.setdefault(member.name, {})
        lives[member.life] = segment
        while len(lives) > _LIVES_KEPT:
            del lives[min(lives)]
        held, member.held = member.held, []
        for entry in held:
            self._advance(member, segment, entry)
        if member.gone:
            self._remove(member)

    def _segments_of(self, member: Member) -> list[Segment]:
        """Where those were that it was told of; more than one if the sessions of some have ended long ago."""
        found = (self._segments.get(name, {}).get(life) for name, (life, _) in member.listed.items())
        return [segment for segment in dict.fromkeys(found) if segment is not None]

    def _is_witnessed(self, member: Member) -> bool:
        """Whether somebody is left who sees it join, or has."""
        if any(segment.members or member.own in segment.reserved for segment in self._segments_of(member)):
            return True
        others = {(name, life) for name, (life, _) in member.listed.items()}
        return any(other in self._unplaced or other in self._joining for other in others)

    def _orphan(self, member: Member) -> None:
        """All who could have seen it join are gone: it begins a log of its own."""
        segment = Segment()
        segment.view = {name: (life, set(open_)) for name, (life, open_) in member.listed.items()}
        segment.put(0, Entry(Key(*member.own, 0), "join"))
        self._settle_in(member, segment)
        self._place_all()

    def _remove(self, member: Member) -> None:
        self._unplaced.pop(member.own, None)
        for segment in self._segments.get(member.name, {}).values():
            segment.reserved.pop(member.own, None)
        if member.segment is not None:
            member.segment.members.discard(member)
            member.segment.departed.append(member)
            self._give_up(member)
        self._orphan_unwitnessed()

    def _give_up(self, member: Member) -> None:
        for key, kind in member.missed.items():
            self._fail("lost", f"{self._who(member)}: {_said(key, kind)} never came")
        member.missed.clear()

    def _who(self, member: Member) -> str:
        return f"{self._room}/{member.name} (life {member.life})"


def _said(key: Key, kind: Kind) -> str:
    what = {"join": "newPeer", "producer": "newConsumer", "close": "consumerClosed", "leave": "peerClosed"}.get(
        kind, kind
    )
    return f"{what} of {key.peer} (life {key.life}, its event {'last' if key.n >= END else key.n})"


def _listed(listed: Listed) -> str:
    there = (f"{name} (life {life}, producers {sorted(open_)})" for name, (life, open_) in sorted(listed.items()))
    return ", ".join(there) or "nobody"
