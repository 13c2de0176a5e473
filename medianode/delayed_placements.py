"""Holds back the placement of suspect rooms while they could not be kept apart (`medianode.placement`)."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from shared.protocol.media import Command, EngineId

LONGEST_DELAY_SECONDS: Final = 1.0
"""Seconds after which a room is placed on the engine that is left. A node that is silent for 2 s fails all requests
(`roomworker.messaging.media_client`)."""


class DelayedPlacements:
    """Keeps commands until a second engine runs: `release` puts them back into the queue by `put`.

    `put` takes the routing key for the result and the command. Without `release` that happens after
    `LONGEST_DELAY_SECONDS`; the commands of a router are not kept again then.
    """

    def __init__(self, put: Callable[[str, Command], None]) -> None:
        self._put = put
        self._waiting: deque[tuple[str, Command]] = deque()
        self._deadlines: dict[EngineId, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Returns the number of commands that wait."""
        return len(self._waiting)

    def keep(self, reply_to: str, command: Command, router: EngineId) -> bool:
        """Keeps a command of this router; returns False if the router has waited long enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = self._deadlines.setdefault(router, now + LONGEST_DELAY_SECONDS)
        if now >= deadline:
            return False
        self._waiting.append((reply_to, command))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._timed_out)
        return True

    def _timed_out(self) -> None:
        long_ago = asyncio.get_running_loop().time() - 2 * LONGEST_DELAY_SECONDS
        self._deadlines = {router: deadline for router, deadline in self._deadlines.items() if deadline > long_ago}
        self.release()

    def release(self) -> None:
        """Puts the commands that wait back into the queue, in their order."""
        waiting = list(self._waiting)
        self.clear()
        for reply_to, command in waiting:
            self._put(reply_to, command)

    def clear(self) -> None:
        """Forgets the commands that wait."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
