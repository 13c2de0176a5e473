"""A generator process: `python -m loadtest.generator`, started by the coordinator.

The process reads lines of JSON from stdin: the plan, then `stop` for an orderly end and a second `stop` for an
immediate one. The end of stdin ends the process at once. The process writes a `SecondReport` to stdout each second,
the last with `done`.
"""

import asyncio
import contextlib
import gc
import os
import resource
import sys

import msgspec
import uvloop

from loadtest.generator.generator import Generator
from loadtest.generator.plan import Plan, SecondReport


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    plan = msgspec.json.decode(_line(), type=Plan)
    generator = Generator(plan, _write_report)
    work = asyncio.create_task(generator.run())
    stops = 0

    def listen() -> None:
        nonlocal stops
        chunk = os.read(sys.stdin.fileno(), 1024)
        stops += chunk.count(b"stop\n")
        generator.stop()
        if not chunk or stops > 1:
            loop.remove_reader(sys.stdin.fileno())
            work.cancel()

    loop.add_reader(sys.stdin.fileno(), listen)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def _line() -> bytes:
    """Reads the first line of stdin, and nothing beyond it."""
    line = b""
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line


def _write_report(report: SecondReport) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)  # the coordinator has ended


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # this process makes no reference cycles, and a collection would be measured as latency
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
