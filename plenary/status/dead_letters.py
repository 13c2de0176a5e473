"""Reads the messages that room workers set aside because they could not be handled."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from shared.cluster.redis_keys import DEAD_LETTERS_KEY
from shared.telemetry import log

LATEST: Final = 10
"""Messages that are shown; the others are only counted."""

logger = log.get("status")


@dataclass(frozen=True)
class DeadLetter:
    """A message that was set aside: its kind, its room and the reason."""

    at: datetime
    partition: int
    what: str
    room: str
    reason: str


async def read_dead_letters(redis: Redis) -> tuple[int, list[DeadLetter]]:
    """Returns the number of messages that were set aside, and the latest of them. Raises `RedisError`.

    An entry that cannot be read is counted, logged and left out.
    """
    count = await redis.xlen(DEAD_LETTERS_KEY)
    entries: Any = await redis.xrevrange(DEAD_LETTERS_KEY, count=LATEST)
    letters: list[DeadLetter] = []
    for id_, fields in entries:
        try:
            letters.append(_letter(id_.decode(), fields))
        except (ValueError, TypeError, KeyError) as error:
            logger.error("dead_letter.invalid", redis_key=DEAD_LETTERS_KEY, entry=id_.decode(), error=repr(error))
    return count, letters


def _letter(id_: str, fields: dict[bytes, bytes]) -> DeadLetter:
    """Decodes an entry of the stream. Raises ValueError, TypeError or KeyError."""
    what, room = orjson.loads(fields[b"item"])[:2]
    at = datetime.fromtimestamp(int(id_.partition("-")[0]) / 1000, UTC)
    return DeadLetter(at, int(fields[b"partition"]), what, room, fields[b"reason"].decode())
