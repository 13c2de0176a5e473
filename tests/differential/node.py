"""The published library in a Node process: installed on first use, then fed sequence after sequence."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from threading import Timer
from typing import Any

HERE = Path(__file__).parent / "oracle"
INSTALL_WITHIN = 300.0
ANSWER_WITHIN = 60.0

Json = dict[str, Any]


class Unavailable(Exception):
    """There is no oracle on this machine; the text says why."""


def install() -> None:
    """Fetches the package into `node_modules` here, unless it is there. Raises `Unavailable`."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("Node.js with npm is not installed")
    with (HERE / ".gitignore").open() as lock:  # several test processes may start at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed():
            return
        command = ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_WITHIN)
        except subprocess.TimeoutExpired:
            raise Unavailable("the package registry does not answer") from None
        if done.returncode:
            raise Unavailable(f"npm could not fetch the package: {done.stderr.strip()[-500:]}")


def _installed() -> bool:
    """npm writes its own copy of the lock file last."""
    wanted, found = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not found.exists():
        return False
    versions = [_versions(json.loads(path.read_text())) for path in (wanted, found)]
    return versions[1].items() <= versions[0].items() and "node_modules/mediasoup" in versions[1]


def _versions(lock: Json) -> dict[str, str]:
    return {name: package["version"] for name, package in lock["packages"].items() if name}


class Oracle:
    """One Node process. A context manager."""

    def __init__(self) -> None:
        install()
        self._process = subprocess.Popen(
            ["node", str(HERE / "main.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Oracle":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(ANSWER_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def perform(self, rtp_capabilities: Json, operations: list[Json]) -> list[Json]:
        """{frames, engine, uncaught} for each operation; frames by peer, in order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = Timer(ANSWER_WITHIN, self._process.kill)
        deadline.start()
        try:
            line = json.dumps({"rtpCapabilities": rtp_capabilities, "operations": operations})
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            deadline.cancel()
        if not answer:
            raise RuntimeError("the oracle's process has ended; its standard error says why")
        results: list[Json] = json.loads(answer)
        return results
