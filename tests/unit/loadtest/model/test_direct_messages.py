"""Messages to one peer."""

from loadtest.model.direct_messages import DirectMessages


def line() -> tuple[DirectMessages, list[str]]:
    wrong: list[str] = []
    direct = DirectMessages("room", lambda kind, _: wrong.append(kind))
    for _ in range(3):
        direct.say("alice", "bob")
    return direct, wrong


def test_each_that_was_taken_comes_once_in_order_before_or_after_its_answer() -> None:
    direct, wrong = line()
    direct.taken("alice", "bob", 1)
    direct.heard("alice", "bob", 1)
    direct.heard("alice", "bob", 2)
    direct.taken("alice", "bob", 2)
    direct.settle()  # the third was refused
    assert wrong == []


def test_one_that_was_taken_and_never_came_is_lost() -> None:
    direct, wrong = line()
    for n in (1, 2, 3):
        direct.taken("alice", "bob", n)
    direct.heard("alice", "bob", 1)
    direct.heard("alice", "bob", 3)
    direct.settle()
    assert wrong == ["lost"]


def test_one_that_comes_again_is_duplicated() -> None:
    direct, wrong = line()
    direct.taken("alice", "bob", 1)
    direct.heard("alice", "bob", 1)
    direct.heard("alice", "bob", 1)
    assert wrong == ["duplicated"]


def test_one_that_comes_after_its_successor_is_reordered() -> None:
    direct, wrong = line()
    for n in (1, 2):
        direct.taken("alice", "bob", n)
    direct.heard("alice", "bob", 2)
    direct.heard("alice", "bob", 1)
    direct.settle()
    assert wrong == ["reordered"]


def test_one_that_nobody_sent_is_a_mismatch() -> None:
    direct, wrong = line()
    direct.heard("alice", "bob", 4)
    direct.heard("bob", "alice", 1)
    assert wrong == ["mismatch", "mismatch"]


def test_what_was_sent_to_one_whose_session_had_ended_is_not_expected_until_it_joins_again() -> None:
    direct, wrong = line()
    direct.taken("alice", "bob", 1)
    direct.ended("bob")
    direct.taken("alice", "bob", 2)
    direct.joined("bob")
    direct.taken("alice", "bob", 3)
    direct.settle()
    assert wrong == []
    direct.taken("alice", "bob", direct.say("alice", "bob"))
    direct.settle()
    assert wrong == ["lost"]


def test_of_one_who_does_not_come_again_nothing_is_expected() -> None:
    direct, wrong = line()
    direct.ended("bob")
    direct.taken("alice", "bob", 1)
    direct.settle()
    assert wrong == []
