"""Tasks that belong together."""

import asyncio

import pytest

from shared.aio.tasks import Tasks


async def test_wait_raises_the_failure_of_the_first_failed_task() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise ZeroDivisionError

    assert not tasks.failed
    tasks.spawn(fail())
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await tasks.wait()
    assert tasks.failed


async def test_cancel_ends_tasks_that_lose_a_cancellation() -> None:
    tasks = Tasks()
    cancelled = 0

    async def stubborn() -> None:
        nonlocal cancelled
        while cancelled < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1

    task = tasks.spawn(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await tasks.cancel()
    assert task.done()
    assert not tasks.failed
