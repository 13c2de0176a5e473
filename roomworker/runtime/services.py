"""The services that all rooms of one worker share."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from roomworker.core.budget import WorkerTotal
from roomworker.core.limits import Limits
from roomworker.counters import Counters
from roomworker.messaging.media_client import MediaClient
from roomworker.messaging.outbox import Outbox
from roomworker.runtime.committer import Committer
from roomworker.storage.retention import Retention


@dataclass(slots=True)
class RoomServices:
    """The parts of a worker that a room uses.

    `choose_node` returns a media node for a room that has none, or None if no node lives. `clock` is monotonic,
    seconds. `total` has the bytes of all rooms. `room_time` has the time of each partition at its last tick, ms
    (DELIVERY T1); 0: none yet.
    """

    worker: str
    limits: Limits
    counters: Counters
    outbox: Outbox
    media: MediaClient
    committer: Committer
    retention: Retention
    choose_node: Callable[[], str | None]
    clock: Callable[[], float] = time.monotonic
    total: WorkerTotal = field(default_factory=WorkerTotal)
    room_time: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    _tokens: int = field(default=0, init=False)

    def next_token(self) -> str:
        """Returns a token that no other commit of any worker has."""
        self._tokens += 1
        return f"{self.worker}:{self._tokens}"
