"""A room under which engine after engine dies loses its media; rooms that only shared those engines never do."""

from typing import Any

import pytest

from roomworker.core import engine_deaths
from roomworker.runtime.executor import Executor
from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.room_harness import RoomHarness

START = 1_000_000
"""A room time, seconds."""


@pytest.fixture
def harness() -> RoomHarness:
    return RoomHarness("salon")


@pytest.fixture
def alice(harness: RoomHarness) -> Client:
    harness.tick(START)
    return harness.joined("alice")


def placed(harness: RoomHarness, client: Client) -> Any:
    """Returns the answer to a request for a transport."""
    return client.ask("createTransport", id=len(harness.requests) + 1, direction="send")


def engine_dies(harness: RoomHarness, client: Client, at: float, others: int = 0) -> None:
    """Places the room; then its engine dies, at a time in seconds, with `others` as suspect as the room."""
    assert placed(harness, client)["ok"]
    harness.tick(START + at)
    harness.event(media.RouterClosed(harness.room.router.id, "died", engine_died=True, other_suspects=others))
    assert harness.room.meta.placement is None


def told_deaths(harness: RoomHarness, client: Client) -> int:
    """Returns the number of deaths that the node is told when the room is placed now."""
    assert placed(harness, client)["ok"]
    request = harness.requests[-1]
    assert isinstance(request, media.CreateTransport)
    return request.router.engine_deaths


def is_refused(answer: Any) -> bool:
    return answer.get("errorCode") == 503 and "its media is refused until" in answer["errorReason"]


def lose_media(harness: RoomHarness, client: Client) -> None:
    """The last of three deaths is at 20 s."""
    for at in (0, 10, 20):
        engine_dies(harness, client, at)


