"""The HTTP side of the server API: keys, bodies, errors, bounds. Its operations are in `operations`."""

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from aiohttp import web

from gateway.api import openapi
from gateway.api.cluster import ProcessWatch, Rooms
from gateway.api.operations import (
    LIST_ROOMS,
    OPERATIONS,
    PAGE_DEFAULT,
    PAGE_LIMIT,
    STATUS,
    Failure,
    Operation,
    check_name,
)
from gateway.bus.api_calls import ApiCalls
from gateway.counters import Counters
from gateway.http.request import is_utf8
from shared.aio.http_connections import BoundedConnections
from shared.cluster.port import Cluster
from shared.errors import ERRORS, BadPayload, PlenaryError, Unauthorized, Unavailable
from shared.settings import GatewaySettings
from shared.telemetry import log
from shared.telemetry.http_log import SERVER_LOGGER
from shared.version import version

BODY_BYTES: Final = 1024 * 1024
BODIES_BYTES: Final = 64 * 1024 * 1024
"""The bytes of all bodies being read, or whose calls are not answered; beyond it requests are answered 503."""
BODY_SECONDS: Final = 10.0
"""Seconds that a body may take."""
CONNECTIONS_LIMIT: Final = 1024
"""Connections at a time; the newest of more are cut off."""
REQUESTS_LIMIT: Final = 1024
"""Requests at a time; beyond it they are answered 503."""
HEADER_BYTES: Final = 8190
HEADERS_LIMIT: Final = 100
KEEP_ALIVE_SECONDS: Final = 75.0
_CLIENT_GONE: Final = 499
"""The status under which a request is counted whose client went away before it was answered."""
RETRY_AFTER: Final = "2"
SHUTDOWN_SECONDS: Final = 2.0

