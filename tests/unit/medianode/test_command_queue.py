"""Commands are carried out in their order, and the event loop does other things between them."""

import asyncio
import time

import pytest

from medianode import command_queue
from medianode.command_queue import CommandQueue
from shared.protocol import media
from shared.protocol.media import Command


def commands(count: int) -> list[Command]:
    return [Command(n, media.RequestKeyFrame("consumer", 1)) for n in range(1, count + 1)]


async def until_empty(queue: CommandQueue) -> int:
    """Returns the number of turns that other work had until the queue was empty."""
    turns = 0
    while queue:
        turns += 1
        await asyncio.sleep(0)
    return turns


def fails(command: Command, error: Exception) -> None:
    raise AssertionError(command) from error


async def test_commands_keep_their_order_over_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_queue, "TURN_SECONDS", 0.0005)
    done: list[tuple[str, int]] = []

    def carry_out(reply_to: str, command: Command) -> None:
        done.append((reply_to, command.n))
        time.sleep(0.0003)

    queue = CommandQueue(carry_out, fails)
    for command in commands(20):
        queue.put("one", command)
    await asyncio.sleep(0)
    queue.put("two", Command(21, media.RequestKeyFrame("consumer", 1)))
    turns = await until_empty(queue)
    assert done == [("one", n) for n in range(1, 21)] + [("two", 21)]
    assert turns >= 20 // 2 - 1, "two commands fill a turn"


async def test_quick_commands_take_a_single_turn() -> None:
    done: list[int] = []
    queue = CommandQueue(lambda _, command: done.append(command.n), fails)
    for command in commands(3):
        queue.put("worker", command)
    assert done == []
    await asyncio.sleep(0)
    assert done == [1, 2, 3]
    assert not queue


async def test_command_that_fails_is_reported_and_the_next_follow() -> None:
    done: list[int] = []
    failed: list[tuple[int, str]] = []

    def carry_out(_: str, command: Command) -> None:
        if command.n == 2:
            raise KeyError("defect")
        done.append(command.n)

    queue = CommandQueue(carry_out, lambda command, error: failed.append((command.n, repr(error))))
    for command in commands(3):
        queue.put("worker", command)
    await until_empty(queue)
    assert done == [1, 3]
    assert failed == [(2, "KeyError('defect')")]


async def test_cleared_commands_are_not_carried_out() -> None:
    queue = CommandQueue(lambda _, command: fails(command, ValueError()), fails)
    for command in commands(3):
        queue.put("worker", command)
    queue.clear()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(queue) == 0
