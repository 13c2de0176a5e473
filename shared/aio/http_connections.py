"""Bounds the connections of an aiohttp server, which by itself lets any number stay open without a request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

SWEEP_EVERY: Final = 0.5
FIRST_REQUEST_SECONDS: Final = 10.0
"""Seconds from the opening of a connection to the end of its first request's head. Later requests have the time of
the server's keep-alive."""


class BoundedConnections:
    """Cuts connections off whose first request does not come, and the newest of those above `limit`.

    `note` is the outermost middleware of the server's application.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._server: web.Server | None = None
        self._served: set[object] = set()
        """The connections that have had a request."""
        self._since: dict[object, float] = {}
        """When each of the others was seen first."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self, server: web.Server) -> None:
        """Watches a server that listens, until `stop`."""
        self._server = server
        self._timer = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @web.middleware
    async def note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Takes note of a connection's request."""
        self._served.add(request.protocol)
        return await handler(request)

    def _sweep(self) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        now, connections = loop.time(), self._server.connections
        self._served.intersection_update(connections)
        waiting = [each for each in connections if each not in self._served]
        self._since = {each: self._since.get(each, now) for each in waiting}
        for each in connections[self._limit :]:
            each.force_close()
        for each in waiting:
            if now - self._since[each] >= FIRST_REQUEST_SECONDS:
                each.force_close()
        self._timer = loop.call_later(SWEEP_EVERY, self._sweep)
