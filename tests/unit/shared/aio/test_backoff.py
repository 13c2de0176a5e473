"""Pauses between attempts."""

import asyncio

import pytest

from shared.aio.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 0.5)
    assert [backoff.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert backoff.attempts == 5


def test_pauses_begin_again_after_a_success() -> None:
    backoff = Backoff(0.1, 0.5)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert (backoff.attempts, backoff.next()) == (0, 0.1)


def test_pauses_stay_finite_after_any_number_of_attempts() -> None:
    backoff = Backoff(0.1, 10.0)
    for _ in range(2000):
        backoff.next()
    assert backoff.next() == 10.0


def test_scattered_pauses_lie_between_half_and_whole() -> None:
    backoff = Backoff(1.0, 1.0, scatter=True)
    pauses = [backoff.next() for _ in range(200)]
    assert all(0.5 <= pause <= 1.0 for pause in pauses)
    assert len(set(pauses)) > 100


async def test_waiting_takes_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    backoff = Backoff(0.1, 1.0)
    await backoff.wait()
    await backoff.wait()
    assert slept == [0.1, 0.2]
