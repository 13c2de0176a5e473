"""Builds the engine from its npm package against Debian's libraries.

Each function is one step; each raises `EngineUnavailable` with a reason that an operator can act on.
"""

# ruff: noqa: S603, S607 - every command here is fixed, and found by PATH.

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from medianode.toolchain.meson_subprojects import SYSTEM_SUBPROJECTS
from medianode.toolchain.progress import Report, Step

VERSION = "3.12.16"
# Digest of the npm tarball that was reviewed.
SHA512 = (
    "c8b93f3819472aba2c7c505629518ba40439e6db2c43ff7e12d78eaedfc2e718"
    "12f0e1cea464c822b3f4fce1637c203f961c40af5c55f2a5135ccdc3ecd1b124"
)
LIBRARIES = (
    "libuv1-dev",
    "libsrtp2-dev",
    "libabsl-dev",
    "libusrsctp-dev",
    "libssl-dev",
    "nlohmann-json3-dev",
    "pkg-config",
    "g++",
)
BUILD_TOOLS = ("meson>=1.1,<2", "ninja>=1.10,<2")
_KEPT_LINES = 25
_NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\]")


class EngineUnavailable(Exception):
    """There is no engine binary and none can be built; `reason` says why and what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def build(folder: Path, report: Report) -> Path:
    """Builds the engine in `folder`, which is empty and has about 500 MB free, and returns its binary."""
    install_packages(report)
    with report.step("Media engine: build tools"):
        tools = install_tools(folder / "tools")
    with report.step(f"Media engine: source of mediasoup {VERSION}"):
        worker = unpack(fetch(folder), folder)
    for subproject in SYSTEM_SUBPROJECTS:
        subproject.write(worker / "subprojects")
    with report.step("Media engine: configure"):
        configure(worker, tools)
    with report.step("Media engine: compile") as step:
        return compile_worker(worker, tools, step)


def install_packages(report: Report) -> None:
    """Installs the Debian packages needed for building that are missing, as root or by `sudo -n`."""
    wanted = list(LIBRARIES)
    if shutil.which("npm") is None:
        wanted.append("npm")
    if importlib.util.find_spec("ensurepip") is None:
        wanted.append("python3-venv")
    if shutil.which("dpkg-query") is None:
        raise EngineUnavailable(
            "the media engine can be built here only on Debian and its relatives; "
            "elsewhere set PLENARY_MEDIASOUP_WORKER to a mediasoup-worker binary of version " + VERSION
        )
    missing = [package for package in wanted if not _is_installed(package)]
    if not missing:
        return
    by_hand = f"packages are missing to build the media engine; run: sudo apt-get install {' '.join(missing)}"
    prefix = _root_prefix()
    if prefix is None:
        raise EngineUnavailable(by_hand)
    with report.step("Media engine: Debian packages " + " ".join(missing)):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run([*prefix, "apt-get", "-q", "update"], by_hand, env=env)
        run([*prefix, "apt-get", "-qy", "install", "--no-install-recommends", *missing], by_hand, env=env)


def _is_installed(package: str) -> bool:
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True, check=False
    )
    return query.stdout == "installed"


def _root_prefix() -> list[str] | None:
    """Returns what to put before a command to run it as root without a password, or None if that is impossible."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install_tools(venv: Path) -> Path:
    """Makes a virtualenv with meson (Debian 12's is too old) and ninja; returns its folder of programs."""
    run([sys.executable, "-m", "venv", str(venv)], "no virtualenv could be made for the build tools")
    programs = venv / "bin"
    run(
        [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check", *BUILD_TOOLS],
        "pip could not install meson and ninja",
    )
    return programs


def fetch(folder: Path) -> Path:
    """Downloads and unpacks the engine's npm package, checked against the known digest."""
    run(["npm", "pack", "--silent", f"mediasoup@{VERSION}"], "npm could not fetch the engine's source", cwd=folder)
    tarball = folder / f"mediasoup-{VERSION}.tgz"
    if hashlib.sha512(tarball.read_bytes()).hexdigest() != SHA512:
        raise EngineUnavailable(f"npm's mediasoup {VERSION} is not the package that this release was made for")
    return tarball


def unpack(tarball: Path, folder: Path) -> Path:
    with tarfile.open(tarball) as archive:
        # Debian 12's Python 3.11.2 has no extraction filters; the digest proves that the content was reviewed.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        archive.extractall(folder)  # noqa: S202
    return folder / "package" / "worker"


def configure(worker: Path, tools: Path) -> None:
    run(
        [
            str(tools / "meson"),
            "setup",
            "out",
            *("--buildtype", "release"),
            "-Db_ndebug=true",
            "--wrap-mode=nodownload",
        ],
        "meson could not configure the engine",
        cwd=worker,
        env=_with_tools(tools),
    )


def compile_worker(worker: Path, tools: Path, step: Step) -> Path:
    """Compiles the engine at low priority, about five minutes on two cores."""

    def show(line: str) -> None:
        if match := _NINJA_STEP.match(line):
            step.advance(int(match[1]), int(match[2]))

    run(
        ["nice", "-n", "10", str(tools / "ninja"), "-C", "out", "mediasoup-worker"],
        "the engine did not compile",
        cwd=worker,
        env=_with_tools(tools),
        on_line=show,
    )
    binary = worker / "out" / "mediasoup-worker"
    run(["strip", str(binary)], "the engine's binary could not be stripped")
    return binary


def _with_tools(tools: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def run(
    command: Sequence[str],
    failure_text: str,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Runs a command. Raises `EngineUnavailable` with `failure_text` and the end of its output if it fails."""
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise EngineUnavailable(f"{failure_text}: {error}") from error
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line)
            if on_line:
                on_line(line)
    if process.returncode:
        raise EngineUnavailable(f"{failure_text} ({command[0]} exited with {process.returncode}):\n{''.join(last)}")
