"""Every request is answered once: by its node, or with a 503."""

import pytest

from roomworker.mediaclient import DEADLINE, MediaClient
from shared.protocol import media

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)
REQUEST = media.RestartIce(router=ROUTER, transport="t", generation=1)


class Desk:
    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.results: dict[str, list[media.AnyResult]] = {}
        self.client = MediaClient(lambda node, n, _: self.sent.append((node, n)))

    def ask(self, name: str, now: float = 0) -> int:
        self.results[name] = []
        self.client.ask("node", REQUEST, self.results[name].append, now)
        return self.sent[-1][1]

    def answer(self, *answers: tuple[int, media.AnyResult]) -> None:
        self.client.receive(media.encode(media.Results("node", [media.Answer(n, result) for n, result in answers])))


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


def test_requests_that_found_no_node_fail_at_once(desk: Desk) -> None:
    one = desk.ask("one")

    desk.client.lost([one, 99])

    (failed,) = desk.results["one"]
    assert isinstance(failed, media.Failed)
    assert failed.code == 503


def test_a_node_that_does_not_answer_fails_its_requests_at_their_deadline(desk: Desk) -> None:
    early, late = desk.ask("early", now=0), desk.ask("late", now=1)

    desk.client.expire(DEADLINE)
    assert [getattr(result, "code", None) for result in desk.results["early"]] == [503]
    assert desk.results["late"] == []

    desk.answer((early, media.Produced()), (late, media.Produced()))
    assert len(desk.results["early"]) == 1
    assert desk.results["late"] == [media.Produced()]


def test_a_batch_that_cannot_be_read_leaves_requests_to_their_deadline(desk: Desk) -> None:
    desk.ask("one")

    desk.client.receive(b"{")

    assert desk.client.waiting == 1


def test_a_result_may_bring_the_next_request(desk: Desk) -> None:
    desk.results["next"] = []
    desk.client.ask(
        "node", REQUEST, lambda _: desk.client.ask("node", REQUEST, desk.results["next"].append, 10), now=0
    )

    desk.client.expire(DEADLINE)
    assert desk.results["next"] == []
    desk.answer((2, media.Produced()))
    assert desk.results["next"] == [media.Produced()]
