"""Keeps the registry and the other shared facts of a cluster in Redis."""

import asyncio
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar, cast

import orjson
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from shared.cluster.availability import FAILURES, Availability
from shared.cluster.entries import EntryReader, decode_partitions
from shared.cluster.port import Info, MemoryUse
from shared.cluster.redis_keys import EPOCH_KEY, PARTITIONS_KEY, TIME_KEY, Role, index_key, indexed_rooms, members_key
from shared.cluster.redis_write import unrefused

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
        key, encoded = members_key(role), orjson.dumps(info)
        try:
            await self._whole(self._redis.hset(key, member, encoded))
        except OutOfMemoryError:
            await self._run(unrefused("HSET", key, member, encoded))

    async def withdraw(self, role: Role, member: str) -> bool:
        return bool(await self._whole(self._redis.hdel(members_key(role), member)))

    async def members(self, role: Role) -> dict[str, dict[str, Any]]:
        entries = cast("dict[bytes, bytes]", await self._whole(self._redis.hgetall(members_key(role))))
        return self._entries.decode(role, entries)

    async def agree_on_partitions(self, partitions: int) -> int:
        return decode_partitions(await self._agree(PARTITIONS_KEY, partitions))

    async def epoch(self) -> str:
        return (await self._agree(EPOCH_KEY, secrets.token_hex(8))).decode(errors="backslashreplace")

    async def memory(self) -> MemoryUse:
        return await self._whole(self._read_memory())

    async def _read_memory(self) -> MemoryUse:
        try:
            info = await self._redis.info("memory")
        except ResponseError as refused:
            if "unknown command" in str(refused) or "NOPERM" in str(refused):
                return MemoryUse()  # this server does not tell
            raise
        # buffers for replicas and for the append-only file are not compared with maxmemory
        return MemoryUse(info["used_memory"] - info.get("mem_not_counted_for_evict", 0), info.get("maxmemory", 0))

    async def advance_time(self, now: int, first: int) -> int:
        await self._write("ZADD", TIME_KEY, "NX", first, "ms")
        await self._write("ZADD", TIME_KEY, "GT", now, "ms")  # one command, so that two leaders cannot set it back
        (held,) = await self._run(("ZSCORE", TIME_KEY, "ms"))
        return int(float(held))

    async def room_counts(self, partitions: Sequence[int]) -> list[int]:
        return await self._run(*(("SCARD", index_key(partition)) for partition in partitions))

    async def rooms(self, partitions: Sequence[int]) -> list[list[str]]:
        indexes = await self._run(*(("SMEMBERS", index_key(partition)) for partition in partitions))
        return [indexed_rooms(member.decode(errors="replace") for member in members) for members in indexes]

    async def _agree(self, key: str, proposed: str | int) -> bytes:
        """Returns the value of a key, which is set to `proposed` if it is missing."""
        (held,) = await self._run(("GET", key))
        if held is None:
            await self._write("SET", key, proposed, "NX")
            (held,) = await self._run(("GET", key))
        return cast("bytes", held)

    async def _write(self, command: str, key: str, *arguments: Any) -> None:
        """Runs a command that needs memory; a server without any left carries it out all the same."""
        try:
            await self._run((command, key, *arguments))
        except OutOfMemoryError:
            await self._run(unrefused(command, key, *arguments))

    async def _run(self, *commands: tuple[Any, ...]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await self._whole(pipeline.execute())

    async def _whole(self, command: Awaitable[T]) -> T:
        """Runs a command to its end even if its caller is cancelled: redis-py may lose that, or a reply."""
        try:
            result = await asyncio.shield(asyncio.ensure_future(command))
        except OutOfMemoryError:
            raise  # the callers of `_write` never see it
        except (RedisError, *FAILURES) as failure:
            self.availability.failed(failure)
            raise
        self.availability.answered()
        return result
