"""Accepts what comes to the public port: WebSockets with a room and a peer name, and plain HTTP requests."""

import ssl
from base64 import b64decode
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from gateway.http.site import Site, respond
from gateway.protocol import handshake
from gateway.websocket.connection import Connection
from gateway.websocket.hub import Hub
from gateway.websocket.resumable_connection import ResumableConnection
from gateway.websocket.socket import RejectedSocket
from shared import errors
from shared.settings import GatewaySettings

SUBPROTOCOL = "protoo"
_VERSIONS: Final = frozenset({"13", "8", "7"})
"""The versions of the WebSocket protocol that picows speaks."""
_KEY_BYTES: Final = 16


def tokens(header: str) -> list[str]:
    """Returns the parts of a header that is a list."""
    return [token.strip() for token in header.split(",") if token.strip()]


def handshake_fault(request: WSUpgradeRequest) -> str:
    """Returns what RFC 6455 §4.2.1 forbids about the headers of a WebSocket's request; empty if nothing."""
    headers = request.headers
    if headers.get("Connection", "").lower() != "upgrade":
        return "Connection: expected Upgrade"
    if (version := headers.get("Sec-WebSocket-Version", "")) not in _VERSIONS:
        return "Sec-WebSocket-Version: missing" if not version else "Sec-WebSocket-Version: expected 13"
    try:
        key = b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    return "" if len(key) == _KEY_BYTES else "Sec-WebSocket-Key: expected 16 bytes as Base64"


class BadCertificate(Exception):
    """Raised for a TLS certificate or key that cannot be used; the text names the file and says why."""


def tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Returns the TLS context of the public port, if it is to have TLS. Raises `BadCertificate`."""
    if not settings.tls_cert:
        return None
    for path in (settings.tls_cert, settings.tls_key):
        try:
            with open(path, "rb"):
                pass
        except OSError as failed:  # the error of ssl does not name the file
            raise BadCertificate(f"cannot read {path}: {failed.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except ssl.SSLError as failed:
        why = failed.reason or failed.strerror or "not PEM"
        raise BadCertificate(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {why}"
        ) from None
    return context


class UpgradeHandler:
    """The listener factory for picows, which calls it with each HTTP request before anything is answered."""

    def __init__(self, hub: Hub, site: Site) -> None:
        self._hub = hub
        self._site = site

    def __call__(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        target, _, query = request.path.decode("ascii", "replace").partition("?")
        path = unquote(target, errors="replace")
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if not upgrade or path not in ("/", "/ws"):
            return WSUpgradeResponseWithListener(self._site.answer(path, request), None)
        if "upgrade" in (token.lower() for token in tokens(request.headers.get("Connection", ""))):
            # Firefox sends "keep-alive, Upgrade", of which picows accepts only the second word.
            request.headers["Connection"] = "Upgrade"
        if fault := handshake_fault(request):
            return self._refuse(request, HTTPStatus.BAD_REQUEST, fault)
        if self._hub.draining:
            return self._refuse(request, HTTPStatus.SERVICE_UNAVAILABLE, "draining", {"Retry-After": "1"})
        return WSUpgradeResponseWithListener(self._accept(request), self._listener(query))

    def _refuse(
        self, request: WSUpgradeRequest, status: HTTPStatus, reason: str, headers: dict[str, str] | None = None
    ) -> WSUpgradeResponseWithListener:
        """Answers an upgrade with an error and logs it."""
        self._hub.log.rejected(status, reason, request.headers.get("User-Agent", ""))
        return WSUpgradeResponseWithListener(respond(status, f"{reason}\n".encode(), headers), None)

    def _accept(self, request: WSUpgradeRequest) -> WSUpgradeResponse:
        offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", []))
        chosen = {"Sec-WebSocket-Protocol": SUBPROTOCOL} if SUBPROTOCOL in tokens(offered) else {}
        response: WSUpgradeResponse = WSUpgradeResponse.create_101_response(chosen)
        return response

    def _listener(self, query: str) -> WSListener:
        hub = self._hub
        wanted = handshake.parse(query)
        if wanted is None:
            return self._reject(errors.BAD_REQUEST)
        if hub.overloaded:
            return self._reject(errors.UNAVAILABLE)
        publisher = hub.publisher_of(wanted.room)
        if wanted.resumable:
            return ResumableConnection(hub, hub.new_resumable_session(wanted), publisher, wanted.peer)
        return Connection(hub, hub.new_session(wanted.room), publisher, wanted.peer)

    def _reject(self, kind: errors.CloseKind) -> WSListener:
        """Makes a listener that closes the socket at once and logs why."""
        hub = self._hub
        hub.counters.rejected_sockets_total += 1
        return RejectedSocket(hub.closing_sockets, hub.counters, hub.log, kind)
