"""The Redis client fails with errors that its users expect."""

import asyncio
import re

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from plenary.processes.redis_client import open_redis


def test_transport_that_has_just_closed_is_a_lost_connection() -> None:
    """The event loop is uvloop, as in processes: a write to a closed transport raises RuntimeError there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while commands := await reader.read(1000):
            # one read may bring several commands: how many differs between versions of Python
            writer.write(b"+OK\r\n" * len(re.findall(rb"^\*\d+\r$", commands, re.MULTILINE)))
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        redis = open_redis(f"redis://127.0.0.1:{port}/0")
        connection = await redis.connection_pool.get_connection()
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        assert connection.is_connected, "redis-py has not noticed"
        with pytest.raises(RedisConnectionError, match="handler is closed"):
            await connection.send_command("PING", check_health=False)
        assert not connection.is_connected
        await redis.aclose()
        server.close()

    uvloop.run(main())
