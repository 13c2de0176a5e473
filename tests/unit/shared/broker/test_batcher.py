"""Batching, order and patience of what is published to one destination."""

import asyncio

import pytest

from shared.broker import BrokerGone, Refused, Unroutable, batcher
from shared.broker.batcher import Pipe


class Publisher:
    """Takes batches, and confirms each when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.sent: list[asyncio.Future[None]] = []
        self.arrived = asyncio.Condition()
        self.done: list[int] = []
        self.lost: list[int] = []

    def __call__(self, batch: list[int]) -> "asyncio.Future[None]":
        self.batches.append(list(batch))
        self.sent.append(asyncio.get_running_loop().create_future())
        asyncio.get_running_loop().create_task(self._tell())
        return self.sent[-1]

    async def _tell(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()

    async def answer(self, failure: Exception | None = None) -> None:
        """Answers the oldest batch that has no answer; waits for one."""
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: self.sent)
        sent = self.sent.pop(0)
        if failure is None:
            sent.set_result(None)
        else:
            sent.set_exception(failure)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def pipe_to(publisher: Publisher, *, patience: float = 60, limit: int = 100) -> Pipe[int]:
    return Pipe(
        "somewhere",
        publisher,
        size=lambda _: 1,
        done=publisher.done.extend,
        lost=publisher.lost.extend,
        patience=patience,
        limit=limit,
    )


async def test_a_batch_is_what_gathered_while_the_last_was_unconfirmed(publisher: Publisher) -> None:
    box = pipe_to(publisher)
    for item in (1, 2):
        box.put(item)
    async with publisher.arrived:
        await publisher.arrived.wait_for(lambda: publisher.sent)
    for item in (3, 4, 5):
        box.put(item)
    await publisher.answer()
    await publisher.answer()
    await box.emptied()
    assert publisher.batches == [[1, 2], [3, 4, 5]]
    assert publisher.done == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("failure", [BrokerGone(), Refused()])
async def test_an_unconfirmed_batch_is_sent_again_before_what_follows(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(batcher, "RETRY_PAUSE", 0)
    box = pipe_to(publisher)
    box.put(1)
    await publisher.answer(failure)
    box.put(2)
    await publisher.answer()
    await publisher.answer()
    await box.emptied()
    assert publisher.batches == [[1], [1], [2]]
    assert publisher.done == [1, 2]


async def test_what_nobody_can_get_is_lost(publisher: Publisher) -> None:
    box = pipe_to(publisher)
    box.put(1)
    await publisher.answer(Unroutable())
    await box.emptied()
    assert (publisher.done, publisher.lost) == ([], [1])


async def test_patience_ends(publisher: Publisher) -> None:
    box = pipe_to(publisher, patience=-1)
    box.put(1)
    await publisher.answer(BrokerGone())
    await box.emptied()
    assert (publisher.done, publisher.lost) == ([], [1])


async def test_a_full_pipe_loses_the_oldest(publisher: Publisher) -> None:
    box = pipe_to(publisher, limit=2)
    for item in (1, 2, 3):
        box.put(item)
    await publisher.answer()
    await box.emptied()
    assert (publisher.done, publisher.lost) == ([2, 3], [1])


async def test_a_batch_has_a_size(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BATCH_BYTES", 2)
    box = pipe_to(publisher)
    for item in (1, 2, 3):
        box.put(item)
    await publisher.answer()
    await publisher.answer()
    await box.emptied()
    assert publisher.batches == [[1, 2], [3]]


async def test_closing_gives_up(publisher: Publisher) -> None:
    box = pipe_to(publisher)
    box.put(1)
    box.close()
    await box.emptied()
    await publisher.answer() if publisher.sent else None
    assert (publisher.done, publisher.lost) == ([], [])
