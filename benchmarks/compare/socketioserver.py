"""A chat server like that of python-socketio's documentation, scaled over RabbitMQ. It prints its port.

    python -m benchmarks.compare.socketioserver AMQP_URL

The server uses uvloop and aiohttp, which costs less per WebSocket message than uvicorn with websockets.
"""

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvloop
from aiohttp import web


def application(amqp_url: str) -> web.Application:
    server = socketio.AsyncServer(
        async_mode="aiohttp", client_manager=socketio.AsyncAioPikaManager(amqp_url), cors_allowed_origins=[]
    )
    peers: dict[str, tuple[str, str]] = {}

    async def connect(sid: str, environ: dict[str, Any]) -> None:
        query = parse_qs(environ["QUERY_STRING"])
        room, name = query["roomId"][0], query["peerName"][0]
        peers[sid] = room, name
        await server.enter_room(sid, room)

    async def disconnect(sid: str, reason: str) -> None:
        peers.pop(sid, None)

    async def message(sid: str, data: Any) -> dict[str, Any]:
        room, name = peers[sid]
        await server.emit("message", {"from": name, "data": data["data"]}, room=room, skip_sid=sid)
        return {}

    for handler in (connect, disconnect, message):
        server.on(handler.__name__, handler)
    app = web.Application()
    server.attach(app)
    return app


async def main(amqp_url: str) -> None:
    runner = web.AppRunner(application(amqp_url), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
