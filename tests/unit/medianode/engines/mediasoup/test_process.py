"""An engine's process, played by a program: what it says is checked, and requests leave together."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from medianode.engines.mediasoup.channel import ChannelError, Response
from medianode.engines.mediasoup.flatbuffers_codec import Schema
from medianode.engines.mediasoup.process import NO_ANSWER, EngineProcess

ROOT = Path(__file__).parents[5]
# Says that it runs, then does what the test says with each chunk of bytes that it reads.
PROGRAM = """#!{python}
import os, socket, struct, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from medianode.engines.mediasoup.flatbuffers_codec import load_schema

schema = load_schema(Path({schemas!r}))
requests, answers = socket.socket(fileno=3), socket.socket(fileno=4)

def say(kind, **fields):
    answers.sendall(schema.encode("FBS.Message.Message", {{"data": (kind, fields)}}))

say("Notification", handler_id=str(os.getpid()), event="WORKER_RUNNING")
while chunk := requests.recv(1_000_000):
    ids = []
    while chunk:
        (length,) = struct.unpack_from("<I", chunk)
        ids.append(schema.decode("FBS.Message.Message", chunk[4 : 4 + length])["data"][1]["id"])
        chunk = chunk[4 + length :]
    {react}
"""
Start = Callable[[str], Awaitable[EngineProcess]]


@pytest.fixture
def deaths() -> list[str]:
    return []


@pytest.fixture
async def start(engine_schema: Schema, schemas: Path, tmp_path: Path, deaths: list[str]) -> AsyncIterator[Start]:
    started: list[EngineProcess] = []

    async def start(react: str) -> EngineProcess:
        binary = tmp_path / "engine"
        text = PROGRAM.format(python=sys.executable, root=str(ROOT), schemas=str(schemas), react=react)
        binary.write_text(text)
        binary.chmod(0o755)
        process = EngineProcess(binary, engine_schema, [], lambda _: None, deaths.append)
        started.append(process)
        await process.start()
        return process

    yield start
    for process in started:
        await process.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        "answers.sendall(bytes(12))",
        "answers.sendall(struct.pack('<I', 2**31))",
        "answers.sendall(struct.pack('<I', 8) + b'nonsense')",
        "say('Request', id=1, method='WORKER_DUMP', handler_id='')",
    ],
)
async def test_engine_that_talks_nonsense_is_ended_and_not_believed(
    start: Start, deaths: list[str], nonsense: str
) -> None:
    process = await start(nonsense)
    answer = await process.ask("WORKER_DUMP")
    assert answer == Response(0, error=NO_ANSWER, reason="the engine ended by signal 9")
    await asyncio.sleep(0)
    assert deaths == ["ended by signal 9"]


async def test_answers_to_unknown_requests_are_ignored(start: Start, deaths: list[str]) -> None:
    process = await start("say('Response', id=999, accepted=True), say('Response', id=ids[0], accepted=True)")
    assert await process.ask("WORKER_DUMP") == Response(1)
    assert deaths == []


async def test_requests_of_one_turn_leave_in_one_write(start: Start) -> None:
    process = await start("[say('Response', id=i, accepted=False, error=str(len(ids)), reason='') for i in ids]")
    answers = await asyncio.gather(*(process.ask("WORKER_DUMP") for _ in range(5)))
    assert [(answer.id, answer.error) for answer in answers] == [(n, "5") for n in range(1, 6)]


async def test_program_that_is_no_engine_does_not_start(
    engine_schema: Schema, tmp_path: Path, deaths: list[str]
) -> None:
    binary = tmp_path / "engine"
    binary.write_text("#!/bin/sh\nexit 7\n")
    binary.chmod(0o755)
    process = EngineProcess(binary, engine_schema, [], lambda _: None, deaths.append)
    with pytest.raises(ChannelError, match="ended with code 7 at its start"):
        await process.start()
    assert deaths == []
