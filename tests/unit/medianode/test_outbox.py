"""Batching, order and patience of what a node publishes."""

import asyncio

import pytest

from medianode import outbox as module
from medianode.outbox import Outbox
from shared.broker import BrokerGone, Unroutable


class Publisher:
    """Takes batches, and confirms each when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.arrived = asyncio.Event()
        self.answers: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def __call__(self, batch: list[int]) -> None:
        self.batches.append(batch)
        self.arrived.set()
        answer = await self.answers.get()
        if answer:
            raise answer


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def outbox(publisher: Publisher, *, patience: float = 60, limit: int = 100) -> Outbox[int]:
    return Outbox(publisher, asyncio.create_task, patience=patience, limit=limit)


async def test_a_batch_is_what_gathered_while_the_last_was_unconfirmed(publisher: Publisher) -> None:
    box = outbox(publisher)
    box.put(1)
    await publisher.arrived.wait()
    for item in (2, 3, 4):
        box.put(item)
    publisher.answers.put_nowait(None)
    publisher.answers.put_nowait(None)
    await box.emptied()
    assert publisher.batches == [[1], [2, 3, 4]]


async def test_an_unconfirmed_batch_is_sent_again_before_what_follows(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0)
    box = outbox(publisher)
    box.put(1)
    await publisher.arrived.wait()
    box.put(2)
    for answer in (BrokerGone(), None, None):
        publisher.answers.put_nowait(answer)
    await box.emptied()
    assert publisher.batches == [[1], [1], [2]]


async def test_what_nobody_can_get_is_dropped(publisher: Publisher) -> None:
    box = outbox(publisher)
    box.put(1)
    publisher.answers.put_nowait(Unroutable())
    await box.emptied()
    assert publisher.batches == [[1]]


async def test_patience_ends(publisher: Publisher) -> None:
    box = outbox(publisher, patience=-1)
    box.put(1)
    publisher.answers.put_nowait(BrokerGone())
    await box.emptied()
    assert publisher.batches == [[1]]


async def test_a_full_outbox_drops_the_oldest(publisher: Publisher) -> None:
    box = outbox(publisher, limit=2)
    for item in (1, 2, 3):
        box.put(item)
    publisher.answers.put_nowait(None)
    await box.emptied()
    assert publisher.batches == [[2, 3]]


async def test_closing_gives_up(publisher: Publisher) -> None:
    box = outbox(publisher)
    box.put(1)
    await publisher.arrived.wait()
    box.close()
    await box.emptied()
