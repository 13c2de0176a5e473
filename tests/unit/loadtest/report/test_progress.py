"""The progress of a load test, on a terminal and without."""

import io
import time

from rich.console import Console

from loadtest.coordinator.run import Run, RunParameters
from loadtest.generator.plan import SecondReport
from loadtest.generator.profiles import PROFILES
from loadtest.model.measurements import Measured
from loadtest.report.progress import EVERY, Progress


def run() -> Run:
    task = RunParameters(["ws://h:1"], 2, 3, 1.0, 9.0, "calls", PROFILES["calls"], None, 2, "s")
    made = Run(task, began=time.monotonic() - EVERY)
    measured = Measured()
    measured.answered("join", 0.02)
    measured.fail("lost", "nobody told bob", 1.0)
    for process, phase in ((0, "load"), (1, "ramp")):
        made.add(process, SecondReport(4, phase, 3, 2, 1, measured.dump()))
    return made


def test_progress_without_a_terminal_is_a_line_every_few_seconds() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out))
    with progress.shown:
        progress.show(run(), 2)
        progress.show(run(), 2)
    assert out.getvalue() == (
        "    5 s ramp: 6 connected, 4 joined; 2 requests/s p50 20 ms p99 20 ms, 0 notifications/s p99 0 µs; 2 lost\n"
    )


def test_second_without_reports_of_all_generators_is_not_shown() -> None:
    out = io.StringIO()
    Progress(Console(file=out)).show(run(), 3)
    assert out.getvalue() == ""


def test_progress_on_a_terminal_is_a_table_with_a_bar() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=100, color_system=None))
    with progress.shown:
        progress.show(run(), 2)
    said = out.getvalue()
    assert "calls: ramp, 5 of 10 s" in said
    assert "2 lost" in said
    bar = next(line for line in said.splitlines() if "━━━" in line)
    assert "connected" not in bar
