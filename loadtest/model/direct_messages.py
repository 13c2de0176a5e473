"""Whether messages to one peer come: each that was taken, once, in order. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

Fail = Callable[[str, str], None]


@dataclass
class _Line:
    """From one peer to one other."""

    said: int = 0
    heard: int = 0
    taken: set[int] = field(default_factory=set)
    """Answered, not heard yet."""
    early: set[int] = field(default_factory=set)
    """Heard, not answered yet."""
    excused: int = 0
    """Up to here the receiver may not have been there to hear, and the server not have known that."""


class DirectMessages:
    """Of one room. Numbers go up by one for each message from one peer to one other, over all their lives."""

    def __init__(self, room: str, fail: Fail) -> None:
        self._room = room
        self._fail = fail
        self._lines: dict[tuple[str, str], _Line] = {}
        self._deaf: set[str] = set()

    def say(self, sender: str, receiver: str) -> int:
        """The number of the next message."""
        line = self._lines.setdefault((sender, receiver), _Line())
        line.said += 1
        return line.said

    def taken(self, sender: str, receiver: str, n: int) -> None:
        """It was answered, not with an error: the receiver was there."""
        line = self._lines[sender, receiver]
        if n in line.early:
            line.early.discard(n)
        elif n > line.excused:
            line.taken.add(n)

    def heard(self, sender: str, receiver: str, n: int) -> None:
        line = self._lines.get((sender, receiver))
        about = f"{self._room}/{receiver}: message {n} of {sender} to it alone"
        if line is None or n > line.said:
            self._fail("mismatch", f"{about}, which was never sent")
        elif n <= line.heard:
            kind = "reordered" if n in line.taken else "duplicated"
            self._fail(kind, f"{about} came {'after' if kind == 'reordered' else 'again,'} {line.heard}")
            line.taken.discard(n)
        else:
            line.heard = n
            if n in line.taken:
                line.taken.discard(n)
            else:
                line.early.add(n)

    def ended(self, receiver: str) -> None:
        """Its session ended without a word: for the server it may still be there."""
        self._deaf.add(receiver)

    def joined(self, receiver: str) -> None:
        """It is there again: from now on it hears everything."""
        if receiver not in self._deaf:
            return
        self._deaf.discard(receiver)
        for (_, to), line in self._lines.items():
            if to == receiver:
                line.excused = line.said
                line.taken.clear()

    def settle(self) -> None:
        """Nothing is under way any more: what was taken has come."""
        for (sender, receiver), line in self._lines.items():
            for n in sorted(line.taken) if receiver not in self._deaf else ():
                self._fail("lost", f"{self._room}/{receiver}: message {n} of {sender} to it alone never came")
            line.taken.clear()
