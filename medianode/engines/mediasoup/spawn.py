"""Starts an engine's process with the file descriptors that it expects. Only the standard library is imported."""

import fcntl
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from medianode.engines.mediasoup.version import VERSION

# The engine reads its channel from fd 3 and writes it to fd 4.
_FIRST_CHANNEL_FD = 3
_FIRST_FREE_FD = 10
_STDERR = 2
# The second is for engines that are built with an address sanitizer.
_INHERITED = ("LD_LIBRARY_PATH", "ASAN_OPTIONS")


def spawn(binary: Path, arguments: Sequence[str], ends: Sequence[socket.socket], output: int = _STDERR) -> int:
    """Starts the engine with `ends` as its fds 3 and 4, and `output` as its stdout and stderr. Returns its pid.

    The engine has a process group of its own, so that a terminal's Ctrl-C reaches the node alone, which then ends the
    engine. Raises `OSError`.
    """
    # The ends are duplicated above the targets first; otherwise placing one could overwrite another.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD) for end in ends]
    try:
        return os.posix_spawn(
            binary,
            [str(binary), *arguments],
            {"MEDIASOUP_VERSION": VERSION, **{k: v for k, v in os.environ.items() if k in _INHERITED}},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, _STDERR),
                *((os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(high, _FIRST_CHANNEL_FD)),
            ],
            setpgroup=0,
            setsigmask=[],
        )
    finally:
        for fd in high:
            os.close(fd)