_OPEN: Final = frozenset({"/v1", "/v1/", openapi.DOCUMENT_PATH})
"""The paths that need no key, since they say nothing about this cluster."""
_KEY: Final = re.compile(r"[!-~]{1,128}")
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_REASON_CHARS: Final = 200
_encode = msgspec.json.encode

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The HTTP server of the API. `start` listens, `close` ends; between them `run` is to be a task."""

    def __init__(self, settings: GatewaySettings, calls: ApiCalls, cluster: Cluster, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._key = settings.api_key.encode()
        self._calls = calls
        self._rooms = Rooms(cluster, settings.partitions)
        self.handling = 0
        """Requests that are not answered yet."""
        self._bodies = 0
        self.watch = ProcessWatch(cluster)
        self._connections = BoundedConnections(CONNECTIONS_LIMIT)
        self._log = log.get("api")
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=SERVER_LOGGER,
            shutdown_timeout=SHUTDOWN_SECONDS,
            handle_signals=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS_LIMIT,
        )

    async def start(self) -> None:
        """Raises OSError if it cannot listen."""
        await self.watch.read_registry(time.monotonic())
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.api_host, self._settings.api_port).start()
        assert self._runner.server is not None
        self._connections.start(self._runner.server)
        self._log.info("api.listening", host=self._settings.api_host, port=self.port)

    @property
    def port(self) -> int:
        """The port listened on, which the kernel chose if the settings say 0."""
        port: int = self._runner.addresses[0][1]
        return port

    async def run(self) -> None:
        await self.watch.run()

    async def close(self) -> None:
        self._connections.stop()
        self._calls.fail_all()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        around = [self._connections.note, self._count, self._answer_errors, self._authorize, self._check_encoding]
        app = web.Application(middlewares=around, client_max_size=BODY_BYTES)
        own = {LIST_ROOMS: self._list_rooms, STATUS: self._status}
        for operation in OPERATIONS:
            handler = own.get(operation) or partial(self._call, operation)
            app.router.add_route(operation.method, operation.path, handler, name=operation.name)
        app.router.add_get("/v1", self._page)
        app.router.add_get("/v1/", self._page)
        app.router.add_get(openapi.DOCUMENT_PATH, self._document)
        return app

    # --- around every request -------------------------------------------------------------------------------

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        operation = request.match_info.route.name or "other"
        self.handling += 1
        try:
            response = await handler(request)
        except ConnectionError:  # aiohttp lets it pass without a word
            self._counters.count_api(operation, _CLIENT_GONE)
            raise
        finally:
            self.handling -= 1
        seconds = time.perf_counter() - began
        self._counters.count_api(operation, response.status)
        self._counters.api_seconds.observe(seconds)
        self._log.debug(
            "api.answered",
            method=operation,
            room=request.match_info.get("room", ""),
            code=response.status,
            seconds=round(seconds, 6),
        )
        return response

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if self.handling > REQUESTS_LIMIT:
                raise Unavailable("too many requests at a time")
            return await handler(request)
        except PlenaryError as refused:
            return _failed(refused.code, refused.reason, _headers(refused.code))
        except web.HTTPRequestEntityTooLarge:
            return _failed(413, f"body: more than {BODY_BYTES} bytes")
        except web.HTTPException as http:
            allow = {"Allow": http.headers["Allow"]} if "Allow" in http.headers else {}
            return _failed(http.status, HTTPStatus(http.status).phrase.lower(), allow)
        except web.RequestPayloadError as broken:
            return _failed(400, f"body: {broken}"[:_REASON_CHARS])
        except Exception as failed:
            if isinstance(failed, OSError) and (request.transport is None or request.transport.is_closing()):
                raise ConnectionResetError("the client went away") from failed
            self._log.exception("api.request_failed", method=request.match_info.route.name or "")
            return _failed(500, ERRORS[500].meaning)

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _OPEN:
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            given = key.strip().encode(errors="surrogateescape")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._key):
                raise Unauthorized("Authorization: expected Bearer and the API's key")
        return await handler(request)

    @web.middleware
    async def _check_encoding(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses a path or query whose percent-encoding is not UTF-8; aiohttp would take it for text."""
        path, _, query = request.raw_path.encode(errors="surrogateescape").partition(b"?")
        resource = request.match_info.route.resource
        names = resource.canonical.split("/") if resource is not None else []
        # From the right, because an absolute URL has more on the left.
        for name, part in zip(reversed(names), reversed(path.split(b"/")), strict=False):
            if not is_utf8(unquote_to_bytes(part)):
                raise BadPayload(f"{name.strip('{}')}: not UTF-8")
        for field in query.split(b"&"):
            if not is_utf8(unquote_to_bytes(field)):
                name = field.partition(b"=")[0].decode("ascii", "backslashreplace")
                raise BadPayload(f"{name[:_REASON_CHARS]}: not UTF-8")
        return await handler(request)

    # --- the operations -------------------------------------------------------------------------------------

    async def _call(self, operation: Operation, request: web.Request) -> web.Response:
        path = request.match_info
        room = check_name("room", path["room"])
        if "peer" in path:
            check_name("peer", path["peer"])
        key = _idempotency_key(request) if operation.changes else ""
        if not operation.body:
            return _json(await self._calls.call(room, operation.read(path, b""), key))
        size = _largest_body(request)
        if self._bodies + size > BODIES_BYTES:
            raise Unavailable("too many bodies at a time")
        self._bodies += size
        try:
            action = operation.read(path, await _body(request))
            return _json(await self._calls.call(room, action, key))
        finally:
            self._bodies -= size

    async def _list_rooms(self, request: web.Request) -> web.Response:
        limit = _limit(request.query)
        return _json(_encode(await self._rooms.page(limit, request.query.get("after", ""))))

    async def _status(self, _: web.Request) -> web.Response:
        return _json(_encode(self.watch.status()))

    async def _document(self, _: web.Request) -> web.Response:
        return _json(_encode(openapi.document(version())))

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=openapi.page(), content_type="text/html", headers=_PAGE_HEADERS)


def _largest_body(request: web.Request) -> int:
    """Returns how large a request's body may become in memory. Raises HTTPRequestEntityTooLarge."""
    size = request.content_length
    if size is not None and size > BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(BODY_BYTES, size)
    return BODY_BYTES if size is None or "Content-Encoding" in request.headers else size


async def _body(request: web.Request) -> bytes:
    """Reads a body. Raises HTTPRequestTimeout if it takes too long."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise BadPayload("Idempotency-Key: expected 1 to 128 visible ASCII characters")
    return key or ""


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= PAGE_LIMIT):
        raise BadPayload(f"limit: expected a number from 1 to {PAGE_LIMIT}")
    return int(text)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", charset="utf-8")


def _failed(code: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    answer = _encode(Failure(code, reason))
    return web.Response(status=code, body=answer, content_type="application/json", headers=headers)


def _headers(code: int) -> dict[str, Any]:
    if code == Unauthorized.code:
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": RETRY_AFTER} if code in (Unavailable.code, 429) else {}
