"""Histories of a room as a correct server makes them, and as an incorrect one spoils them."""

import random
from dataclasses import dataclass, field

from loadtest.model.room_log import END, Entry, Key, Kind, Member, RoomLog

Seen = tuple[str, int, Entry | dict[str, tuple[int, frozenset[int]]]]
"""Who (name, life), and what: an event, or the answer to its join."""


@dataclass
class Server:
    """Puts everything that happens in one order, and into the inbox of everybody who is there."""

    life: dict[str, int] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    view: dict[str, tuple[int, set[int]]] = field(default_factory=dict)
    inboxes: dict[str, list[Seen]] = field(default_factory=dict)

    def join(self, name: str) -> None:
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
        """Its session ended without a word: the others hear `peerClosed`."""
        life, _ = self.view.pop(name)
        self._tell(Entry(Key(name, life, END), "leave"))

    def _tell(self, entry: Entry) -> None:
        for name, (life, _) in self.view.items():
            self.inboxes.setdefault(name, []).append((name, life, entry))


def crowd(chance: random.Random, steps: int, names: str = "abcd") -> Server:
    """A room in which things happen by chance."""
    server = Server()
    for _ in range(steps):
        name = chance.choice(names)
        if name not in server.view:
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
    """What the log says when everybody reads its inbox in order, and all of them in any."""
    wrong: list[tuple[str, str]] = []
    log = RoomLog("room", lambda kind, text: wrong.append((kind, text)))
    members: dict[tuple[str, int], Member] = {}
    waiting = {name: iter(inbox) for name, inbox in server.inboxes.items()}
    while waiting:
        name = chance.choice(sorted(waiting))
        for _ in range(chance.randrange(1, 6)):
            seen = next(waiting[name], None)
            if seen is None:
                del waiting[name]
                break
            _take(log, members, seen)
    log.settle()
    return wrong


def _take(log: RoomLog, members: dict[tuple[str, int], Member], seen: Seen) -> None:
    name, life, what = seen
    if isinstance(what, dict):
        members[name, life] = Member(name, life)
        log.joined(members[name, life], what)
    elif what.kind == "leave" and what.key[:2] == (name, life):
        log.left(members[name, life], what.key)
    else:
        log.saw(members[name, life], *what)
