"""Checks messages to one peer: each that the server accepted comes once and in order. Pure."""

from dataclasses import dataclass, field

from loadtest.model.failures import Fail


@dataclass
class _Pair:
    """The messages from one peer to another."""

    sent: int = 0
    received: int = 0
    accepted: set[int] = field(default_factory=set)
    """Numbers of messages that were answered and not received yet."""
    early: set[int] = field(default_factory=set)
    """Numbers of messages that were received before they were answered."""
    excused: int = 0
    """The highest number up to which messages may be lost: the receiver was away without the server knowing."""


class DirectMessages:
    """The messages to one peer in a room. Numbers grow by one from each peer to each other, over all their lives."""

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
        """Records that a message was answered without an error: the receiver was in the room."""
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
        """Records that a receiver's session ended without a leave: the server may still consider it present."""
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
        """Reports the messages that never arrived. Call it when no message can be on its way."""
        for (sender, receiver), pair in self._pairs.items():
            for n in sorted(pair.accepted) if receiver not in self._without_session else ():
                self._fail("lost", f"{self._room}/{receiver}: message {n} of {sender} to it alone never came")
            pair.accepted.clear()
