"""Every request is answered once: by its node, or with a 503."""

import asyncio

import pytest

from roomworker.counters import Counters
from roomworker.messaging.media_client import AVOIDED_FOR, DEADLINE, SILENT_AFTER, MediaClient
from shared.protocol import media

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)
REQUEST = media.RestartIce(router=ROUTER, transport="t", generation=1)


class FakeWorker:
    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.results: dict[str, list[media.AnyResult]] = {}
        self.client = MediaClient(lambda node, n, _: self.sent.append((node, n)), Counters())

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
def worker() -> FakeWorker:
    return FakeWorker()


def test_results_find_their_requests_in_any_order(worker: FakeWorker) -> None:
    one, two = worker.ask("one"), worker.ask("two")

    worker.answer((two, media.Produced()), (one, media.Failed(404, "no")))

    assert worker.results == {"one": [media.Failed(404, "no")], "two": [media.Produced()]}
    assert worker.client.waiting == 0


def test_repeated_or_unexpected_result_is_ignored(worker: FakeWorker) -> None:
    one = worker.ask("one")

    worker.answer((one, media.Produced()), (one, media.Produced()), (99, media.Produced()))

    assert worker.results == {"one": [media.Produced()]}


def test_unroutable_node_is_avoided_until_it_answers_or_time_passes(worker: FakeWorker) -> None:
    worker.client.unroutable([99], 0)
    assert worker.client.avoided(0) == set()
    worker.client.unroutable([worker.ask("one")], 0)
    assert worker.client.avoided(AVOIDED_FOR - 1) == {"node"}
    assert worker.client.avoided(AVOIDED_FOR) == set()

    worker.answer((worker.ask("two"), media.Produced()))
    assert worker.client.avoided(0) == set()


def test_a_silent_node_is_avoided(worker: FakeWorker) -> None:
    worker.ask("one")
    worker.client.expire(SILENT_AFTER)
    assert worker.client.avoided(SILENT_AFTER) == {"node"}
    assert worker.client.avoided(2 * SILENT_AFTER + AVOIDED_FOR) == set()


def test_unroutable_requests_fail_at_once(worker: FakeWorker) -> None:
    one = worker.ask("one")

    worker.client.unroutable([one, 99], 0)

    (failed,) = worker.results["one"]
    assert isinstance(failed, media.Failed)
    assert failed.code == 503


def test_unanswered_request_to_a_living_node_fails_at_its_deadline(worker: FakeWorker) -> None:
    early, late = worker.ask("early", now=0), worker.ask("late", now=1)
    worker.answer(now=DEADLINE - 0.1)

    worker.client.expire(DEADLINE)
    assert worker.codes("early") == [503]
    assert worker.results["late"] == []

    worker.answer((early, media.Produced()), (late, media.Produced()))
    assert len(worker.results["early"]) == 1
    assert worker.results["late"] == [media.Produced()]


async def test_requests_to_a_silent_node_fail_until_one_is_answered(worker: FakeWorker) -> None:
    worker.ask("one", now=0)
    worker.client.expire(SILENT_AFTER)
    assert worker.codes("one") == [503]

    worker.ask("two", now=SILENT_AFTER + 0.1)
    assert worker.results["two"] == []  # never inside the call
    await asyncio.sleep(0)
    assert worker.codes("two") == [503]
    assert len(worker.sent) == 1

    three = worker.ask("three", now=2 * SILENT_AFTER)
    worker.ask("four", now=2 * SILENT_AFTER)
    await asyncio.sleep(0)
    assert (worker.results["three"], worker.codes("four")) == ([], [503])  # one is enough to find out
    worker.answer((three, media.Produced()), now=2 * SILENT_AFTER)
    assert worker.results["three"] == [media.Produced()]
    worker.ask("five", now=2 * SILENT_AFTER)
    worker.ask("six", now=2 * SILENT_AFTER)
    assert len(worker.sent) == 4


async def test_node_that_answers_again_is_asked_again(worker: FakeWorker) -> None:
    worker.ask("one", now=0)
    worker.client.expire(SILENT_AFTER)
    worker.answer(now=SILENT_AFTER)

    worker.ask("two", now=SILENT_AFTER)
    assert len(worker.sent) == 2


def test_unreadable_batch_leaves_requests_to_their_deadline(worker: FakeWorker) -> None:
    worker.ask("one")

    worker.client.receive(b"{", 0)

    assert worker.client.waiting == 1


def test_result_may_cause_another_request(worker: FakeWorker) -> None:
    worker.results["next"] = []
    worker.client.ask(
        "node", REQUEST, lambda _: worker.client.ask("node", REQUEST, worker.results["next"].append, 10), now=0
    )

    worker.answer((1, media.Produced()))
    assert worker.results["next"] == []
    worker.answer((2, media.Produced()))
    assert worker.results["next"] == [media.Produced()]
