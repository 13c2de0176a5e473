"""Carries out the commands of room workers in their order, for a few milliseconds at a time."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

from shared.protocol.media import Command

TURN_SECONDS: Final = 0.005
"""Seconds after which the event loop does what else is due, before further commands are carried out."""


class CommandQueue:
    """Keeps the event loop free: someone who joins a room of 500 causes 500 commands in one message.

    `carry_out` is called with the routing key for the result and the command, once for each command. If it raises,
    `on_failed` is called with the command and the exception, and the next command follows.
    """

    def __init__(
        self, carry_out: Callable[[str, Command], None], on_failed: Callable[[Command, Exception], None]
    ) -> None:
        self._carry_out = carry_out
        self._on_failed = on_failed
        self._waiting: deque[tuple[str, Command]] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        """Returns the number of commands that wait."""
        return len(self._waiting)

    def put(self, reply_to: str, command: Command) -> None:
        """Carries the command out in the next turn of the event loop, or in one of those that follow."""
        self._waiting.append((reply_to, command))
        self._schedule()

    def clear(self) -> None:
        """Forgets the commands that wait."""
        self._waiting.clear()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        deadline = perf_counter() + TURN_SECONDS
        while self._waiting and perf_counter() < deadline:
            reply_to, command = self._waiting.popleft()
            try:
                self._carry_out(reply_to, command)
            except Exception as error:  # noqa: BLE001 - a defect of the node's must not stop the other commands
                self._on_failed(command, error)
        self._schedule()
