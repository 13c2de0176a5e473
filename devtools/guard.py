"""Ends the servers of a program that was killed, and so could not end them itself.

The guard is a process of its own that reads process ids from its standard input. When that closes, because the
program has ended in whatever way, the guard kills those of them that still run.
"""

import subprocess
import sys
import threading
from contextlib import suppress

import psutil


class Guard:
    """Starts the guard with the first process that it is to watch."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, pid: int) -> None:
        """Has a process killed if it outlives this program."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "devtools.guard"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C must reach the program alone
                )
            assert self._process.stdin is not None
            self._process.stdin.write(b"%d\n" % pid)
            self._process.stdin.flush()


GUARD = Guard()


def main() -> None:
    watched = []
    for line in sys.stdin:
        with suppress(psutil.NoSuchProcess):
            watched.append(psutil.Process(int(line)))
    for process in watched:
        with suppress(psutil.NoSuchProcess):
            process.kill()  # psutil refuses if another process has the id now


if __name__ == "__main__":
    main()
