"""Connections of an aiohttp server that bring no request, or are too many."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from shared.aio import http_connections
from shared.aio.http_connections import BoundedConnections
from tests.support.waiting import PATIENCE


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(http_connections, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(http_connections, "FIRST_REQUEST_SECONDS", 0.2)
    bounds = BoundedConnections(3)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    app = web.Application(middlewares=[bounds.note])
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    assert runner.server is not None
    bounds.start(runner.server)
    yield runner.addresses[0][1]
    bounds.stop()
    await runner.cleanup()


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert await reader.readuntil(b"here")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["nothing", "a part"])
async def test_connection_without_its_first_request_is_cut_off(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


async def test_connection_that_has_had_a_request_is_kept(port: int) -> None:
    kept = await asyncio.open_connection("127.0.0.1", port)
    await request(*kept)
    other, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(PATIENCE):
        assert await other.read() == b""
    await request(*kept)
    for each in (kept[1], writer):
        each.close()


async def test_newest_connections_above_the_limit_are_cut_off(port: int) -> None:
    kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    for each in kept:
        await request(*each)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    for each in kept:
        await request(*each)
        each[1].close()
    writer.close()
