"""Plain HTTP on the public port: the page's files and the health checks."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

from multidict import CIMultiDict
from picows import WSUpgradeRequest, WSUpgradeResponse

from shared.telemetry import log

_HERE: Final = Path(__file__).parents[1]
PAGES: Final = (_HERE.parent / "web" / "dist", _HERE / "page")
"""Where the built page is in a checkout, and where the wheel has it (`hatch_build.py`)."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_PACKED: Final = frozenset({".css", ".html", ".js", ".json", ".map", ".mjs", ".svg", ".txt"})
_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    packed: bytes | None
    type: str
    etag: str


State: TypeAlias = tuple[tuple[str, int, int], ...]


def state(folder: Path) -> State:
    """What changes whenever a file under `folder` does."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found)


def load(folder: Path) -> dict[str, File]:
    """The files under `folder` by their path in a URL; a path is looked up, so none leads out of the folder."""
    files: dict[str, File] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
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
    return File(body, packed, kind, f'"{sha256(body).hexdigest()[:32]}"')


def page_folder(setting: str) -> Path | None:
    """What `GatewaySettings.page` means."""
    if setting == "none":
        return None
    if setting:
        return Path(setting)
    return next((folder for folder in PAGES if folder.is_dir()), PAGES[0])


class Site:
    """Answers requests that are no WebSocket. `trouble` says in words why the gateway is not ready, or nothing."""

    def __init__(self, page: Path | None, trouble: Callable[[], str]) -> None:
        self._page = page
        self._state: State = ()
        self._files: dict[str, File] = {}
        self._trouble = trouble
        self._read()
        if page and "/" not in self._files:
            log.get("http").warning("no page to serve: no index.html there", folder=str(page))

    def _read(self) -> None:
        """Reads the page if it has changed, as after a new build."""
        if self._page is not None and (now := state(self._page)) != self._state:
            self._state = now
            self._files = load(self._page)

    def answer(self, path: str, request: WSUpgradeRequest) -> WSUpgradeResponse:
        if path == "/healthz":
            return respond(HTTPStatus.OK, b"alive\n")
        if path == "/readyz":
            if trouble := self._trouble():
                return respond(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {trouble}\n".encode())
            return respond(HTTPStatus.OK, b"ready\n")
        if path == "/ws":
            return respond(HTTPStatus.UPGRADE_REQUIRED, b"this is a WebSocket\n", {"Upgrade": "websocket"})
        if path in ("/", "/index.html"):  # the page's other files are asked for after it
            self._read()
        file = self._files.get(path)
        if file is None:
            return respond(HTTPStatus.NOT_FOUND, b"no such page\n")
        return self._send(file, request)

    def _send(self, file: File, request: WSUpgradeRequest) -> WSUpgradeResponse:
        headers = {
            "Content-Type": file.type,
            # Kept by the browser, but asked about each time: a new build shows at once.
            "Cache-Control": "no-cache",
            "ETag": file.etag,
            "Vary": "Accept-Encoding",
        }
        if file.etag in request.headers.get("If-None-Match", ""):
            return respond(HTTPStatus.NOT_MODIFIED, None, headers)
        body = file.body
        if file.packed is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = file.packed
            headers["Content-Encoding"] = "gzip"
        return respond(HTTPStatus.OK, body, headers)


def respond(status: HTTPStatus, body: bytes | None, headers: dict[str, str] | None = None) -> WSUpgradeResponse:
    response = WSUpgradeResponse()
    response.version = b"HTTP/1.1"
    response.status = status
    response.headers = CIMultiDict({"Content-Type": _TEXT, "X-Content-Type-Options": "nosniff"} | (headers or {}))
    response.body = body
    if not body:
        response.headers["Content-Length"] = "0"
    return response
