"""Starts the processes of an attack: the attacker, and the one that discards its traffic in a control run."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from devtools.cluster import ROOT
from devtools.guard import GUARD
from tests.hostile.target import Counts, Target

PREPARED_WITHIN: Final = 120.0
"""Seconds in which an attacker must have opened its connections, however busy the cluster is."""
ENDS_WITHIN: Final = 60.0
"""Seconds beyond its time in which it must have closed them."""


class AttackFailed(Exception):
    """The attacker's process failed: the attack did not take place as it should."""


class AttackerProcess:
    """A niced process that attacks a target once it is told to."""

    def __init__(self, name: str, target: Target) -> None:
        self._name = name
        self._target = target
        self._process: asyncio.subprocess.Process | None = None

    async def prepare(self) -> None:
        """Starts the process; returns when it could begin. Raises `AttackFailed`."""
        command = [sys.executable, "-m", "tests.hostile.attacker", self._name]
        pipe = subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, cwd=ROOT, limit=2**20
        )
        GUARD.watch(process.pid)
        await self._say(msgspec.json.encode(self._target))
        await self._hear(PREPARED_WITHIN)

    async def begin(self) -> None:
        await self._say(b"begin")

    async def ended(self) -> Counts:
        """Returns what the attack did, once it has ended by itself. Raises `AttackFailed`."""
        return Counts(msgspec.json.decode(await self._hear(self._target.seconds + ENDS_WITHIN)))

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _say(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        await self._process.stdin.drain()

    async def _hear(self, within: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AttackFailed(f"{self._name}: nothing heard for {within:.0f} s") from None
        if not line:
            raise AttackFailed(f"{self._name}: ended with {await self._process.wait()}")
        return line


@asynccontextmanager
async def discarding() -> AsyncIterator[int]:
    """Runs the process that discards; its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile.discarder", stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    GUARD.watch(process.pid)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PREPARED_WITHIN):
            yield int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
