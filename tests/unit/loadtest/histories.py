"""Histories of a room as a correct server makes them, and as an incorrect one spoils them."""

import random
from dataclasses import dataclass, field

from loadtest.model.event_order import END, Entry, EventOrder, Key, Kind, Member

Seen = tuple[str, int, Entry | dict[str, tuple[int, frozenset[int]]] | None]
"""A peer (name, life), and an event, the answer to its join, or None for the end of its session."""


@dataclass
class Server:
    """Puts all events into one order, and into the inbox of each peer that is present."""

    life: dict[str, int] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    view: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    inboxes: dict[str, list[Seen]] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    """Peers that are not there any more, and the server does not know it yet."""

    def join(self, name: str) -> None:
        if name in self.view:
            self.drop(name)
        self.life[name] = self.life.get(name, 0) + 1
        self.n[name] = 0
        listed = {other: (life, frozenset(open_)) for other, (life, open_) in self.view.items()}
        entry = Entry(Key(name, self.life[name], 0), "join")
        self._tell(entry)
        self.view[name] = (self.life[name], set())
        self.inboxes.setdefault(name, []).append((name, self.life[name], listed))

    def do(self, name: str, kind: Kind, about: int = 0) -> Key:
        self.n[name] += 1
        key = Key(name, self.life[name], self.n[name])
        if kind == "producer":
            self.view[name][1].add(key.n)
        if kind == "close":
            self.view[name][1].discard(about)
        self._tell(Entry(key, kind, about))
        if kind == "leave":
            del self.view[name]
        return key

    def drop(self, name: str) -> None:
        """The server ends a session: the others are told `peerClosed`."""
        life, _ = self.view.pop(name)
        self.cut.discard(name)
        self._tell(Entry(Key(name, life, END), "leave"))

    def lose(self, name: str) -> None:
        """The session of a peer ends on its own side: the peer is told nothing more in this life."""
        self.cut.add(name)
        self.inboxes[name].append((name, self.life[name], None))

    def _tell(self, entry: Entry) -> None:
        for name, (life, _) in self.view.items():
            if name not in self.cut:
                self.inboxes.setdefault(name, []).append((name, life, entry))


def crowd(chance: random.Random, steps: int, names: str = "abcd", losses: float = 0.0) -> Server:
    """A room in which things happen by chance.

    `losses` is the probability, for each step, that the sessions of some or of all who are there end.
    """
    server = Server()
    for _ in range(steps):
        if chance.random() < losses:
            there = sorted(server.view.keys() - server.cut)
            for name in there if chance.random() < 0.5 else chance.sample(there, min(1, len(there))):
                server.lose(name)
        name = chance.choice(names)
        if name in server.cut and chance.random() < 0.5:
            server.drop(name)
        if name not in server.view or name in server.cut:
            server.join(name)
            continue
        open_ = server.view[name][1]
        kind = chance.choices(["message", "producer", "close", "leave"], [8, 3, 2, 1])[0]
        if kind == "close" and open_:
            server.do(name, "close", min(open_))
        elif kind != "close":
            server.do(name, kind)  # type: ignore[arg-type]
    return server


def read(server: Server, chance: random.Random) -> list[tuple[str, str]]:
    """Returns the log's failures when each member reads its inbox in order, and members take turns at random."""
    wrong: list[tuple[str, str]] = []
    log = EventOrder("room", lambda kind, text: wrong.append((kind, text)))
    members = {
        (name, life): Member(name, life)
        for inbox in server.inboxes.values()
        for name, life, what in inbox
        if isinstance(what, dict)
    }
    for member in members.values():
        log.joining(member)  # it is sent before anybody can be told of it
    waiting = {name: iter(inbox) for name, inbox in server.inboxes.items()}
    while waiting:
        name = chance.choice(sorted(waiting))
        for _ in range(chance.randrange(1, 6)):
            seen = next(waiting[name], None)
            if seen is None:
                del waiting[name]
                break
            _take(log, members, seen)
    log.check_complete()
    return wrong


def _take(log: EventOrder, members: dict[tuple[str, int], Member], seen: Seen) -> None:
    name, life, what = seen
    member = members[name, life]
    if what is None:
        log.ended(member)
    elif isinstance(what, dict):
        log.joined(member, what)
    elif what.kind == "leave" and what.key[:2] == (name, life):
        log.left(member, what.key)
    else:
        log.observe(member, *what)
