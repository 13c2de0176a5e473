"""Answers the requests that come to the public port: WebSockets with a room and a peer name, and plain HTTP."""

import ssl
from base64 import b64decode
from http import HTTPStatus
from typing import Any, Final

from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub has only what `ws_create_server` needs

from gateway.http.connection import Switch
from gateway.http.request import BadRequest, Request, tokens, undecodable_fields
from gateway.http.response import Response, refusal, respond
from gateway.http.site import Site
from gateway.protocol import handshake
from gateway.protocol.admission import Origin, Refused
from gateway.websocket.connection import Connection
from gateway.websocket.connection_log import CLIENT_HEADER
from gateway.websocket.frame_reader import PIECE_BYTES
from gateway.websocket.hub import Hub
from gateway.websocket.resumable_connection import ResumableConnection
from gateway.websocket.socket import RejectedSocket
from shared import errors
from shared.settings import GatewaySettings
from shared.telemetry import log
from shared.tls import load_chain

SUBPROTOCOL = "protoo"
READ_BUFFER: Final = 2048
"""The first size in bytes of picows' buffer, which grows to two pieces of a frame (docs/adr/0019-picows.md)."""
METHODS: Final = "GET, HEAD, OPTIONS"
_KNOWN_METHODS: Final = frozenset({"CONNECT", "DELETE", "PATCH", "POST", "PUT", "TRACE"})
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_SOCKETS: Final = frozenset({"/", "/ws"})
_VERSIONS: Final = frozenset({"13", "8", "7"})
"""The versions of the WebSocket protocol that picows speaks."""
_KEY_BYTES: Final = 16
_YEAR: Final = 365 * 24 * 3600
_STRICT_TRANSPORT: Final = f"max-age={_YEAR}"


def asks_for_websocket(request: Request) -> bool:
    """Returns whether a request asks for the WebSocket protocol, among others perhaps (RFC 9110 §7.8).

    HTTP/1.0 knows no upgrade.
    """
    return request.minor > 0 and "websocket" in tokens(request.headers.get("Upgrade", "").lower())


def handshake_fault(request: Request) -> str:
    """Returns what RFC 6455 §4.2.1 forbids about the headers of a WebSocket's request; empty if nothing."""
    headers = request.headers
    if "upgrade" not in tokens(headers.get("Connection", "").lower()):
        return "Connection: expected Upgrade"
    if fault := version_fault(request):
        return fault
    try:
        key = b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    return "" if len(key) == _KEY_BYTES else "Sec-WebSocket-Key: expected 16 bytes as Base64"


def version_fault(request: Request) -> str:
    """Returns why the version of the WebSocket protocol is refused; empty if it is not."""
    version = request.headers.get("Sec-WebSocket-Version", "")
    if version in _VERSIONS:
        return ""
    return "Sec-WebSocket-Version: expected 13" if version else "Sec-WebSocket-Version: missing"


def tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Returns the TLS context of the public port, if it is to have TLS. Raises `BadCertificate`."""
    if not settings.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_chain(context, settings.tls_cert, settings.tls_key)
    return context


class UpgradeHandler:
    """Answers each request, or hands its connection on to picows with the listener that it asks for."""

    def __init__(self, hub: Hub, site: Site) -> None:
        self._hub = hub
        self._site = site
        self._picows_log = PicowsLog()

    def __call__(self, request: Request, origin: Origin) -> Response | Switch:
        by_proxy, client = origin.proxied, request.headers.get("X-Forwarded-For", "")
        try:
            if client or request.path not in _HEALTH:  # a proxy's own checks are nobody's connections
                origin.read_forwarded_for(client)
            answer = self._answer(request, origin)
        except Refused as refused:
            self._hub.counters.count_refused(refused.reason)
            answer = refusal(refused)
        if isinstance(answer, Response) and self._is_secure(request, by_proxy=by_proxy):
            answer.headers["Strict-Transport-Security"] = _STRICT_TRANSPORT
        return answer

    def _is_secure(self, request: Request, *, by_proxy: bool) -> bool:
        """Returns whether the client's connection has TLS.

        Not for localhost, where the header would concern all other servers of a developer's machine.
        """
        if request.headers.get("Host", "").partition(":")[0].rpartition(".")[2].lower() == "localhost":
            return False
        return bool(self._hub.settings.tls_cert) or (
            by_proxy and request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        )

    def _answer(self, request: Request, origin: Origin) -> Response | Switch:
        if request.method == "OPTIONS":
            return respond(HTTPStatus.NO_CONTENT, headers={"Allow": METHODS})
        if request.method in _KNOWN_METHODS:
            return respond(HTTPStatus.METHOD_NOT_ALLOWED, b"no such method here\n", {"Allow": METHODS})
        if request.method not in ("GET", "HEAD"):
            return respond(HTTPStatus.NOT_IMPLEMENTED, b"unknown method\n", {"Allow": METHODS})
        if request.path not in _SOCKETS or request.method != "GET" or not asks_for_websocket(request):
            return self._site.answer(request.path, request)
        if fault := handshake_fault(request):
            return self._refuse_upgrade(request, origin, fault)
        if request.has_body:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "body: the request of a WebSocket has none")
        if self._hub.draining:
            busy = {"Retry-After": "1"}
            return self._refuse(request, origin, HTTPStatus.SERVICE_UNAVAILABLE, "draining", busy)
        return self._accept(request, origin)

    def _refuse_upgrade(self, request: Request, origin: Origin, fault: str) -> Response:
        if not version_fault(request):
            return self._refuse(request, origin, HTTPStatus.BAD_REQUEST, fault)
        known = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}
        return self._refuse(request, origin, HTTPStatus.UPGRADE_REQUIRED, fault, known)

    def _refuse(
        self,
        request: Request,
        origin: Origin,
        status: HTTPStatus,
        reason: str,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Answers an upgrade with an error and logs it."""
        self._hub.log.rejected(status, reason, request.headers.get("User-Agent", ""), str(origin))
        return respond(status, f"{reason}\n".encode(), headers)

    def _accept(self, request: Request, origin: Origin) -> Switch:
        listener = self._listener(request.query, origin)
        offered = tokens(request.headers.get("Sec-WebSocket-Protocol", ""))
        chosen = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in offered else {}
        response = WSUpgradeResponse.create_101_response(chosen)
        protocol = WebSocketProtocol(origin, WSUpgradeResponseWithListener(response, listener), self._picows_log)
        return Switch(protocol, _head_for_picows(request, origin))

    def _listener(self, query: str, origin: Origin) -> WSListener:
        hub = self._hub
        wanted = handshake.parse(query)
        if wanted is None:
            return self._reject(errors.BAD_REQUEST, next(undecodable_fields(query), ""))
        if hub.overloaded or (hub.redis_is_full and wanted.resume is None):
            return self._reject(errors.UNAVAILABLE)
        origin.enter(wanted.room)
        publisher = hub.publisher_of(wanted.room)
        if wanted.resumable:
            return ResumableConnection(hub, hub.new_resumable_session(wanted), publisher, wanted.peer)
        return Connection(hub, hub.new_session(wanted.room), publisher, wanted.peer)

    def _reject(self, kind: errors.CloseKind, field: str = "") -> WSListener:
        """Makes a listener that closes the socket at once and logs why; `field` is one that is not UTF-8."""
        hub = self._hub
        hub.counters.rejected_sockets_total += 1
        return RejectedSocket(hub.closing_sockets, hub.counters, hub.log, kind, field and f"{field}: not UTF-8")


# --- picows -----------------------------------------------------------------------------------------------------


class WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # see the import
    """picows' protocol of one server connection, which frees what `origin` has when it ends.

    picows reads only a GET of HTTP/1.1 with `Connection: Upgrade`, and answers all else with 400; so it is given a
    request that is made for it, of one that has been read and checked.
    """

    __slots__ = ("_origin",)

    def __init__(self, origin: Origin, answer: WSUpgradeResponseWithListener, logger: "PicowsLog") -> None:
        def listener_factory(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            return answer

        super().__init__(
            None,  # host and port of a client
            None,  # path of a client
            False,
            listener_factory,
            logger,
            True,  # disconnect if a listener raises
            None,  # seconds for the request, which is here
            False,  # no pings of picows' own
            0,
            0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # answer no pings: they count in the client's rate
            PIECE_BYTES,
            None,  # headers of a client
            READ_BUFFER,
        )
        self._origin = origin

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._origin.release()


def _head_for_picows(request: Request, origin: Origin) -> bytes:
    """Returns the request that picows is given; no header of the client but these reaches it."""
    headers = request.headers
    agent = headers.get("User-Agent", "")[: errors.TEXT_CHARS].encode("ascii", "replace").decode()
    lines = (
        "GET / HTTP/1.1",
        "Host: gateway",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Version: {headers['Sec-WebSocket-Version']}",
        f"Sec-WebSocket-Key: {headers['Sec-WebSocket-Key']}",
        f"User-Agent: {agent}",
        f"{CLIENT_HEADER}: {origin}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class PicowsLog:
    """The logger for picows, which calls each mistake of a client an error; here only defects of ours are."""

    def __init__(self) -> None:
        self._log = log.get("picows")

    def isEnabledFor(self, _: int) -> bool:  # noqa: N802 - logging's name
        return False

    def debug(self, *_: Any) -> None:
        pass

    info = warning = log = debug

    def error(self, text: str, *args: Any) -> None:
        self._log.info("connection.failed", error=errors.cut(text % args))

    def exception(self, text: str, *args: Any) -> None:
        self._log.exception("connection.failed", error=errors.cut(text % args))
