"""Processes that are forked instead of started: they behave like those of `python -m`."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devtools.cluster import ROOT, Process, Start, from_scratch
from devtools.forks import Forker


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture(params=["from-scratch", "forked"])
def start(request: pytest.FixtureRequest, forker: Forker) -> Start:
    return from_scratch if request.param == "from-scratch" else forker.start


PROGRAM = """
import os, sys, time
print(sys.argv[1:], os.getcwd(), os.environ["TOLD"], sys.stdin.read(), flush=True)
sys.exit(7) if sys.argv[1] == "exit" else time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def run(start: Start, folder: Path, *arguments: str) -> tuple[Process, Path]:
    log = folder / "log"
    env = {**os.environ, "TOLD": "this"}
    return start("program", arguments, cwd=folder, log=log, env=env), log


def test_forked_program_gets_its_arguments_and_reports_its_exit_code(start: Start, folder: Path) -> None:
    process, log = run(start, folder, "exit", "two words")
    assert process.wait(60) == process.poll() == process.returncode == 7
    assert log.read_text() == f"['exit', 'two words'] {folder} this \n"
    process.kill()  # does nothing


def test_program_that_runs_can_be_killed(start: Start, folder: Path) -> None:
    process, _ = run(start, folder, "stay")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    assert psutil.Process(process.pid).is_running()
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)


def test_random_numbers_of_two_forks_differ(forker: Forker, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("import random, uuid; print(random.random(), uuid.uuid4())")
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    for log in logs:
        assert forker.start(log.stem, [], cwd=tmp_path, log=log, env=dict(os.environ)).wait(60) == 0
    first, second = (log.read_text().split() for log in logs)
    assert not set(first) & set(second)


def test_forked_plenary_prints_what_a_started_one_prints(start: Start, tmp_path: Path) -> None:
    process = start("plenary", ["gateway", "--port", "99999"], cwd=ROOT, log=tmp_path / "log", env=dict(os.environ))
    assert process.wait(60) == 2
    assert "--port: Input should be less than or equal to 65535" in (tmp_path / "log").read_text()
