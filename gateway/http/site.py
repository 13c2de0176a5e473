"""Serves plain HTTP on the public port: the page's files and the health checks."""

import asyncio
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

from gateway.http.request import Request, tokens
from gateway.http.response import Response, respond
from shared.telemetry import log

CHECK_EVERY: Final = 1.0
"""Seconds between two checks for a new build of the page."""

_HERE: Final = Path(__file__).parents[1]
PAGES: Final = (_HERE.parent / "web" / "dist", _HERE / "page")
"""The folders of the built page: in a checkout, and in the wheel (`hatch_build.py`)."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_PACKED: Final = frozenset({".css", ".html", ".js", ".json", ".mjs", ".svg", ".txt"})
_UNSERVED: Final = frozenset({".map"})
"""Source maps: they are larger than all that a browser needs of the page, and only for those who change it."""

PAGE_POLICY: Final = (
    "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of the built page, which has no inline script or style."""
_PERMISSIONS: Final = (
    "camera=(self), microphone=(self), display-capture=(self), geolocation=(), payment=(), usb=(), serial=()"
)


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page; `packed` is its gzip form, for types that shrink.

    The two forms have different tags, since a strong tag names bytes (RFC 9110 §8.8.3).
    """

    body: bytes
    packed: bytes | None
    type: str
    etag: str
    packed_etag: str


State: TypeAlias = tuple[tuple[str, int, int], ...]


def _fingerprint(folder: Path) -> State:
    """Returns paths, times and sizes of the files under `folder`, which differ whenever one of them was changed."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found)


def _read_if_changed(folder: Path, known: State) -> tuple[State, dict[str, File]] | None:
    now = _fingerprint(folder)
    return (now, _read(folder)) if now != known else None


def _read(folder: Path) -> dict[str, File]:
    """Returns the files under `folder` by their path in a URL.

    A request's path is only looked up, so that none leads out of the folder.
    """
    files: dict[str, File] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and path.suffix not in _UNSERVED:
            file = _file(path)
            name = "/" + path.relative_to(folder).as_posix()
            files[name] = file
            if path.name == "index.html":
                files[name.removesuffix("index.html")] = file
    return files


def _file(path: Path) -> File:
    body = path.read_bytes()
    packed = gzip.compress(body, 6, mtime=0) if path.suffix in _PACKED else None
    kind = _TYPES.get(path.suffix, "application/octet-stream")
    digest = sha256(body).hexdigest()[:32]
    return File(body, packed, kind, f'"{digest}"', f'"{digest}-gzip"')


def page_folder(setting: str) -> Path | None:
    """Returns the folder that the setting `page` means; None means no page."""
    if setting == "none":
        return None
    if setting:
        return Path(setting)
    return next((folder for folder in PAGES if folder.is_dir()), PAGES[0])


class Site:
    """Answers requests that are no WebSocket; the page's files come from memory.

    Files are read, compressed and watched for changes in a thread, never on the event loop: `load` is to be awaited
    before the first request, and `watch` is to be a task. `trouble` says why the gateway is not ready, if it is not.
    `policy` is the Content-Security-Policy of the page's files.
    """

    def __init__(self, page: Path | None, trouble: Callable[[], str], policy: str = PAGE_POLICY) -> None:
        self._page = page
        self._policy = policy
        self._state: State = ()
        self._files: dict[str, File] = {}
        self._trouble = trouble
        self._log = log.get("http")

    async def load(self) -> None:
        """Reads the page if it has changed, as after a new build."""
        if self._page is None:
            return
        changed = await asyncio.to_thread(_read_if_changed, self._page, self._state)
        if changed is not None:
            self._state, self._files = changed
            if "/" not in self._files:
                self._log.warning("page.missing", folder=str(self._page), reason="no index.html there")

    async def watch(self) -> None:
        """Reads the page again within `CHECK_EVERY` seconds of a change, until it is cancelled."""
        while self._page is not None:
            await asyncio.sleep(CHECK_EVERY)
            try:
                await self.load()
            except OSError as failed:  # a build removes files while they are read: the next check sees the rest
                self._log.warning("page.unreadable", folder=str(self._page), error=str(failed))

    def answer(self, path: str, request: Request) -> Response:
        """Returns the response to a GET or HEAD of `path`, which is decoded and has no query."""
        if path == "/healthz":
            return respond(HTTPStatus.OK, b"alive\n")
        if path == "/readyz":
            if trouble := self._trouble():
                return respond(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {trouble}\n".encode())
            return respond(HTTPStatus.OK, b"ready\n")
        if path == "/ws":
            return respond(HTTPStatus.UPGRADE_REQUIRED, b"this is a WebSocket\n", {"Upgrade": "websocket"})
        file = self._files.get(path)
        if file is None:
            return respond(HTTPStatus.NOT_FOUND, b"no such page\n")
        return self._send(file, request)

    def _send(self, file: File, request: Request) -> Response:
        packed = file.packed if _takes_gzip(request.headers.get("Accept-Encoding", "")) else None
        headers = {
            "Content-Type": file.type,
            # The browser keeps the file and asks each time whether it has changed.
            "Cache-Control": "no-cache",
            "ETag": file.etag if packed is None else file.packed_etag,
            "Vary": "Accept-Encoding",
            "Content-Security-Policy": self._policy,
            "Permissions-Policy": _PERMISSIONS,
        }
        if _names(request.headers.get("If-None-Match", ""), file):
            return respond(HTTPStatus.NOT_MODIFIED, headers=headers)
        if packed is None:
            return respond(HTTPStatus.OK, file.body, headers)
        return respond(HTTPStatus.OK, packed, headers | {"Content-Encoding": "gzip"})


def _names(tags: str, file: File) -> bool:
    """Returns whether a list of tags names a form of the file; the comparison is the weak one (RFC 9110 §13.1.2)."""
    named = {tag.removeprefix("W/") for tag in tokens(tags)}
    return bool(named & {"*", file.etag, file.packed_etag})


def _takes_gzip(accepted: str) -> bool:
    """Returns whether an Accept-Encoding allows gzip (RFC 9110 §12.5.3)."""
    allowed: dict[str, bool] = {}
    for each in tokens(accepted):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        allowed[name] = not any(re.fullmatch(r"q=0(\.0{0,3})?", parameter) for parameter in parameters)
    return allowed.get("gzip", allowed.get("*", False))
