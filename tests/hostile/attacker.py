"""Runs one attack in a process of its own: python -m tests.hostile.attacker NAME, with the target as JSON on stdin.

The process is niced. It writes `ready` when it is prepared, begins at the next line on stdin, and writes its counts
as JSON at the end.
"""

import asyncio
import logging
import os
import resource
import sys
import threading

import msgspec
import uvloop

from tests.hostile.catalogue import ATTACKS
from tests.hostile.target import Counts, Target

NICENESS = 10


async def attack(name: str, target: Target) -> Counts:
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def read_go() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(begun.set)

    async def begin() -> None:
        print("ready", flush=True)
        threading.Thread(target=read_go, daemon=True).start()
        await begun.wait()

    return await ATTACKS[name].attack(target, begin)


def main() -> None:
    os.nice(NICENESS)
    logging.getLogger("picows").setLevel(logging.ERROR)  # it warns of each server that reads slowly
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = msgspec.json.decode(sys.stdin.readline(), type=Target)
    counts = uvloop.run(attack(sys.argv[1], target))
    print(msgspec.json.encode(dict(counts)).decode(), flush=True)


if __name__ == "__main__":
    main()
