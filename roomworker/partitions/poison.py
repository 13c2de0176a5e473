"""Finds messages with which room workers die, so that they are not run for ever (DELIVERY B5).

A batch that is delivered again is marked as a whole, so that an ordinary takeover costs one round trip. A batch whose
worker died *again* is run one message at a time, each marked by itself: the message with which it dies twice more is
answered 500 and set aside. Marks are taken away when what they are for is done.
"""

from hashlib import blake2b
from typing import Final

from roomworker.runtime.session_queue import Job
from roomworker.storage.port import Store
from shared.telemetry import log

BATCH_TRIES: Final = 1
MESSAGE_TRIES: Final = 2
_BATCH: Final = "batch/"

logger = log.get("poison")


class PoisonDetector:
    """The marks of one partition, as this worker knows them since it became active."""

    def __init__(self, store: Store, partition: int) -> None:
        self._store = store
        self._partition = partition
        self._begun: dict[str, int] = {}
        self._mine: set[str] = set()
        """Those of them that this worker has begun since it became active."""

    def __bool__(self) -> bool:
        return bool(self._begun)

    async def load(self) -> None:
        self._begun = await self._store.suspects(self._partition)
        self._mine.clear()

    def knows(self, job: Job) -> bool:
        """Whether the message was being run by itself when a worker died."""
        return _name(job) in self._begun

    async def may_run_whole(self, body: bytes) -> bool:
        """Marks a redelivered batch; false if a worker has died with it before."""
        return await self._begin(batch_name(body)) <= BATCH_TRIES

    async def may_run(self, job: Job) -> bool:
        """Marks one message; false if workers die with it, and it was set aside."""
        name = _name(job)
        tries = await self._begin(name)
        if tries <= MESSAGE_TRIES:
            return True
        logger.error("message.set_aside", room=job.item.room, message=name, tries=MESSAGE_TRIES)
        await self._store.set_aside(self._partition, job.item, f"its worker died {MESSAGE_TRIES} times")
        return False

    async def clear_batches_of_others(self) -> None:
        """Clears marks of batches that will not come again: the queue has delivered all redelivered ones.

        RabbitMQ lost them, or their worker died between ack and `done`. A message may still come in a new batch.
        """
        await self.done(*(name for name in self._begun.keys() - self._mine if name.startswith(_BATCH)))

    async def done(self, *names: str) -> None:
        self._mine.difference_update(names)
        known = [name for name in names if self._begun.pop(name, None) is not None]
        if known:
            await self._store.clear_suspects(self._partition, known)

    async def job_done(self, job: Job) -> None:
        await self.done(_name(job))

    async def _begin(self, name: str) -> int:
        self._mine.add(name)
        self._begun[name] = await self._store.suspect(self._partition, name)
        return self._begun[name]


def batch_name(body: bytes) -> str:
    return f"{_BATCH}{blake2b(body, digest_size=16).hexdigest()}"


def _name(job: Job) -> str:
    return "/".join(str(part) for part in job.identity)
