"""Finds or builds the media engine's binary, in this order:

1. the path in the settings (`PLENARY_ENGINE_PATH`) or in `PLENARY_MEDIASOUP_WORKER`;
2. a binary built earlier, kept outside the checkout in `$PLENARY_CACHE`, else `$XDG_CACHE_HOME/plenary`, else
   `~/.cache/plenary`, in a folder named by the engine's version and this machine's architecture, unless it was built
   with other patches than today's;
3. the prebuilt binary that the npm package downloads, where its server can be reached at once, unless
   `PLENARY_ENGINE_FROM_SOURCE` is set: only a build has the patches of `medianode.toolchain.patches`;
4. a build from the npm package's source (`medianode.toolchain.build`).

The schemas of its channel lie in a folder beside it, see `engine_folder.schema_folder`.
`python -m medianode.toolchain.install` does it and prints the binary's path.
"""

# ruff: noqa: S603, S607 - every command here is fixed, and found by PATH.

import fcntl
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain.build import build
from medianode.toolchain.engine_folder import BINARY, assemble, check_engine, patches_of
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.patches import PATCHES
from medianode.toolchain.progress import Report

PREBUILT_HOST = "github.com"
_REACH_TIMEOUT = 3.0
_PREBUILT_TIMEOUT = 60.0


def ensure_engine(path: str = "", report: Report | None = None) -> Path:
    """Returns the engine's binary. Builds it if it is missing, which takes minutes and shows progress on stderr.

    `path` is the configured one, or "". The call blocks; of several processes at once one builds and the others wait.
    Raises `EngineUnavailable`.
    """
    report = report or Report()
    found = find_engine(path)
    if found:
        return found
    cached = cached_binary()
    cache = cached.parent.parent
    with _locked(cache, report):
        if _is_current(cached):
            return cached
        for leftover in cache.glob("build-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=cache, ignore_cleanup_errors=True) as folder:
            binary = prebuilt(Path(folder), report) or build(Path(folder), report)
            try:
                check_engine(binary)
            except EngineUnavailable as unavailable:
                raise EngineUnavailable(f"the media engine was made but is unusable: {unavailable.reason}") from None
            _replace(cached.parent, binary.parent, Path(folder))
    report.say(f"Media engine ready: {cached}")
    return cached


def _replace(target: Path, made: Path, work: Path) -> None:
    """Lets the folder `made` appear in the cache as a whole. One that is there is moved away."""
    if target.exists():
        target.rename(work / "replaced")
    made.rename(target)


def find_engine(path: str = "") -> Path | None:
    """Returns the engine's binary, or None if it would have to be built.

    Raises `EngineUnavailable` if the configured binary does not start, or is of another version.
    """
    configured = path or os.environ.get("PLENARY_MEDIASOUP_WORKER", "")
    if configured:
        try:
            check_engine(Path(configured))
        except EngineUnavailable as unavailable:
            raise EngineUnavailable(
                f"the configured media engine {configured} is not a usable mediasoup-worker {VERSION}: "
                + unavailable.reason
            ) from None
        return Path(configured)
    cached = cached_binary()
    return cached if _is_current(cached) else None


def _is_current(cached: Path) -> bool:
    """Whether the engine in the cache is usable, and is what would be made today."""
    made_with = patches_of(cached)
    is_prebuilt = not made_with and not os.environ.get("PLENARY_ENGINE_FROM_SOURCE")
    return (is_prebuilt or made_with == [patch.label for patch in PATCHES]) and is_usable(cached)


def cached_binary() -> Path:
    cache = os.environ.get("PLENARY_CACHE")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(cache) if cache else user_cache / "plenary"
    return folder / f"{BINARY}-{VERSION}-{platform.system().lower()}-{platform.machine()}" / BINARY


def is_usable(binary: Path) -> bool:
    """Whether the file is an engine of `VERSION` that starts on this machine."""
    try:
        check_engine(binary)
    except EngineUnavailable:
        return False
    return True


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "engine.lock").open("w")
    except OSError as error:
        raise EngineUnavailable(f"no place to keep the media engine: {error}; set PLENARY_CACHE") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.say("Media engine: another process is making it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prebuilt(folder: Path, report: Report) -> Path | None:
    """Returns the binary that npm's postinstall script downloads, in an engine's folder, or None.

    It is not asked for if `PLENARY_ENGINE_FROM_SOURCE` is set.
    Without internet the script retries for minutes, and it falls back to a build that downloads all libraries.
    Therefore it runs only if its server answers at once, and within a time limit.
    """
    if os.environ.get("PLENARY_ENGINE_FROM_SOURCE") or shutil.which("npm") is None or not _reachable():
        return None
    home = folder / "prebuilt"
    home.mkdir()
    with report.step("Media engine: prebuilt binary"):
        # The script has a session of its own, so that the time limit ends its children, too.
        npm = subprocess.Popen(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), f"mediasoup@{VERSION}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            npm.wait(_PREBUILT_TIMEOUT)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(npm.pid, signal.SIGKILL)
            npm.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    package = home / "node_modules" / "mediasoup"
    downloaded = package / "worker" / "out" / "Release" / BINARY
    if not is_usable(downloaded):
        return None
    report.say(
        "Media engine: the prebuilt binary lacks Plenary's patches: packets of a client can end it, and a replaced "
        "track is seen 5 s late. PLENARY_ENGINE_FROM_SOURCE=1 builds one that has them"
    )
    return assemble(package, downloaded, folder / "engine")


def _reachable() -> bool:
    try:
        socket.create_connection((PREBUILT_HOST, 443), timeout=_REACH_TIMEOUT).close()
    except OSError:
        return False
    return True


def main() -> None:
    try:
        sys.stdout.write(f"{ensure_engine()}\n")
    except EngineUnavailable as unavailable:
        sys.exit(f"No media engine: {unavailable.reason}")


if __name__ == "__main__":
    main()
