"""Keeps the registry and the other shared facts of a cluster in Redis."""

import asyncio
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.cluster.availability import FAILURES, Availability
from shared.cluster.entries import EntryReader, decode_partitions
from shared.cluster.port import Info
from shared.cluster.redis_keys import EPOCH_KEY, PARTITIONS_KEY, TIME_KEY, Role, index_key, indexed_rooms, members_key

T = TypeVar("T")


class RedisCluster:
    """Implements `shared.cluster.port.Cluster`. The caller owns the client.

    `availability` says in the log when Redis stops to answer and when it answers again; callers need not.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.availability = Availability()
        self._entries = EntryReader()

    async def announce(self, role: Role, member: str, info: Info) -> None:
        await self._whole(self._redis.hset(members_key(role), member, orjson.dumps(info)))

    async def withdraw(self, role: Role, member: str) -> bool:
        return bool(await self._whole(self._redis.hdel(members_key(role), member)))

    async def members(self, role: Role) -> dict[str, dict[str, Any]]:
        entries = cast("dict[bytes, bytes]", await self._whole(self._redis.hgetall(members_key(role))))
        return self._entries.decode(role, entries)

    async def agree_on_partitions(self, partitions: int) -> int:
        _, held = await self._run(("SET", PARTITIONS_KEY, partitions, "NX"), ("GET", PARTITIONS_KEY))
        return decode_partitions(held)

    async def epoch(self) -> str:
        _, held = await self._run(("SET", EPOCH_KEY, secrets.token_hex(8), "NX"), ("GET", EPOCH_KEY))
        return cast("bytes", held).decode(errors="backslashreplace")

    async def advance_time(self, now: int, first: int) -> int:
        *_, held = await self._run(
            ("ZADD", TIME_KEY, "NX", first, "ms"),
            ("ZADD", TIME_KEY, "GT", now, "ms"),  # one command, so that two leaders cannot set it back
            ("ZSCORE", TIME_KEY, "ms"),
        )
        return int(float(held))

    async def room_counts(self, partitions: Sequence[int]) -> list[int]:
        return await self._run(*(("SCARD", index_key(partition)) for partition in partitions))

    async def rooms(self, partitions: Sequence[int]) -> list[list[str]]:
        indexes = await self._run(*(("SMEMBERS", index_key(partition)) for partition in partitions))
        return [indexed_rooms(member.decode(errors="replace") for member in members) for members in indexes]

    async def _run(self, *commands: tuple[Any, ...]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await self._whole(pipeline.execute())

    async def _whole(self, command: Awaitable[T]) -> T:
        """Runs a command to its end even if its caller is cancelled: redis-py may lose that, or a reply."""
        try:
            result = await asyncio.shield(asyncio.ensure_future(command))
        except (RedisError, *FAILURES) as failure:
            self.availability.failed(failure)
            raise
        self.availability.answered()
        return result
