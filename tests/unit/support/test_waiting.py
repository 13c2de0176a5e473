import asyncio

import pytest

from tests.support.waiting import until


async def test_until_returns_the_first_true_value_of_a_condition() -> None:
    values = iter([0, "", 7, 8])
    assert await until(lambda: next(values)) == 7


async def test_until_awaits_what_a_condition_returns() -> None:
    values = iter([False, True])

    async def condition() -> bool:
        return next(values)

    assert await until(condition) is True


async def test_blocking_condition_is_called_in_a_thread() -> None:
    def running_loop() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False

    assert await until(running_loop, in_thread=True) is True


async def test_late_condition_fails_with_its_source_and_last_value() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: .*sum\(\[\]\).* \(last value: 0\)"):
        await until(lambda: sum([]), within=0.01)


async def test_late_condition_fails_with_the_given_description() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: two gateways \(last value: \[\]\)"):
        await until(list, "two gateways", within=0.01)


async def test_condition_that_never_answers_fails_after_the_deadline() -> None:
    with pytest.raises(AssertionError, match="the answer"):
        await until(lambda: asyncio.sleep(60), "the answer", within=0.01)


async def test_timeout_error_of_a_condition_is_passed_on() -> None:
    def condition() -> bool:
        raise TimeoutError("of the client")

    with pytest.raises(TimeoutError, match="of the client"):
        await until(condition)


async def test_first_looks_are_one_turn_of_the_event_loop_apart() -> None:
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await until(lambda: len(turns) == 5)
    counting.cancel()
    assert len(turns) == 5
