"""Servers and processes of a program that is killed do not outlive it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devtools.cluster import ROOT

WATCHED = """
import subprocess, time
from devtools.guard import GUARD
process = subprocess.Popen(["sleep", "600"], start_new_session=True)
GUARD.watch(process.pid)
print(process.pid, flush=True)
time.sleep(600)
"""
FORKED = """
import os, time
from pathlib import Path
from devtools.forks import Forker
folder = Path(os.environ["FOLDER"])
(folder / "program.py").write_text("import time; time.sleep(600)")
process = Forker().start("program", [], cwd=folder, log=folder / "log", env=dict(os.environ))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("program", [WATCHED, FORKED], ids=["watched", "forked"])
def test_process_ends_when_the_program_that_started_it_is_killed(program: str, tmp_path: Path) -> None:
    environment = {**os.environ, "FOLDER": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        process = psutil.Process(int(starter.stdout.readline()))
        assert process.is_running()
        starter.send_signal(signal.SIGKILL)
    process.wait(60)
