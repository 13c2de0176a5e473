"""A resumable session outlives its connections, and not for ever."""

import pytest

from roomworker.core.resumption import GRACE, LOST_BYTES
from shared.protocol import bus
from tests.unit.roomworker.kit import CAPABILITIES, GATEWAY, Client, World

ELSEWHERE = "elsewhere"


@pytest.fixture
def world() -> World:
    world = World()
    tick(world, 1)
    return world


def tick(world: World, now: int) -> None:
    world.act(lambda executor: executor.tick(now))


def resumable(world: World, peer: str) -> Client:
    it = world.connected(peer, token="hash")
    assert it.ask("join", peerName=peer, rtpCapabilities=CAPABILITIES)["ok"]
    return it


def lose(it: Client, *, final: bool = False) -> None:
    it.world.receive(bus.ConnectionLost(it.world.name, it.session, it.connection, final), it.gateway)


def resume(
    it: Client, gateway: str = ELSEWHERE, connection: int = 9, attempt: int = 1, token: str = "hash"
) -> bus.Link:
    item = bus.Resume(it.world.name, it.session, connection, token, attempt, 0)
    it.world.receive(item, gateway)
    (told, link) = it.world.links[-1]
    assert told == gateway
    if link.state == "resumed":
        it.gateway, it.connection = gateway, connection
    return link


def test_a_lost_session_is_kept_and_the_others_hear_nothing(world: World) -> None:
    alice, bob = resumable(world, "alice"), world.joined("bob")
    lose(alice)
    tick(world, 1 + GRACE - 1)

    assert bob.told("peerClosed") == []
    assert world.links[-1] == (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    assert world.room.sessions[alice.session].gateway == ""


def test_it_goes_on_over_another_gateway_from_where_it_stood(world: World) -> None:
    alice = resumable(world, "alice")
    lose(alice)
    world.joined("bob")

    link = resume(alice)

    assert (link.state, link.n) == ("resumed", alice.n)
    assert link.out == len(alice.sent)
    assert alice.told("newPeer") == [{"name": "bob", "consumers": []}]
    assert alice.ask("queryRoom")["ok"]
    tick(world, 1 + 10 * GRACE)
    assert alice.session in world.room.sessions


def test_after_the_grace_it_is_over(world: World) -> None:
    alice, bob = resumable(world, "alice"), world.joined("bob")
    lose(alice)
    tick(world, 1 + GRACE)

    assert bob.told("peerClosed") == [{"name": "alice"}]
    assert resume(alice).state == "refused"


def test_one_that_says_goodbye_is_over_at_once(world: World) -> None:
    alice, bob = resumable(world, "alice"), world.joined("bob")
    lose(alice, final=True)
    assert bob.told("peerClosed") == [{"name": "alice"}]


def test_a_loss_of_an_unknown_time_counts_from_the_next_tick() -> None:
    world = World()
    alice = resumable(world, "alice")
    lose(alice)
    tick(world, 5 * GRACE)
    tick(world, 6 * GRACE - 1)
    assert alice.session in world.room.sessions
    tick(world, 6 * GRACE)
    assert alice.session not in world.room.sessions


def test_a_loss_that_comes_late_does_not_touch_the_new_connection(world: World) -> None:
    alice = resumable(world, "alice")
    old = bus.ConnectionLost(world.name, alice.session, alice.connection)
    resume(alice)
    world.receive(old, GATEWAY)
    assert world.room.sessions[alice.session].gateway == ELSEWHERE
    assert world.links[-1][1].state == "released"


def test_the_connection_that_it_had_is_released_when_another_takes_over(world: World) -> None:
    alice = resumable(world, "alice")
    before = alice.connection
    resume(alice)
    assert (GATEWAY, bus.Link(before, alice.session, "released")) in world.links


def test_of_two_attempts_the_later_stays_whatever_comes_first(world: World) -> None:
    alice = resumable(world, "alice")
    lose(alice)
    assert resume(alice, connection=7, attempt=2).state == "resumed"
    assert resume(alice, connection=6, attempt=1).state == "refused"
    assert resume(alice, connection=7, attempt=2).state == "resumed"
    assert world.room.sessions[alice.session].connection == 7


@pytest.mark.parametrize("token", ["", "other"])
def test_without_its_token_nobody_gets_it(world: World, token: str) -> None:
    alice = resumable(world, "alice")
    assert resume(alice, token=token).state == "refused"
    assert world.room.sessions[alice.session].gateway == GATEWAY


def test_a_session_that_is_not_resumable_is_not_resumed(world: World) -> None:
    bob = world.joined("bob")
    assert resume(bob, token="").state == "refused"


def test_an_unknown_session_is_refused(world: World) -> None:
    world.receive(bus.Resume(world.name, "nobody.1", 1, "hash", 1, 0), ELSEWHERE)
    assert world.links == [(ELSEWHERE, bus.Link(1, "nobody.1", "refused"))]
    assert world.fields == {}


def test_it_is_lost_when_its_gateway_dies_and_a_living_one_is_told(world: World) -> None:
    alice, bob = resumable(world, "alice"), world.joined("bob")
    world.act(lambda executor: executor.gateway_died(GATEWAY))
    assert world.links[-1] == (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    assert bob.closed == 4001
    assert resume(alice).state == "resumed"


def test_it_is_resumed_by_a_worker_that_took_over(world: World) -> None:
    alice = resumable(world, "alice")
    lose(alice)
    world.crash()
    assert resume(alice).state == "resumed"
    assert alice.ask("queryRoom")["ok"]


def test_the_grace_goes_on_after_a_takeover(world: World) -> None:
    alice = resumable(world, "alice")
    lose(alice)
    world.crash()
    tick(world, 1 + GRACE)
    assert alice.session not in world.room.sessions


def test_a_sleeper_that_is_sent_too_much_is_given_up(world: World) -> None:
    """One sleeping laptop must not grow a room."""
    resumable(world, "alice")
    alice, bob = resumable(world, "sleeper"), world.joined("bob")
    lose(alice)
    data = "x" * 60_000
    for _ in range(LOST_BYTES // len(data) + 1):
        bob.world.receive(bob.input("message", None, b'{"data":"' + data.encode() + b'"}'), GATEWAY)
    tick(world, 2)
    assert alice.session not in world.room.sessions


def test_another_connection_of_the_peer_replaces_a_lost_one(world: World) -> None:
    alice = resumable(world, "alice")
    lose(alice)
    again = world.connected("alice")
    assert again.ask("join", peerName="alice", rtpCapabilities=CAPABILITIES)["ok"]
    assert resume(alice).state == "refused"


def test_a_gateway_that_missed_the_release_is_told_when_it_is_heard_of_again(world: World) -> None:
    alice = resumable(world, "alice")
    released = (GATEWAY, bus.Link(alice.connection, alice.session, "released"))
    replay = bus.Replay(world.name, alice.session, alice.connection, 0)
    assert not world.executor.released(GATEWAY, replay)
    world.act(lambda executor: executor.gateway_died(GATEWAY))

    world.links.clear()
    alice.request("queryRoom")
    assert world.links == [released]
    assert world.room.sessions[alice.session].n_in == alice.n, "what it sent counts all the same"

    world.links.clear()
    world.receive(alice.connect_item())
    assert world.links == [released]

    world.links.clear()
    world.act(lambda executor: executor.released(GATEWAY, replay))
    assert world.links == [released]
