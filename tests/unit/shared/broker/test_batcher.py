"""Batching, order and deadlines of the messages for one destination."""

import asyncio

import pytest

from shared.broker import BrokerUnavailable, PublishRejected, Unroutable, batcher
from shared.broker.batcher import Batcher


class Publisher:
    """Takes batches, and confirms each when the test asks for it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.sent: list[asyncio.Future[None]] = []
        self.arrived = asyncio.Condition()
        self.confirmed: list[int] = []
        self.undeliverable: list[int] = []

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


def make_batcher(publisher: Publisher, *, give_up_after: float = 60, limit: int = 100) -> Batcher[int]:
    return Batcher(
        "somewhere",
        publisher,
        size=lambda _: 1,
        on_confirmed=publisher.confirmed.extend,
        on_undeliverable=publisher.undeliverable.extend,
        give_up_after=give_up_after,
        limit=limit,
    )


async def test_items_gather_while_a_batch_is_unconfirmed(publisher: Publisher) -> None:
    items = make_batcher(publisher)
    for item in (1, 2):
        items.put(item)
    async with publisher.arrived:
        await publisher.arrived.wait_for(lambda: publisher.sent)
    for item in (3, 4, 5):
        items.put(item)
    await publisher.answer()
    await publisher.answer()
    await items.drained()
    assert publisher.batches == [[1, 2], [3, 4, 5]]
    assert publisher.confirmed == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("failure", [BrokerUnavailable(), PublishRejected()])
async def test_unconfirmed_batch_is_repeated_before_the_next(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(batcher, "RETRY_PAUSE", 0)
    items = make_batcher(publisher)
    items.put(1)
    await publisher.answer(failure)
    items.put(2)
    await publisher.answer()
    await publisher.answer()
    await items.drained()
    assert publisher.batches == [[1], [1], [2]]
    assert publisher.confirmed == [1, 2]


async def test_unroutable_batch_is_undeliverable(publisher: Publisher) -> None:
    items = make_batcher(publisher)
    items.put(1)
    await publisher.answer(Unroutable())
    await items.drained()
    assert (publisher.confirmed, publisher.undeliverable) == ([], [1])


async def test_batch_is_undeliverable_after_its_deadline(publisher: Publisher) -> None:
    items = make_batcher(publisher, give_up_after=-1)
    items.put(1)
    await publisher.answer(BrokerUnavailable())
    await items.drained()
    assert (publisher.confirmed, publisher.undeliverable) == ([], [1])


async def test_full_batcher_discards_the_oldest_item(publisher: Publisher) -> None:
    items = make_batcher(publisher, limit=2)
    for item in (1, 2, 3):
        items.put(item)
    await publisher.answer()
    await items.drained()
    assert (publisher.confirmed, publisher.undeliverable) == ([2, 3], [1])


async def test_batch_size_is_bounded_in_bytes(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "BATCH_BYTES", 2)
    items = make_batcher(publisher)
    for item in (1, 2, 3):
        items.put(item)
    await publisher.answer()
    await publisher.answer()
    await items.drained()
    assert publisher.batches == [[1, 2], [3]]


async def test_close_discards_waiting_items(publisher: Publisher) -> None:
    items = make_batcher(publisher)
    items.put(1)
    items.close()
    await items.drained()
    await publisher.answer() if publisher.sent else None
    assert (publisher.confirmed, publisher.undeliverable) == ([], [])
