"""Checks messages to one peer: each that the server accepted comes once and in order. Pure."""

from dataclasses import dataclass, field

from loadtest.model.failures import Fail


@dataclass
class _Pair:
    """The messages from one peer to one other."""

    sent: int = 0
    received: int = 0
    accepted: set[int] = field(default_factory=set)
    """Answered, not received yet."""
    early: set[int] = field(default_factory=set)
    """Received, not answered yet."""
    excused: int = 0
    """Up to this number the receiver may have been away without the server knowing it."""


class DirectMessages:
    """The messages of one room. Numbers grow by one per message from one peer to one other, over all their lives."""

    def __init__(self, room: str, fail: Fail) -> None:
        self._room = room
        self._fail = fail
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._without_session: set[str] = set()

    def next_number(self, sender: str, receiver: str) -> int:
        """Returns the number of a message that is about to be sent."""
        pair = self._pairs.setdefault((sender, receiver), _Pair())
        pair.sent += 1
        return pair.sent

    def accepted(self, sender: str, receiver: str, n: int) -> None:
        """Records that a message was answered without an error: the receiver was there."""
        pair = self._pairs[sender, receiver]
        if n in pair.early:
            pair.early.discard(n)
        elif n > pair.excused:
            pair.accepted.add(n)

    def received(self, sender: str, receiver: str, n: int) -> None:
        pair = self._pairs.get((sender, receiver))
        about = f"{self._room}/{receiver}: message {n} of {sender} to it alone"
        if pair is None or n > pair.sent:
            self._fail("mismatch", f"{about}, which was never sent")
        elif n <= pair.received:
            kind = "reordered" if n in pair.accepted else "duplicated"
            self._fail(kind, f"{about} came {'after' if kind == 'reordered' else 'again,'} {pair.received}")
            pair.accepted.discard(n)
        else:
            pair.received = n
            if n in pair.accepted:
                pair.accepted.discard(n)
            else:
                pair.early.add(n)

    def ended(self, receiver: str) -> None:
        """Records that a receiver's session ended without a leave: for the server it may still be there."""
        self._without_session.add(receiver)

    def joined(self, receiver: str) -> None:
        """Records that a receiver has joined: from now on it receives everything."""
        if receiver not in self._without_session:
            return
        self._without_session.discard(receiver)
        for (_, to), pair in self._pairs.items():
            if to == receiver:
                pair.excused = pair.sent
                pair.accepted.clear()

    def check_complete(self) -> None:
        """Reports what never came. Nothing may be under way any more."""
        for (sender, receiver), pair in self._pairs.items():
            for n in sorted(pair.accepted) if receiver not in self._without_session else ():
                self._fail("lost", f"{self._room}/{receiver}: message {n} of {sender} to it alone never came")
            pair.accepted.clear()
