"""What a room sends on behalf of one peer, and of all: bytes times receivers, a second of the room's time."""

from itertools import cycle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from roomworker.core.fan_out import BURST_SECONDS, DEPARTED_LIMIT, KEPT_SECONDS, FanOut, TokenBucket
from roomworker.core.journal import RECEIVER_BYTES
from roomworker.core.limits import Limits
from tests.unit.roomworker.core.test_messages import messages_to, say
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, error_of
from tests.unit.roomworker.room_harness import RoomHarness

DATA = '"' + "x" * 998 + '"'


def hall(peers: int, **limits: Any) -> tuple[RoomHarness, list[Client]]:
    harness = RoomHarness()
    harness.limits = Limits(**limits)
    harness.crash()
    return harness, [harness.joined(f"peer{n}") for n in range(peers)]


def accepted(client: Client, times: int, data: str = DATA) -> int:
    """How many of so many messages to all are accepted before one is refused."""
    return next((n for n in range(times) if not say(client, data).get("ok")), times)


def test_message_counts_once_for_each_receiver() -> None:
    few, many = 3, 21
    counts = []
    for peers in (few, many):
        _, clients = hall(peers, peer_fan_out=10_000)
        counts.append(accepted(clients[0], 100))

    assert counts[0] > 8 * counts[1] > 0


def test_message_beyond_the_peers_rate_is_refused_and_reaches_nobody() -> None:
    harness, (alice, bob, carol) = hall(3, peer_fan_out=5_000)
    count = accepted(alice, 50)
    assert 0 < count < 50
    assert len(messages_to(bob)) == len(messages_to(carol)) == count

    code, reason = error_of(say(alice, DATA))

    assert (code, reason.partition(":")[0]) == (429, "data")
    assert accepted(bob, 1) == 1, "others have a rate of their own"
    harness.tick(1)
    harness.tick(61)
    assert accepted(alice, 50) in (count, count + 1), "time has passed"


def test_short_message_counts_for_more_than_its_bytes() -> None:
    _, clients = hall(20, peer_fan_out=10_000)
    sent = accepted(clients[0], 1000, "1")

    assert 0 < sent < 10_000 * BURST_SECONDS / (19 * RECEIVER_BYTES)


def test_message_to_one_peer_counts_once() -> None:
    _, (alice, *_) = hall(11, peer_fan_out=10_000)
    to_one = next(n for n in range(1000) if not say(alice, DATA, to="peer1").get("ok"))

    assert to_one > 5 * accepted(hall(11, peer_fan_out=10_000)[1][0], 200)


def test_room_rate_refuses_messages_of_all_but_not_the_protocol() -> None:
    harness, clients = hall(5, room_fan_out=20_000)
    counts = [accepted(client, 50) for client in clients]
    assert counts[0] > 0
    assert counts[1:] == [0, 0, 0, 0]

    assert harness.connected("late").ask("join", peerName="late", rtpCapabilities=CAPABILITIES)["ok"]
    assert clients[1].ask("createTransport", id=1, direction="send")["ok"]


def test_joining_again_and_again_is_refused_in_time() -> None:
    _, clients = hall(10, peer_fan_out=10_000)
    alice = clients[0]
    codes = []
    for _ in range(100):
        alice.notify("leave")
        answer = alice.ask("join", peerName="peer0", rtpCapabilities=CAPABILITIES, appData="x" * 1000)
        codes.append(answer.get("errorCode", 200))

    assert set(codes) == {200, 429}
    assert codes == sorted(codes), "once there is too much, room time has to pass"
    assert clients[1].ask("createTransport", id=1, direction="send")["ok"]


def test_room_that_sends_too_much_refuses_those_who_have_sent_most() -> None:
    harness, clients = hall(12, peer_fan_out=10_000, room_fan_out=40_000)
    talkers, quiet = clients[:10], clients[11]
    for talker in talkers:
        talker.ask("createTransport", id=1, direction="send")
    for _ in range(10):
        for talker in talkers:
            talker.notify("leave")
            join = {"peerName": talker.peer, "rtpCapabilities": CAPABILITIES, "appData": "x" * 300}
            talker.request("join", **join)

    answer = talkers[-1].ask("join", **join)
    assert error_of(answer) == (429, "room: more than 40000 bytes a second, times receivers")

    assert quiet.ask("createTransport", id=1, direction="send")["ok"]
    assert harness.connected("late").ask("join", peerName="late", rtpCapabilities=CAPABILITIES)["ok"]


def test_peer_with_a_debt_may_still_close_pause_and_leave() -> None:
    harness, (alice, bob) = hall(2, peer_fan_out=1_000)
    alice.ask("createTransport", id=1, direction="send")
    alice.produce(10)
    while alice.ask("restartTransport", id=1).get("ok"):
        pass
    bob.clear_sent()

    for method in ("pauseProducer", "closeProducer"):
        assert alice.notify_asking(method, id=10)["ok"]
    assert alice.notify_asking("leave")["ok"]

    assert bob.methods[-1] == "peerClosed"
    assert "peer0" not in harness.room.peers


