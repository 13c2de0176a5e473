"""Every request is answered once: by its node, or with a 503."""

import asyncio

import pytest

from roomworker.counters import Counts
from roomworker.messaging.media_client import AVOIDED_FOR, DEADLINE, SILENCE, MediaClient
from shared.protocol import media

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)
REQUEST = media.RestartIce(router=ROUTER, transport="t", generation=1)


class Desk:
    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.results: dict[str, list[media.AnyResult]] = {}
        self.client = MediaClient(lambda node, n, _: self.sent.append((node, n)), Counts())

    def ask(self, name: str, now: float = 0) -> int:
        self.results[name] = []
        self.client.ask("node", REQUEST, self.results[name].append, now)
        return self.sent[-1][1]

    def answer(self, *answers: tuple[int, media.AnyResult], now: float = 0) -> None:
        results = media.Results("node", [media.Answer(n, result) for n, result in answers])
        self.client.receive(media.encode(results), now)

    def codes(self, name: str) -> list[int | None]:
        return [getattr(result, "code", None) for result in self.results[name]]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_results_find_their_requests_in_any_order(desk: Desk) -> None:
    one, two = desk.ask("one"), desk.ask("two")

    desk.answer((two, media.Produced()), (one, media.Failed(404, "no")))

    assert desk.results == {"one": [media.Failed(404, "no")], "two": [media.Produced()]}
    assert desk.client.waiting == 0


def test_a_result_that_comes_twice_or_for_nobody_is_ignored(desk: Desk) -> None:
    one = desk.ask("one")

    desk.answer((one, media.Produced()), (one, media.Produced()), (99, media.Produced()))

    assert desk.results == {"one": [media.Produced()]}


def test_a_node_that_cannot_be_asked_is_avoided_until_it_answers_or_time_has_passed(desk: Desk) -> None:
    desk.client.lost([99], 0)
    assert desk.client.avoided(0) == set()
    desk.client.lost([desk.ask("one")], 0)
    assert desk.client.avoided(AVOIDED_FOR - 1) == {"node"}
    assert desk.client.avoided(AVOIDED_FOR) == set()

    desk.answer((desk.ask("two"), media.Produced()))
    assert desk.client.avoided(0) == set()


def test_a_silent_node_is_avoided(desk: Desk) -> None:
    desk.ask("one")
    desk.client.expire(SILENCE)
    assert desk.client.avoided(SILENCE) == {"node"}
    assert desk.client.avoided(2 * SILENCE + AVOIDED_FOR) == set()


def test_requests_that_found_no_node_fail_at_once(desk: Desk) -> None:
    one = desk.ask("one")

    desk.client.lost([one, 99], 0)

    (failed,) = desk.results["one"]
    assert isinstance(failed, media.Failed)
    assert failed.code == 503


def test_a_request_that_a_living_node_does_not_answer_fails_at_its_deadline(desk: Desk) -> None:
    early, late = desk.ask("early", now=0), desk.ask("late", now=1)
    desk.answer(now=DEADLINE - 0.1)

    desk.client.expire(DEADLINE)
    assert desk.codes("early") == [503]
    assert desk.results["late"] == []

    desk.answer((early, media.Produced()), (late, media.Produced()))
    assert len(desk.results["early"]) == 1
    assert desk.results["late"] == [media.Produced()]


async def test_a_silent_node_fails_what_waits_and_what_comes_until_one_is_answered(desk: Desk) -> None:
    desk.ask("one", now=0)
    desk.client.expire(SILENCE)
    assert desk.codes("one") == [503]

    desk.ask("two", now=SILENCE + 0.1)
    assert desk.results["two"] == []  # never inside the call
    await asyncio.sleep(0)
    assert desk.codes("two") == [503]
    assert len(desk.sent) == 1

    three = desk.ask("three", now=2 * SILENCE)
    desk.ask("four", now=2 * SILENCE)
    await asyncio.sleep(0)
    assert (desk.results["three"], desk.codes("four")) == ([], [503])  # one is enough to find out
    desk.answer((three, media.Produced()), now=2 * SILENCE)
    assert desk.results["three"] == [media.Produced()]
    desk.ask("five", now=2 * SILENCE)
    desk.ask("six", now=2 * SILENCE)
    assert len(desk.sent) == 4


async def test_a_node_that_speaks_again_is_asked_again(desk: Desk) -> None:
    desk.ask("one", now=0)
    desk.client.expire(SILENCE)
    desk.answer(now=SILENCE)

    desk.ask("two", now=SILENCE)
    assert len(desk.sent) == 2


def test_a_batch_that_cannot_be_read_leaves_requests_to_their_deadline(desk: Desk) -> None:
    desk.ask("one")

    desk.client.receive(b"{", 0)

    assert desk.client.waiting == 1


def test_a_result_may_bring_the_next_request(desk: Desk) -> None:
    desk.results["next"] = []
    desk.client.ask(
        "node", REQUEST, lambda _: desk.client.ask("node", REQUEST, desk.results["next"].append, 10), now=0
    )

    desk.answer((1, media.Produced()))
    assert desk.results["next"] == []
    desk.answer((2, media.Produced()))
    assert desk.results["next"] == [media.Produced()]
