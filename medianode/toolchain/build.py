"""Builds the engine from its npm package against Debian's libraries.

Each function is one step; each raises `EngineUnavailable` with a reason that an operator can act on.

`python -m medianode.toolchain.build FOLDER [--sanitize]` builds one into an empty folder, for developers: with
`--sanitize` the engine has an address sanitizer, and ends with a report at the first invalid access to memory.
"""

# ruff: noqa: S603, S607 - every command here is fixed, and found by PATH.

import argparse
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

import medianode
from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain.engine_folder import assemble, schema_folder
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.meson_subprojects import replace_subprojects
from medianode.toolchain.patches import PATCHES
from medianode.toolchain.progress import Report, Step

# Digest of the npm tarball that was reviewed.
SHA512 = (
    "ba78c6d228491599825f1b52e5acba88fa7ea2fd5183f06126e3f58067f0e049"
    "57fcae59d22b773c20bbaca79c58c2b61606d0e7690a98381904f9bf7b060ee8"
)
LIBRARIES = (
    "libuv1-dev",
    "libsrtp2-dev",
    "libabsl-dev",
    "libssl-dev",
    "flatbuffers-compiler",
    "libflatbuffers-dev",
    "pkg-config",
    "g++",
)
BUILD_TOOLS = ("meson>=1.1,<2", "ninja>=1.10,<2")
# For the client that connects to the built engine.
CLIENT_LIBRARIES = ("aioice>=0.13,<0.14", "pyopenssl>=26,<27")
# deps/libwebrtc includes the headers that are made from the schemas, but its target does not depend on them.
GENERATED_HEADERS = "fbs/FBS/message.h"
_KEPT_LINES = 25
_NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\]")


def build(folder: Path, report: Report, *, sanitize: bool = False) -> Path:
    """Builds the engine in `folder`, which is empty and has about 500 MB free.

    Returns the binary in the engine's folder (see `engine_folder`). A client has connected to it.
    """
    install_packages(report)
    with report.step("Media engine: build tools"):
        tools = install_tools(folder / "tools")
    with report.step(f"Media engine: source of mediasoup {VERSION}"):
        package = unpack(fetch(folder), folder)
    worker = package / "worker"
    for patch in PATCHES:
        patch.apply(worker)
    replace_subprojects(worker / "subprojects")
    with report.step("Media engine: configure"):
        configure(worker, tools, sanitize=sanitize)
    with report.step("Media engine: compile") as step:
        compiled = compile_worker(worker, tools, step, sanitize=sanitize)
    binary = assemble(package, compiled, folder / "engine", patches=[patch.label for patch in PATCHES])
    with report.step("Media engine: connect a client"):
        connect_client(binary, tools)
    return binary


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
    """Makes a virtualenv with meson (Debian 12's is too old), ninja and what `connect_client` needs.

    Returns its folder of programs.
    """
    run([sys.executable, "-m", "venv", str(venv)], "no virtualenv could be made for the build tools")
    programs = venv / "bin"
    run(
        [str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check", *BUILD_TOOLS, *CLIENT_LIBRARIES],
        "pip could not install the build tools",
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
    return folder / "package"


def configure(worker: Path, tools: Path, *, sanitize: bool) -> None:
    run(
        [
            str(tools / "meson"),
            "setup",
            "out",
            *("--buildtype", "release"),
            "-Db_ndebug=true",
            "--wrap-mode=nodownload",
            *(("-Db_sanitize=address",) if sanitize else ()),
        ],
        "meson could not configure the engine",
        cwd=worker,
        env=_with_tools(tools),
    )


def compile_worker(worker: Path, tools: Path, step: Step, *, sanitize: bool) -> Path:
    """Compiles the engine at low priority, 5 to 10 minutes on two cores."""

    def show(line: str) -> None:
        if match := _NINJA_STEP.match(line):
            step.advance(int(match[1]), int(match[2]))

    ninja = ["nice", "-n", "10", str(tools / "ninja"), "-C", "out"]
    env = _with_tools(tools)
    run([*ninja, GENERATED_HEADERS], "the engine's schemas could not be compiled", cwd=worker, env=env)
    run([*ninja, "mediasoup-worker"], "the engine did not compile", cwd=worker, env=env, on_line=show)
    binary = worker / "out" / "mediasoup-worker"
    if not sanitize:  # whose reports need the names of functions
        run(["strip", str(binary)], "the engine's binary could not be stripped")
    return binary


def connect_client(binary: Path, tools: Path) -> None:
    """Connects a client to the engine, by the interpreter that has the libraries for it."""
    sources = Path(medianode.__file__).parent.parent
    run(
        [str(tools / "python"), "-m", "medianode.toolchain.handshake", str(binary), str(schema_folder(binary))],
        "the engine was built, but no client could connect to it",
        env={**os.environ, "PYTHONPATH": str(sources)},
    )


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="medianode.toolchain.build", description="Builds the media engine.")
    parser.add_argument("folder", type=Path, help="an empty folder, or one to be made")
    parser.add_argument("--sanitize", action="store_true", help="with an address sanitizer")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        sys.stdout.write(f"{build(arguments.folder.resolve(), Report(), sanitize=arguments.sanitize)}\n")
    except EngineUnavailable as unavailable:
        sys.exit(f"No media engine: {unavailable.reason}")


if __name__ == "__main__":
    main()