def test_pausing_again_and_again_is_refused_at_a_large_debt_only() -> None:
    _, (alice, bob) = hall(2, peer_fan_out=1_000)
    alice.ask("createTransport", id=1, direction="send")
    bob.ask("createTransport", id=2, direction="recv")
    assert bob.enable(alice.produce(10))["ok"]
    while alice.ask("restartTransport", id=1).get("ok"):
        pass
    accepted = 0
    toggles = cycle(("pauseProducer", "resumeProducer"))
    bob.clear_sent()
    while alice.notify_asking(next(toggles), id=10).get("ok"):
        accepted += 1

    assert accepted > 5
    assert len(bob.methods) == accepted
    bob.clear_sent()
    assert alice.notify_asking("closeProducer", id=10)["ok"]
    assert bob.methods == ["consumerClosed"]


def test_limit_of_zero_is_no_limit() -> None:
    _, clients = hall(3, peer_fan_out=0, room_fan_out=0)
    assert accepted(clients[0], 100) == 100


def test_message_larger_than_the_burst_is_sent_by_a_rested_peer() -> None:
    harness, (alice, bob) = hall(2, peer_fan_out=1_000)
    harness.tick(100)
    data = '"' + "x" * (1_000 * BURST_SECONDS + 500) + '"'

    harness.tick(200)
    assert accepted(alice, 3, data) == 1
    assert len(messages_to(bob)) == 1


def test_what_a_peer_sent_counts_when_it_comes_back() -> None:
    harness, (alice, *_) = hall(5, peer_fan_out=5_000)
    counts = []
    for _ in range(3):
        counts.append(accepted(alice, 50))
        alice.disconnect()
        alice = harness.connected("peer0")
        alice.request("join", peerName="peer0", rtpCapabilities=CAPABILITIES)

    assert counts[0] > 0
    assert counts[1:] == [0, 0]
    harness.tick(100)
    harness.tick(200)
    assert alice.ask("join", peerName="peer0", rtpCapabilities=CAPABILITIES)["ok"]


def test_books_of_departed_peers_are_bounded_and_only_of_those_with_a_debt() -> None:
    books = FanOut(Limits())
    for n in range(DEPARTED_LIMIT + 10):
        books.spend(f"peer{n}", 1, 0)
        books.depart(f"peer{n}", 0)
    assert len(books._departed) == DEPARTED_LIMIT
    assert not books._peers

    books.spend("quiet", 0, 0)
    books.depart("quiet", 0)
    assert "quiet" not in books._departed


def test_peers_under_ever_new_names_are_bounded_by_the_rooms_rate() -> None:
    harness, (alice, *_) = hall(20, room_fan_out=20_000)
    codes = []
    for n in range(200):
        client = harness.connected(f"new{n}")
        join = {"peerName": client.peer, "rtpCapabilities": CAPABILITIES, "appData": "x" * 1000}
        codes.append(client.ask("join", **join).get("errorCode", 200))
        client.disconnect()

    assert set(codes) == {200, 429}
    assert codes == sorted(codes), "once there is too much, room time has to pass"
    assert harness.room.sent_bytes < 4 * BURST_SECONDS * 20_000
    assert alice.notify_asking("leave")["ok"]
    harness.tick(100)
    harness.tick(100 + BURST_SECONDS)
    assert harness.connected("late").ask("join", peerName="late", rtpCapabilities=CAPABILITIES)["ok"]


def test_what_was_sent_is_counted_for_the_metric() -> None:
    harness, (alice, *others) = hall(5)
    before = harness.counters.fan_out_bytes_total
    accepted(alice, 1)

    grown = harness.counters.fan_out_bytes_total - before
    sent = (len(DATA) + RECEIVER_BYTES) * len(others)
    assert sent < grown < sent + 1000


def test_messages_that_redis_keeps_are_limited_for_the_room() -> None:
    harness, (alice, bob, carol) = hall(3, room_stream_bytes=60_000)
    harness.tick(10)
    counts = [accepted(client, 100) for client in (alice, bob)]
    assert 40 < counts[0] < 60
    assert counts[1] == 0
    assert carol.ask("createTransport", id=1, direction="send")["ok"]

    harness.tick(10 + KEPT_SECONDS)

    assert accepted(bob, 100) >= 40


def test_producing_in_a_debt_is_refused_with_429() -> None:
    _, (alice, _) = hall(2, peer_fan_out=500)
    alice.ask("createTransport", id=1, direction="send")
    while alice.ask("restartTransport", id=1).get("ok"):
        pass

    message = {"id": 10, "kind": "audio", "transportId": 1, "rtpParameters": OPUS}
    assert error_of(alice.ask("createProducer", **message))[0] == 429


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 30_000)), max_size=40))
def test_no_more_than_rate_and_burst_is_spent_in_any_time(steps: list[tuple[int, int]]) -> None:
    rate, now, spent = 1_000, 0, 0
    bucket = TokenBucket(rate, rate * BURST_SECONDS, now)
    largest = 0
    for pause, cost in steps:
        now += pause
        if bucket.has(cost, now):
            bucket.spend(cost)
            spent += cost
            largest = max(largest, cost)
    assert spent <= rate * BURST_SECONDS + rate * now // 1000 + largest
