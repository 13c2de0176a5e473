"""Long iterations yield to the event loop."""

import asyncio

from shared.aio.iteration import ITEMS_PER_TURN, iterate_yielding


async def test_items_are_yielded_in_order_and_the_event_loop_runs_in_between() -> None:
    turns = 0
    ended = False

    async def other() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    seen = [item async for item in iterate_yielding(range(5 * ITEMS_PER_TURN + 1))]
    ended = True
    await task
    assert seen == [*range(5 * ITEMS_PER_TURN + 1)]
    assert turns == 5
