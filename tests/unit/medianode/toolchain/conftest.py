"""Programs that stand in for the engine, and schemas that describe as much of its channel as the toolchain uses."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from medianode.toolchain import engine_folder
from medianode.toolchain.engine_folder import schemas_digest
from medianode.toolchain.progress import Report

ROOT = Path(__file__).parents[4]

SCHEMA = """
namespace FBS.Message;

enum Method: uint8 { WORKER_DUMP, WORKER_CREATE_ROUTER }
enum Event: uint8 { OTHER, WORKER_RUNNING, STATE }
enum Phase: uint8 { NEW, CONNECTED }

table Empty {}
table Named { name: string (required); }
table StateChange { phase: Phase; }
union Asked { Named }
union Answer { Named }
union Told { StateChange }

table Request { id: uint32; method: Method; handler_id: string; body: Asked; }
table Response { id: uint32; accepted: bool; body: Answer; error: string; reason: string; }
table Notification { handler_id: string (required); event: Event; body: Told; }
table Log { data: string (required); }
union Body { Request, Response, Notification, Log }
table Message { data: Body (required); }
"""

SPEAKING = """
import os, socket, struct, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from medianode.engines.mediasoup.flatbuffers_codec import load_schema

schema = load_schema(Path({schemas!r}))
reader, writer = (socket.socket(fileno=fd) for fd in (3, 4))

def tell(kind, **fields):
    writer.sendall(schema.encode("FBS.Message.Message", {{"data": (kind, fields)}}))

def ask():
    (length,) = struct.unpack("<I", reader.recv(4, socket.MSG_WAITALL) or sys.exit())
    return schema.decode("FBS.Message.Message", reader.recv(length, socket.MSG_WAITALL))["data"][1]

def run():
    tell("Notification", handler_id=str(os.getpid()), event="WORKER_RUNNING")

"""


@pytest.fixture
def report() -> Report:
    """A report that shows nothing."""
    return Report(Console(file=io.StringIO()))


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with schemas that count as those of the engine's version."""
    folder = tmp_path / "some" / "fbs"
    folder.mkdir(parents=True)
    (folder / "message.fbs").write_text(SCHEMA)
    monkeypatch.setattr(engine_folder, "SCHEMAS_SHA256", schemas_digest(folder))
    return folder


@pytest.fixture
def engine(schemas: Path) -> Callable[[str], Path]:
    """Makes an engine of Python code, which has `run`, `ask` and `tell`; its schemas lie beside it."""

    def make(code: str) -> Path:
        return program(
            schemas.parent / "mediasoup-worker",
            f"#!{sys.executable}\n" + SPEAKING.format(root=str(ROOT), schemas=str(schemas)) + code,
        )

    return make


@pytest.fixture
def shell_engine(schemas: Path) -> Callable[[str], Path]:
    """Makes an engine of shell commands; its schemas lie beside it."""
    return lambda commands: program(schemas.parent / "mediasoup-worker", f"#!/bin/sh\n{commands}\n")


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