def test_third_death_of_a_room_alone_refuses_its_media(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    engine_dies(harness, alice, 30)
    engine_dies(harness, alice, 60)

    answer = placed(harness, alice)

    assert answer["errorCode"] == 503
    assert answer["errorReason"] == (
        "room: its media is refused until 1970-01-12T13:52:40+00:00, because 3 media engines died under it"
    )
    assert harness.room.meta.placement is None


def test_two_deaths_of_a_room_alone_do_not_refuse_its_media(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    engine_dies(harness, alice, 1)
    assert placed(harness, alice)["ok"]


def test_three_deaths_in_more_than_a_minute_do_not_refuse_media(harness: RoomHarness, alice: Client) -> None:
    for at in (0, 31, 62, 93):
        engine_dies(harness, alice, at)
    assert placed(harness, alice)["ok"]


def test_room_with_others_as_suspect_is_never_refused(harness: RoomHarness, alice: Client) -> None:
    for at in range(30):
        engine_dies(harness, alice, at, others=1)
    assert placed(harness, alice)["ok"]


def test_room_is_refused_once_the_last_two_deaths_were_alone(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0, others=499)
    engine_dies(harness, alice, 1)
    engine_dies(harness, alice, 2, others=1)
    engine_dies(harness, alice, 3)
    assert placed(harness, alice)["ok"], "another room with fewer deaths may be the guilty one"
    engine_dies(harness, alice, 4)
    assert is_refused(placed(harness, alice))


def test_refusal_ends_five_minutes_after_the_last_death(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)
    harness.tick(START + 20 + 299.9)
    assert is_refused(placed(harness, alice))
    harness.tick(START + 20 + 300)
    assert placed(harness, alice)["ok"]


def test_refusal_longer_than_any_is_another_clocks_and_over(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)
    harness.crash()
    harness.services.room_time.clear()
    harness.tick(START - 3600)
    assert placed(harness, alice)["ok"]


def test_room_that_kills_again_after_its_refusal_is_refused_at_once(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)
    harness.tick(START + 320)
    engine_dies(harness, alice, 340)
    assert is_refused(placed(harness, alice))


def test_minute_without_death_after_a_refusal_clears_the_room(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)
    harness.tick(START + 320)
    engine_dies(harness, alice, 320 + 61)
    assert told_deaths(harness, alice) == 1


def test_room_without_media_joins_sends_and_is_seen_as_before(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)

    bob, backend = harness.joined("bob"), Backend(harness)
    spy = harness.joined("spy", spy=True)
    assert alice.notifications_of("newPeer") == [{"name": "bob", "consumers": []}]
    backend.do("sendMessage", data="hello", peer="alice")
    assert alice.frames[-1]["data"] == {"data": "hello"}
    assert spy.ask("queryRoom")["ok"]
    assert [peer["name"] for peer in backend.do("inspectRoom")["peers"]] == ["alice", "bob", "spy"]
    assert is_refused(placed(harness, bob))


def test_peers_are_sent_transport_closed_before_the_refusal(harness: RoomHarness, alice: Client) -> None:
    lose_media(harness, alice)
    assert len(alice.notifications_of("transportClosed")) == 3


def test_node_is_told_each_death_that_followed_within_a_minute(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0, others=1)
    engine_dies(harness, alice, 60, others=1)
    engine_dies(harness, alice, 120, others=1)
    assert told_deaths(harness, alice) == 3


def test_all_requests_of_one_placement_tell_the_same_number(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    assert told_deaths(harness, alice) == 1
    harness.tick(START + 100)
    assert told_deaths(harness, alice) == 1


def test_minute_without_death_clears_the_room(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    harness.tick(START + 60.1)
    assert told_deaths(harness, alice) == 0
    engine_dies(harness, alice, 61)
    assert told_deaths(harness, alice) == 1


def test_deaths_are_counted_on_while_few_times_are_kept(harness: RoomHarness, alice: Client) -> None:
    for at in range(25):
        engine_dies(harness, alice, at, others=1)
    assert told_deaths(harness, alice) == 25
    deaths = harness.room.meta.engine_deaths
    assert deaths is not None
    assert deaths.times == [(START + at) * 1000 for at in (22, 23, 24)]


@pytest.mark.parametrize("how", ["node shuts down", "node of an older version", "node died"])
def test_end_that_is_no_engine_death_is_not_counted(harness: RoomHarness, alice: Client, how: str) -> None:
    for _ in range(5):
        assert placed(harness, alice)["ok"]
        if how == "node died":
            harness.act(Executor.node_died)
        else:
            harness.event(media.RouterClosed(harness.room.router.id, how))
    assert told_deaths(harness, alice) == 0


def test_takeover_keeps_deaths_and_refusal(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    harness.crash()
    engine_dies(harness, alice, 1)
    harness.crash()
    engine_dies(harness, alice, 2)
    harness.crash()
    assert is_refused(placed(harness, alice))


def test_later_room_of_the_same_name_inherits_deaths(harness: RoomHarness, alice: Client) -> None:
    engine_dies(harness, alice, 0)
    engine_dies(harness, alice, 1)
    alice.disconnect()
    assert not harness.room.exists

    alice = harness.joined("alice")
    assert told_deaths(harness, alice) == 2
    engine_dies(harness, alice, 2)
    alice.disconnect()

    assert is_refused(placed(harness, harness.joined("bob")))


def test_deaths_before_the_first_tick_count() -> None:
    """A worker that has just taken a partition over does not know the time yet."""
    deaths = engine_deaths.record(None, 0, alone=False)
    assert engine_deaths.count(deaths, 5_000_000) == 1
    deaths = engine_deaths.record(deaths, 5_000_000, alone=True)
    assert deaths.times == [5_000_000, 5_000_000]
    assert engine_deaths.record(deaths, 0, alone=True).refused_until == 5_300_000


def test_server_api_shows_until_when_media_is_refused(harness: RoomHarness, alice: Client) -> None:
    backend = Backend(harness)
    engine_dies(harness, alice, 0)
    assert "mediaRefusedUntil" not in backend.do("inspectRoom")
    engine_dies(harness, alice, 1)
    engine_dies(harness, alice, 2)
    assert backend.do("inspectRoom")["mediaRefusedUntil"] == (START + 302) * 1000


def test_room_without_deaths_sends_and_stores_no_number(harness: RoomHarness, alice: Client) -> None:
    """Nodes and room workers of the version before get what they know."""
    assert placed(harness, alice)["ok"]
    assert b"engineDeaths" not in media.encode(harness.requests[-1])
    assert b'"placement":{"node":"node","epoch":1}' in harness.fields["meta"]
    closed = media.RouterClosed("router", "the media node shuts down")
    assert media.encode_event(closed) == (
        b'{"event":"routerClosed","object":"router","reason":"the media node shuts down"}'
    )
