"""The log of a room: silent about every correct history, and not about what is lost, doubled or reordered."""

import random
from collections import Counter

import pytest

from loadtest.model.event_order import END, Entry, EventOrder, Key, Member
from tests.unit.loadtest.histories import Seen, Server, crowd, read

SEEDS = range(30)


def kinds(wrong: list[tuple[str, str]]) -> Counter[str]:
    return Counter(kind for kind, _ in wrong)


def events(inbox: list[Seen], name: str) -> list[int]:
    """Returns the positions of other peers' messages that another peer's message follows in the same life."""
    found = []
    for at, (_, life, what) in enumerate(inbox[:-1]):
        following = inbox[at + 1]
        foreign = isinstance(what, Entry) and what.kind == "message" and what.key.peer != name
        if foreign and following[1] == life and isinstance(following[2], Entry) and following[2].kind == "message":
            found.append(at)
    return found


def spoilt(seed: int) -> tuple[Server, random.Random, str, int]:
    """A history, and a place in somebody's inbox."""
    chance = random.Random(seed)
    server = crowd(chance, 200)
    name = chance.choice(sorted(server.inboxes))
    return server, chance, name, chance.choice(events(server.inboxes[name], name))


@pytest.mark.parametrize("seed", SEEDS)
def test_correct_history_has_no_failure_in_any_reading_order(seed: int) -> None:
    chance = random.Random(seed)
    assert read(crowd(chance, 400), chance) == []


@pytest.mark.parametrize("seed", range(200))
def test_history_with_ended_sessions_has_no_failure(seed: int) -> None:
    """A peer that joins may be told of peers whose sessions have ended: the server does not know it yet."""
    chance = random.Random(seed)
    assert read(crowd(chance, 150, losses=0.05), chance) == []


def test_log_is_trimmed_where_every_member_is_past() -> None:
    wrong: list[tuple[str, str]] = []
    log = EventOrder("room", lambda kind, text: wrong.append((kind, text)))
    alice, bob = Member("alice", 1), Member("bob", 1)
    log.joined(alice, {})
    log.observe(alice, Key("bob", 1, 0), "join")
    log.joined(bob, {"alice": (1, frozenset())})
    for n in range(1, 3000):
        for member in (alice, bob):
            log.observe(member, Key("alice", 1, n), "message")
    assert alice.segment is not None
    assert len(alice.segment.entries) < 1000
    log.observe(bob, Key("alice", 1, 1), "message")
    assert kinds(wrong) == {"duplicated": 1}


def test_event_that_one_member_does_not_see_is_lost() -> None:
    server = Server()
    for name in "abc":
        server.join(name)
    for _ in range(3):
        server.do("a", "message")
    del server.inboxes["c"][-2]
    [(kind, text)] = read(server, random.Random(1))
    assert (kind, text) == ("lost", "room/c (life 1): message of a (life 1, its event 2) never came")


@pytest.mark.parametrize("seed", SEEDS)
def test_any_missing_event_is_noticed(seed: int) -> None:
    server, chance, name, at = spoilt(seed)
    del server.inboxes[name][at]
    found = kinds(read(server, chance))
    assert found["lost"] >= 1
    assert set(found) <= {"lost", "reordered"}


@pytest.mark.parametrize("seed", SEEDS)
def test_event_that_only_its_sender_sees_is_lost_for_all_others(seed: int) -> None:
    server, chance, name, at = spoilt(seed)
    entry = server.inboxes[name][at][2]
    assert isinstance(entry, Entry)
    for other, inbox in server.inboxes.items():
        if other != entry.key.peer:
            inbox[:] = [seen for seen in inbox if seen[2] != entry]
    assert kinds(read(server, chance))["lost"] >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_event_that_comes_twice_is_duplicated(seed: int) -> None:
    server, chance, name, at = spoilt(seed)
    server.inboxes[name].insert(at + 1, server.inboxes[name][at])
    assert kinds(read(server, chance)) == {"duplicated": 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_events_that_change_places_are_reordered(seed: int) -> None:
    server, chance, name, at = spoilt(seed)
    inbox = server.inboxes[name]
    inbox[at], inbox[at + 1] = inbox[at + 1], inbox[at]
    found = kinds(read(server, chance))
    assert set(found) == {"reordered"}


def test_different_orders_at_two_members_are_noticed() -> None:
    """Each sender's messages are in order; it is the order among senders that is not."""
    server = Server()
    for name in "abcd":
        server.join(name)
    server.do("a", "message")
    server.do("b", "message")
    inbox = server.inboxes["c"]
    inbox[-1], inbox[-2] = inbox[-2], inbox[-1]
    assert set(kinds(read(server, random.Random(1)))) == {"reordered"}


@pytest.mark.parametrize("kind", ["producer", "leave"])
def test_missing_last_notification_is_lost(kind: str) -> None:
    server = Server()
    for name in "abc":
        server.join(name)
    server.do("a", kind)  # type: ignore[arg-type]
    server.inboxes["c"].pop()
    assert kinds(read(server, random.Random(1))) == {"lost": 1}


def test_leaving_member_has_been_told_all_that_came_before() -> None:
    server = Server()
    for name in "abc":
        server.join(name)
    server.do("a", "message")
    server.inboxes["c"].pop()
    server.do("c", "leave")
    assert kinds(read(server, random.Random(1))) == {"lost": 1}


def test_join_answer_with_wrong_producers_is_a_mismatch() -> None:
    server = Server()
    server.join("a")
    server.do("a", "producer")
    server.join("b")
    name, life, _ = server.inboxes["b"][0]
    server.inboxes["b"][0] = (name, life, {"a": (1, frozenset())})
    [(kind, text)] = read(server, random.Random(1))
    assert kind == "mismatch"
    assert "was told a (life 1, producers []), there is a (life 1, producers [1])" in text


def test_two_members_apart_in_one_room_are_a_mismatch() -> None:
    server = Server()
    server.join("a")
    server.view.clear()
    server.join("b")
    assert kinds(read(server, random.Random(1))) == {"mismatch": 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_member_whose_session_ended_is_expected_to_see_no_more(seed: int) -> None:
    wrong: list[tuple[str, str]] = []
    log = EventOrder("room", lambda kind, text: wrong.append((kind, text)))
    chance = random.Random(seed)
    alice, bob, carol = (Member(name, 1) for name in ("alice", "bob", "carol"))
    for member in (alice, bob, carol):
        log.joining(member)
    log.joined(alice, {})
    steps = [
        lambda: log.observe(alice, Key("bob", 1, 0), "join"),
        lambda: log.observe(alice, Key("bob", 1, END), "leave"),
        lambda: log.observe(alice, Key("carol", 1, 0), "join"),
        lambda: log.observe(alice, Key("carol", 1, 1), "message"),
    ]
    # bob's answer comes or does not before his session ends, and carol's whenever it does
    others = [
        lambda: chance.random() < 0.5 and log.joined(bob, {"alice": (1, frozenset())}),
        lambda: log.ended(bob),
        lambda: log.joined(carol, {"alice": (1, frozenset())}),
        lambda: log.observe(carol, Key("carol", 1, 1), "message"),
    ]
    while steps or others:
        chance.choice([line for line in (steps, others) if line]).pop(0)()
    log.check_complete()
    assert wrong == []
