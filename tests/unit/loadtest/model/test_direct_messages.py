"""Messages to one peer."""

from loadtest.model.direct_messages import DirectMessages


def line() -> tuple[DirectMessages, list[str]]:
    wrong: list[str] = []
    direct = DirectMessages("room", lambda kind, _: wrong.append(kind))
    for _ in range(3):
        direct.next_number("alice", "bob")
    return direct, wrong


def test_message_may_come_before_or_after_its_answer() -> None:
    direct, wrong = line()
    direct.accepted("alice", "bob", 1)
    direct.received("alice", "bob", 1)
    direct.received("alice", "bob", 2)
    direct.accepted("alice", "bob", 2)
    direct.check_complete()  # the third was refused
    assert wrong == []


def test_accepted_message_that_never_came_is_lost() -> None:
    direct, wrong = line()
    for n in (1, 2, 3):
        direct.accepted("alice", "bob", n)
    direct.received("alice", "bob", 1)
    direct.received("alice", "bob", 3)
    direct.check_complete()
    assert wrong == ["lost"]


def test_message_that_comes_again_is_duplicated() -> None:
    direct, wrong = line()
    direct.accepted("alice", "bob", 1)
    direct.received("alice", "bob", 1)
    direct.received("alice", "bob", 1)
    assert wrong == ["duplicated"]


def test_message_after_its_successor_is_reordered() -> None:
    direct, wrong = line()
    for n in (1, 2):
        direct.accepted("alice", "bob", n)
    direct.received("alice", "bob", 2)
    direct.received("alice", "bob", 1)
    direct.check_complete()
    assert wrong == ["reordered"]


def test_message_that_nobody_sent_is_a_mismatch() -> None:
    direct, wrong = line()
    direct.received("alice", "bob", 4)
    direct.received("bob", "alice", 1)
    assert wrong == ["mismatch", "mismatch"]


def test_message_to_a_receiver_without_session_is_not_expected() -> None:
    direct, wrong = line()
    direct.accepted("alice", "bob", 1)
    direct.ended("bob")
    direct.accepted("alice", "bob", 2)
    direct.joined("bob")
    direct.accepted("alice", "bob", 3)
    direct.check_complete()
    assert wrong == []
    direct.accepted("alice", "bob", direct.next_number("alice", "bob"))
    direct.check_complete()
    assert wrong == ["lost"]


def test_receiver_that_does_not_rejoin_misses_nothing() -> None:
    direct, wrong = line()
    direct.ended("bob")
    direct.accepted("alice", "bob", 1)
    direct.check_complete()
    assert wrong == []
