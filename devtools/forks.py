"""Starts Python programs as forks of a process that has imported Plenary already.

Starting `python -m plenary` takes more than a second of a core, nearly all of it for imports, and a suite starts
hundreds of such processes. A fork has the same code, arguments, environment and output, and a process id of its own.
Measurements of memory or of the start itself start programs as usual.

`Forker.start` asks the server (`python -m devtools.forks PATH`) over a Unix socket, one connection for each process:
a line of JSON to the server, then lines with the process id and, when it has ended, its exit code. A process whose
connection is closed, because the program that started it was killed, is killed as well.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from devtools.starting import START_WITHIN

PRELOADED = ("plenary.cli",)


class ForkedProcess:
    """A process that the server has started. Used like `subprocess.Popen`, also by several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self.returncode: int | None = None
        self._connection = connection
        self._lock = threading.Lock()
        self.pid = int(_line(connection))

    def poll(self) -> int | None:
        """Returns the exit code, the negative number of a signal, or None while the process runs."""
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self.returncode = int(_line(self._connection) or -signal.SIGKILL)
                self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _line(connection: socket.socket) -> bytes:
    """Reads one line and nothing beyond it, since `select` does not see what is in a buffer."""
    line = b""
    while (byte := connection.recv(1)) not in (b"", b"\n"):
        line += byte
    return line


class Forker:
    """Starts processes through the server, which is started when it is needed first."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="plenary-forks-"))
        self._path = self._folder / "socket"
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(
        self, program: str, arguments: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]
    ) -> ForkedProcess:
        """Runs the module `program` with these arguments; its output is added to `log`."""
        with self._lock:
            if self._server is None:
                self._server = self._start_server(cwd)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._path))
        wanted = {"argv": [program, *arguments], "cwd": str(cwd), "log": str(log), "env": dict(env)}
        connection.sendall(json.dumps(wanted).encode() + b"\n")
        return ForkedProcess(connection)

    def _start_server(self, cwd: Path) -> subprocess.Popen[bytes]:
        server = subprocess.Popen(
            [sys.executable, "-m", "devtools.forks", str(self._path)], cwd=cwd, stdin=subprocess.PIPE
        )
        deadline = time.monotonic() + START_WITHIN
        while not self._path.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"devtools.forks did not start: {server.poll()}")
            time.sleep(0.01)
        return server

    def close(self) -> None:
        """Ends the server. Processes that still run are left alone."""
        if self._server is not None:
            self._server.communicate()
        for file in (self._path, self._folder):
            if file.exists():
                file.unlink() if file is self._path else file.rmdir()


# --- the server -----------------------------------------------------------------------------------------------------


def main(path: str) -> None:
    """Runs the server until stdin ends."""
    for module in PRELOADED:
        __import__(module)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    os.rename(f"{path}.new", path)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            run_in_fork(connection)
            return
        connection.close()
        reap()
    reap()


def reap() -> None:
    """Waits for the watching processes that have ended, so that none stays as a zombie."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run_in_fork(connection: socket.socket) -> None:
    """Runs one program in a fork, and sends its process id and its exit code."""
    wanted = json.loads(connection.makefile("r").readline())
    pid = os.fork()
    if pid:
        watch(pid, connection)
    connection.close()
    with open(os.devnull) as nothing, open(wanted["log"], "ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    run(wanted)


def watch(pid: int, connection: socket.socket) -> NoReturn:
    """Waits for the program and sends its exit code; kills the program if the connection is closed before."""
    connection.sendall(b"%d\n" % pid)
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, connection.fileno()], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):  # the other end may be closed
        connection.sendall(b"%d\n" % code)
    os._exit(0)


def run(wanted: dict[str, Any]) -> None:
    """Runs a module in this process as `python -m` does. Raises SystemExit with its exit code."""
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.chdir(wanted["cwd"])
    sys.path[0] = wanted["cwd"]
    sys.argv = wanted["argv"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
