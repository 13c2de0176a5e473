"""Finds or builds the media engine's binary, in this order:

1. the path in the settings (`PLENARY_ENGINE_PATH`) or in `PLENARY_MEDIASOUP_WORKER`;
2. a binary built earlier, kept outside the checkout in `$PLENARY_CACHE`, else `$XDG_CACHE_HOME/plenary`, else
   `~/.cache/plenary`, under the engine's version and this machine's architecture;
3. the prebuilt binary that the npm package downloads, where its server can be reached at once;
4. a build from the npm package's source (`medianode.toolchain.build`).

`python -m medianode.toolchain.install` does it and prints the path.
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

from medianode.toolchain.build import VERSION, EngineUnavailable, build
from medianode.toolchain.progress import Report

PREBUILT_HOST = "github.com"
_REACH_TIMEOUT = 3.0
_PREBUILT_TIMEOUT = 60.0
_CHECK_TIMEOUT = 10.0
# The engine's exit code when it is started without MEDIASOUP_VERSION: it has found all its libraries then.
_ALIVE_EXIT = 41


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
    with _locked(cached.parent, report):
        if runs(cached):
            return cached
        for leftover in cached.parent.glob("build-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=cached.parent, ignore_cleanup_errors=True) as folder:
            binary = prebuilt(Path(folder), report) or build(Path(folder), report)
            if not runs(binary):
                raise EngineUnavailable(f"the media engine was made but does not start: {binary.name}")
            binary.chmod(0o755)
            binary.rename(cached)
    report.say(f"Media engine ready: {cached}")
    return cached


def find_engine(path: str = "") -> Path | None:
    """Returns the engine's binary, or None if it would have to be built.

    Raises `EngineUnavailable` if the configured binary does not start.
    """
    configured = path or os.environ.get("PLENARY_MEDIASOUP_WORKER", "")
    if configured:
        if not runs(Path(configured)):
            raise EngineUnavailable(f"{configured} is not a mediasoup-worker that starts on this machine")
        return Path(configured)
    cached = cached_binary()
    return cached if runs(cached) else None


def cached_binary() -> Path:
    cache = os.environ.get("PLENARY_CACHE")
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(cache) if cache else user_cache / "plenary"
    return folder / f"mediasoup-worker-{VERSION}-{platform.system().lower()}-{platform.machine()}"


def runs(binary: Path) -> bool:
    """Whether the file is an engine and finds its libraries."""
    try:
        started = subprocess.run(
            [str(binary)], env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return started.returncode == _ALIVE_EXIT


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
    """Returns the binary that npm's postinstall script downloads, or None.

    Without internet the script retries for minutes, and it falls back to a build that downloads all libraries.
    Therefore it runs only if its server answers at once, and within a time limit.
    """
    if shutil.which("npm") is None or not _reachable():
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
    binary = home / "node_modules/mediasoup/worker/out/Release/mediasoup-worker"
    return binary if runs(binary) else None


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
