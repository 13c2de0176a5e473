"""Listens on the public port: accepts connections, admits them, and opens those that are admitted.

The gateway accepts by itself, because an event loop's server knows neither the address of a connection before it
costs a TLS handshake, nor that there is no file descriptor left: libuv closes such connections silently.
"""

import asyncio
import contextlib
import errno
import math
import os
import resource
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.counters import Counters
from gateway.http.connection import REQUEST_SECONDS, HttpConnection
from gateway.http.response import refusal
from gateway.protocol.addresses import V2_BYTES, BadProxyHeader, parse_proxy_header
from gateway.protocol.admission import Admission, Origin, Refused
from shared.telemetry import log

BACKLOG: Final = 4096
"""Connections that may wait to be accepted: all clients of another gateway may come at once. The kernel keeps at most
`net.core.somaxconn`, which is 4096 by default."""
ACCEPTS_A_TURN: Final = 64
"""Connections accepted in one turn of the event loop, so that open ones are served in between."""
LINGERING: Final = 256
"""Refused connections that stay open for a moment, so that their clients can read why; the oldest is closed first."""
LINGER_SECONDS: Final = 1.0
WITHOUT_FILES_SECONDS: Final = 0.2
"""Pause in accepting after the process ran out of file descriptors."""
LOG_EVERY: Final = 10.0
"""Seconds between two log lines about refused connections for the same reason."""
FILES_EXHAUSTED: Final = "files.exhausted"
LOGGED_REASONS: Final = 64
KEPT_FILES: Final = 128
_PARTIAL_SECONDS: Final = 0.02
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listening_sockets(host: str, port: int, buffer: int) -> list[socket.socket]:
    """Returns a listening socket for each address of `host`. Raises OSError, which names the address.

    The kernel keeps at most `buffer` bytes of each accepted connection in either direction; by itself it would keep
    some megabytes, which the process does not see and has to pay for.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            made.append(sock := socket.socket(family, kind, protocol))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as failed:
        for sock in made:
            sock.close()
        why = os.strerror(failed.errno or 0).lower()
        raise OSError(failed.errno, f"error while attempting to bind on address {host}:{port}: {why}") from None
    return made


def files_for_connections() -> int:
    """Returns how many connections the limit of open files leaves room for; 0 if there is no such limit.

    A part is kept for the connections to Redis and RabbitMQ, which may have to be opened anew at any time.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(1, soft - min(KEPT_FILES, soft // 2))


class Listener:
    """Accepts connections until `close`. `make` makes the protocol of an admitted connection.

    `make_room` is called when all connections are taken. It ends one that does nothing, and returns whether there was
    one.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        make: Callable[[Origin], HttpConnection],
        tls: ssl.SSLContext | None,
        admission: Admission,
        counters: Counters,
        make_room: Callable[[], bool],
    ) -> None:
        self._sockets = sockets
        self._make = make
        self._tls = tls
        self._admission = admission
        self._counters = counters
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._lingering: deque[socket.socket] = deque()
        self._logged: dict[str, float] = {}
        self._spare = os.open(os.devnull, os.O_RDONLY)
        """A file descriptor that is given up for a moment, to accept and refuse a connection when none is left."""
        self._log = log.get("listener")
        for sock in sockets:
            self._loop.add_reader(sock, self._accept, sock)

    @property
    def port(self) -> int:
        """The port listened on, which the kernel chose if the settings say 0."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Takes no more connections; those that are being opened are cut off."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets = []
        for task in self._opening:
            task.cancel()
        while self._lingering:
            self._lingering.popleft().close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    # --- accepting ------------------------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as failed:
                if failed.errno in _NO_FILES:
                    self._out_of_files(listening, failed)
                    return
                self._note("accept.failed", str(failed))  # the connection's own failure, see accept(2)
                continue
            sock.setblocking(False)
            try:
                if self._admission.full:
                    self._make_room()
                origin = self._admission.accept(*peer[:2])
            except Refused as refused:
                self._refuse(sock, refused)
            else:
                task = self._loop.create_task(self._open(sock, origin))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, origin: Origin) -> None:
        """Makes an accepted connection one of the event loop, after what a proxy says of its client."""
        try:
            if origin.proxied:
                await self._read_proxy_header(sock, origin)
            seconds = REQUEST_SECONDS if self._tls is not None else None
            await self._loop.connect_accepted_socket(
                lambda: self._make(origin), sock, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except Refused as refused:
            origin.release()
            self._refuse(sock, refused)
        except (OSError, TimeoutError, BadProxyHeader) as failed:  # of TLS, too
            origin.release()
            sock.close()
            # Event loops abort a TLS handshake that takes too long.
            if isinstance(failed, TimeoutError | ConnectionAbortedError):
                self._counters.count_refused("timeout")
            elif not isinstance(failed, ConnectionResetError):
                self._counters.count_refused("malformed")
        except asyncio.CancelledError:
            origin.release()
            sock.close()
            raise

    async def _read_proxy_header(self, sock: socket.socket, origin: Origin) -> None:
        """Takes the client from a header of the PROXY protocol, and leaves all else of the connection unread.

        Raises `Refused`, `BadProxyHeader`, TimeoutError.
        """
        async with asyncio.timeout(REQUEST_SECONDS):
            while True:
                await self._readable(sock)
                try:
                    data = sock.recv(V2_BYTES, socket.MSG_PEEK)
                except BlockingIOError:
                    continue
                header = parse_proxy_header(data)
                if header is not None:
                    break
                if not data:
                    raise ConnectionResetError("the proxy only checked that the port is open")
                await asyncio.sleep(_PARTIAL_SECONDS)  # the socket stays readable until it is read
        sock.recv(header.size)
        if header.client is not None:
            origin.name_client(*header.client)

    async def _readable(self, sock: socket.socket) -> None:
        readable = self._loop.create_future()
        self._loop.add_reader(sock, _set, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(sock)

    # --- refusing -------------------------------------------------------------------------------------------

    def _refuse(self, sock: socket.socket, refused: Refused) -> None:
        self._counters.count_refused(refused.reason)
        self._note(FILES_EXHAUSTED if refused.reason == "files" else "connections.refused", refused.text)
        self._turn_away(sock, refused)

    def _turn_away(self, sock: socket.socket, refused: Refused) -> None:
        """Closes a connection, and says why in one packet unless the client expects TLS."""
        if self._tls is not None:
            sock.close()
            return
        response = refusal(refused)
        with contextlib.suppress(OSError):  # the client may have gone
            sock.send(response.head() + response.body)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(V2_BYTES)
        # A socket that is closed with unread bytes is reset, and the client might lose the answer.
        self._lingering.append(sock)
        if len(self._lingering) > LINGERING:
            self._close_oldest()
        else:
            self._loop.call_later(LINGER_SECONDS, self._close_oldest)

    def _close_oldest(self) -> None:
        if self._lingering:
            self._lingering.popleft().close()

    def _out_of_files(self, listening: socket.socket, failed: OSError) -> None:
        """Refuses the connection that waits longest, and accepts no other for a moment."""
        reason = (failed.strerror or "no file descriptor is left").lower()
        self._counters.count_refused("files")
        self._note(FILES_EXHAUSTED, reason)
        while self._lingering:
            self._close_oldest()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):  # another part of the process may have taken it
            sock, _ = listening.accept()
            sock.setblocking(False)
            self._turn_away(sock, Refused("files", reason, temporary=True))
            self._close_oldest()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)
        self._loop.remove_reader(listening)
        self._loop.call_later(WITHOUT_FILES_SECONDS, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _note(self, event: str, reason: str) -> None:
        """Logs what happens to many connections, at most once for each reason in `LOG_EVERY` seconds."""
        now, key = self._loop.time(), reason if event != FILES_EXHAUSTED else event
        if now - self._logged.get(key, -math.inf) < LOG_EVERY:
            return
        if len(self._logged) >= LOGGED_REASONS:
            self._logged.clear()
        self._logged[key] = now
        self._log.warning(event, reason=reason, connections=self._admission.open)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
