"""What all rooms of one worker use: each room is handed the same."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from roomworker.core.limits import Limits
from roomworker.counters import Counters
from roomworker.messaging.media_client import MediaClient
from roomworker.messaging.outbox import Outbox
from roomworker.runtime.committer import Committer
from roomworker.storage.retention import Retention


@dataclass(slots=True)
class RoomServices:
    """`choose_node` returns a media node for a room that has none, or None; `clock` is monotonic, seconds."""

    worker: str
    limits: Limits
    counters: Counters
    outbox: Outbox
    media: MediaClient
    committer: Committer
    retention: Retention
    choose_node: Callable[[], str | None]
    clock: Callable[[], float] = time.monotonic
    _tokens: int = field(default=0, init=False)

    def next_token(self) -> str:
        """A token that no other commit has, of this worker or another."""
        self._tokens += 1
        return f"{self.worker}:{self._tokens}"
