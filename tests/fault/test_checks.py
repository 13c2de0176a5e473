"""The fault tests' judge: each kind of failure that it looks for is found when it is there."""

import time
from collections.abc import Iterable

from loadtest.model.event_order import END, Key, Member
from loadtest.model.room import Room
from shared.protocol.client import MESSAGE, NOTIFICATION
from tests.fault.participant import FailureLog, Participant


class Pair:
    """Alice and bob, who have joined a room; bob sends four messages to all, and alice is told of some."""

    def __init__(self, *, bob_first: bool = False) -> None:
        self.log = FailureLog()
        self.room = Room("room", self.log.fail)
        self.alice, self.bob = (Participant([], self.room, name, "seed", 1.0, self.log) for name in ("alice", "bob"))
        first, second = (self.bob, self.alice) if bob_first else (self.alice, self.bob)
        self.join(first, [])
        self.join(second, [first])

    def join(self, who: Participant, there: list[Participant]) -> None:
        who.life += 1
        member = Member(who.name, who.life)
        who._view = who._new_view(member)
        who._doing = self.room.live(who.name, who.life)
        self.room.log.joining(member)
        appdata = {"life": who.life, "t": time.monotonic()}
        for other in there:
            self.tell(other, {"method": "newPeer", "name": who.name, "appData": appdata})
        who._view.record_join([{"name": it.name, "appData": {"life": it.life}, "consumers": []} for it in there])

    def tell(self, who: Participant, data: dict[str, object], method: str = NOTIFICATION) -> None:
        assert who._view is not None
        who._view.notified(method, data)

    def say(self, heard: Iterable[int]) -> None:
        """Bob's messages 1 to 4 are answered; alice is told of `heard`."""
        assert self.bob._view is not None
        for n in range(1, 5):
            self.bob._view.observe(Key("bob", 1, n), "message")
        for n in heard:
            data = {"life": 1, "n": n, "t": time.monotonic()}
            self.tell(self.alice, {"from": "bob", "data": data}, MESSAGE)

    def found(self) -> list[str]:
        self.room.check_complete()
        return [failure.kind for failure in self.log.failures]


def found(*heard: int) -> list[str]:
    pair = Pair()
    pair.say(heard)
    return pair.found()


async def test_messages_that_all_came_are_no_failure() -> None:
    assert found(1, 2, 3, 4) == []


async def test_missing_message_is_lost() -> None:
    assert found(1, 3, 4) == ["lost"]
    assert found(1, 2, 3) == ["lost"]
    assert found(2, 3, 4) == ["lost"]
    assert found() == ["lost"] * 4


async def test_peer_that_leaves_early_or_joins_late_misses_nothing() -> None:
    pair = Pair()
    pair.say([1, 2])
    assert pair.alice._view is not None
    pair.alice._view.ended()
    assert pair.found() == []
    late = Pair(bob_first=True)
    assert late.found() == []


async def test_repeated_message_is_duplicated() -> None:
    assert found(1, 2, 2, 3, 4) == ["duplicated"]


async def test_messages_out_of_order_are_reordered() -> None:
    assert found(1, 3, 2, 4) == ["reordered"]


async def test_messages_to_one_peer_are_checked_alike() -> None:
    def told(*numbers: int) -> list[str]:
        pair = Pair()
        for n in range(1, 4):
            assert pair.room.direct.next_number("bob", "alice") == n
        for n in numbers:
            pair.tell(pair.alice, {"from": "bob", "data": {"one": n, "t": 0.0}}, MESSAGE)
        for n in range(1, 4):
            pair.room.direct.accepted("bob", "alice", n)
        return pair.found()

    assert told(1, 2, 3) == []
    assert told(1, 3) == ["lost"]
    assert told(1, 2, 2, 3) == ["duplicated"]


async def test_request_without_answer_is_unanswered() -> None:
    class Silent:
        def unanswered(self) -> list[str]:
            return ["join"]

    pair = Pair()
    pair.alice.session = Silent()  # type: ignore[assignment]
    pair.alice.report_unanswered()
    assert [failure.kind for failure in pair.log.failures] == ["unanswered"]


async def test_peer_closed_by_the_server_is_removed_from_the_view() -> None:
    pair = Pair()
    pair.tell(pair.alice, {"method": "peerClosed", "name": "bob"})
    assert pair.bob._doing.leave == END
    assert pair.bob._view is not None
    pair.bob._view.ended()
    assert pair.found() == []
    assert pair.alice.peers == set()
