"""The judge judged: each kind of wrong that the fault tests look for is seen when it is there."""

from tests.fault import checks
from tests.fault.participant import Asked, Heard, Participant, Wrong


def pair(*numbers: int, whole: bool = True, ended: str = "") -> list[Participant]:
    """Bob, who has said 1 to 4 in his first life, and alice, who heard these."""
    alice, bob = (Participant([], "room", name, "seed", 1.0) for name in ("alice", "bob"))
    bob.sent[1] = {n: float(n) for n in range(1, 5)}
    bob.left.add(1)
    alice.heard.append(Heard("bob", 1, whole, [(n, float(n)) for n in numbers], ended))
    return [alice, bob]


def kinds(wrong: list[Wrong]) -> list[str]:
    return [it.kind for it in wrong]


async def test_all_that_was_said_was_heard() -> None:
    assert checks.messages(pair(1, 2, 3, 4, ended="sender")) == []


async def test_a_message_that_is_missing() -> None:
    assert kinds(checks.messages(pair(1, 3, 4, ended="sender"))) == ["lost"]
    assert kinds(checks.messages(pair(1, 2, 3, ended="sender"))) == ["lost"]
    assert kinds(checks.messages(pair(2, 3, 4, ended="sender"))) == ["lost"]
    assert kinds(checks.messages(pair(ended="sender"))) == ["lost"] * 4


async def test_who_came_later_or_went_earlier_hears_less() -> None:
    assert checks.messages(pair(3, 4, whole=False, ended="sender")) == []
    assert checks.messages(pair(1, 2, ended="receiver")) == []


async def test_a_message_that_came_again() -> None:
    assert kinds(checks.messages(pair(1, 2, 2, 3, 4, ended="sender"))) == ["duplicated"]


async def test_messages_out_of_order() -> None:
    assert kinds(checks.messages(pair(1, 3, 2, 4, ended="sender"))) == ["reordered"]


async def test_messages_to_one_alone() -> None:
    alice, bob = people = pair(1, 2, 3, 4, ended="sender")
    bob.told["alice"] = [1, 2, 4]
    alice.told_by["bob"] = [(1, 0.0), (2, 0.0), (4, 0.0)]
    assert checks.messages(people) == []
    alice.told_by["bob"] = [(1, 0.0), (4, 0.0), (2, 0.0), (2, 0.0)]
    assert kinds(checks.messages(people)) == ["reordered", "duplicated"]
    alice.told_by["bob"] = [(2, 0.0)]
    assert kinds(checks.messages(people)) == ["lost", "lost"]


async def test_requests_are_answered_once() -> None:
    people = pair()
    for answers in ([], [1.0], [1.0, 2.0]):
        people[0].asked.append(Asked(0.0, "join", frozenset(), None, answers))
    assert kinds(checks.requests(people)) == ["lost", "duplicated"]
