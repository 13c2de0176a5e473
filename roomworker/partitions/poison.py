"""Finds messages with which room workers die, so that they are not run for ever (DELIVERY B5).

A batch that is delivered again is marked as a whole, so that an ordinary takeover costs one round trip. A batch whose
worker died *again* is run one message at a time, each marked by itself: the message with which workers die twice more
is answered 500 and kept as a dead letter. A mark is cleared when its batch or message is done, and taken back when
its worker lives but has lost the channel that delivered it.
"""

from collections import Counter
from hashlib import blake2b
from typing import Final

from roomworker.runtime.session_queue import Job
from roomworker.storage.port import Store
from shared.telemetry import log

BATCH_TRIES: Final = 1
MESSAGE_TRIES: Final = 2
INTERRUPTIONS_LIMIT: Final = 50
"""Times that this worker takes the same mark back: a message may be why the channel is lost, and not run for ever."""
_BATCH: Final = "batch/"

logger = log.get("poison")


class PoisonDetector:
    """Counts, for one partition, how often each redelivered batch or message has been begun, and judges by it."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self._attempts: dict[str, int] = {}
        """Batches and messages that are marked, and how often each was begun."""
        self._marked_here: set[str] = set()
        """Batches and messages that this worker has marked since it became active, and not cleared."""
        self._interruptions: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._attempts)

    async def load(self) -> None:
        """Reads the marks that earlier workers left."""
        self._attempts = await self._store.attempts(self._partition)
        self._marked_here.clear()
        self._interruptions = Counter({name: self._interruptions[name] for name in self._attempts})

    async def take_back(self) -> None:
        """Takes the marks of what was begun and not finished back: the channel is lost, and no worker has died."""
        names = [name for name in self._marked_here if self._interruptions[name] < INTERRUPTIONS_LIMIT]
        self._marked_here.clear()
        self._interruptions.update(names)
        if names:
            await self._store.withdraw_attempts(self._partition, names)

    def is_marked(self, job: Job) -> bool:
        """Whether the message was being run by itself when a worker died."""
        return _name(job) in self._attempts

    async def admit_batch(self, body: bytes) -> bool:
        """Marks a redelivered batch; returns false if a worker has died with it before."""
        return await self._mark(batch_name(body)) <= BATCH_TRIES

    async def admit_message(self, job: Job) -> bool:
        """Marks one message; returns false if workers die with it, and it was made a dead letter."""
        name = _name(job)
        tries = await self._mark(name)
        if tries <= MESSAGE_TRIES:
            return True
        logger.error("message.dead_lettered", room=job.item.room, message=name, tries=MESSAGE_TRIES)
        await self._store.add_dead_letter(self._partition, job.item, f"its worker died {MESSAGE_TRIES} times")
        return False

    async def clear_stale_batches(self) -> None:
        """Clears marks of batches that will not come again: the queue has delivered all redelivered ones.

        RabbitMQ lost them, or their worker died between `ack` and `clear_batch`. A message may still come in a new
        batch.
        """
        stale = self._attempts.keys() - self._marked_here
        await self._clear(*(name for name in stale if name.startswith(_BATCH)))

    async def clear_batch(self, body: bytes) -> None:
        """Clears the mark of a batch that is done."""
        await self._clear(batch_name(body))

    async def clear_message(self, job: Job) -> None:
        """Clears the mark of a message that is done."""
        await self._clear(_name(job))

    async def _mark(self, name: str) -> int:
        self._marked_here.add(name)
        self._attempts[name] = await self._store.record_attempt(self._partition, name)
        return self._attempts[name]

    async def _clear(self, *names: str) -> None:
        self._marked_here.difference_update(names)
        known = [name for name in names if self._attempts.pop(name, None) is not None]
        if known:
            await self._store.clear_attempts(self._partition, known)


def batch_name(body: bytes) -> str:
    return f"{_BATCH}{blake2b(body, digest_size=16).hexdigest()}"


def _name(job: Job) -> str:
    return "/".join(str(part) for part in job.identity)
