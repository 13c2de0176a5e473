"""Commands that place suspect rooms wait for a second engine, and not for long."""

import asyncio

import pytest

from medianode import delayed_placements
from medianode.delayed_placements import DelayedPlacements
from roomworker.messaging.media_client import SILENT_AFTER
from shared.protocol import media
from shared.protocol.media import Command


def command(n: int) -> Command:
    return Command(n, media.CreateTransport(media.RouterRef(f"router {n}", 0, "room", "i", 1, 1), f"transport {n}"))


@pytest.fixture
def released() -> asyncio.Queue[int]:
    return asyncio.Queue()


@pytest.fixture
def delayed(released: asyncio.Queue[int]) -> DelayedPlacements:
    return DelayedPlacements(lambda _, command: released.put_nowait(command.n))


async def test_commands_wait_until_released_and_keep_their_order(
    delayed: DelayedPlacements, released: asyncio.Queue[int]
) -> None:
    for n in (1, 2, 3):
        assert delayed.keep("worker", command(n), f"router {n}")
    assert (len(delayed), released.qsize()) == (3, 0)
    delayed.release()
    assert [await released.get() for _ in range(3)] == [1, 2, 3]
    assert len(delayed) == 0


async def test_commands_are_released_after_the_longest_delay(
    delayed: DelayedPlacements, released: asyncio.Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_placements, "LONGEST_DELAY_SECONDS", 0.01)
    assert delayed.keep("worker", command(1), "router 1")
    assert await released.get() == 1
    assert not delayed.keep("worker", command(1), "router 1"), "it has waited long enough"
    assert delayed.keep("worker", command(2), "router 2")
    assert await released.get() == 2


async def test_command_released_early_may_be_kept_for_the_rest_of_its_delay(
    delayed: DelayedPlacements, released: asyncio.Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second engine may die before the command is carried out."""
    monkeypatch.setattr(delayed_placements, "LONGEST_DELAY_SECONDS", 0.05)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert delayed.keep("worker", command(1), "router 1")
    delayed.release()
    await released.get()
    assert delayed.keep("worker", command(1), "router 1")
    await released.get()
    assert loop.time() - began < 0.5
    assert not delayed.keep("worker", command(1), "router 1")


async def test_cleared_commands_are_never_released(
    delayed: DelayedPlacements, released: asyncio.Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_placements, "LONGEST_DELAY_SECONDS", 0.01)
    delayed.keep("worker", command(1), "router 1")
    delayed.clear()
    delayed.keep("worker", command(2), "router 2")
    assert await released.get() == 2
    assert released.empty()


async def test_deadlines_of_long_ago_are_forgotten(
    delayed: DelayedPlacements, released: asyncio.Queue[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_placements, "LONGEST_DELAY_SECONDS", 0.005)
    for n in range(1, 20):
        delayed.keep("worker", command(n), f"router {n}")
        await released.get()
    assert len(delayed._deadlines) < 10


def test_longest_delay_is_well_below_the_silence_that_fails_a_node() -> None:
    assert delayed_placements.LONGEST_DELAY_SECONDS <= SILENT_AFTER / 2
