"""The report: figures and HTML page from generators' ticks."""

import asyncio
import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import psutil
import pytest

from loadtest.coordinator.processes import watched_processes
from loadtest.coordinator.run import Run, RunParameters
from loadtest.coordinator.watch import Sample, Watch
from loadtest.generator.plan import SecondReport
from loadtest.generator.profiles import PROFILES
from loadtest.model.measurements import EXAMPLES, Measured
from loadtest.report import html_page, plots, summary
from loadtest.report.slo import objectives, outcome, parse
from tests.support.waiting import until


def task(**changes: Any) -> RunParameters:
    about: dict[str, Any] = {
        "urls": ["ws://127.0.0.1:1"],
        "rooms": 7,
        "peers": 3,
        "ramp": 2.0,
        "duration": 6.0,
        "profile_name": "joins",
        "profile": PROFILES["joins"],
        "churn": None,
        "processes": 3,
        "seed": "x<y",
    }
    return RunParameters(**about | changes)


def measured(seconds: float, wrong: str = "") -> Measured:
    some = Measured()
    some.answered("join", seconds)
    some.took("ready", 2 * seconds)
    some.notified("newPeer", seconds / 2)
    if wrong:
        some.fail("lost", wrong, 1.5)
    return some


def run(wrong: str = "") -> Run:
    made = Run(task(), began=100.0)
    for second in range(8):
        for process in range(3):
            tick = SecondReport(
                second, "load", 7, 6, 1, json.loads(json.dumps(measured(0.01 * (second + 1), wrong).dump()))
            )
            made.add(process, tick)
        made.samples.append(
            Sample(second, {"gateway": 0.5, "Redis": 0.1}, {"gateway": 2**26, "Redis": 2**24}, second)
        )
    made.ended = 108.0
    return made


def result(wrong: str = "", *slos: str) -> dict[str, Any]:
    figures = summary.summary(run(wrong))
    verdicts = [demand.judge(figures) for demand in objectives(parse(text) for text in slos)]
    return figures | {"slos": summary.verdicts_json(verdicts), "verdict": outcome(verdicts)}


def test_every_room_is_in_exactly_one_process() -> None:
    plans = task().plans(began=5.0)
    rooms = [room for plan in plans for room in plan.rooms]
    assert [len(plan.rooms) for plan in plans] == [3, 2, 2]
    assert len(set(rooms)) == 7
    assert sum(plan.churn for plan in plans) == pytest.approx(21 / PROFILES["joins"].stay)
    assert len(task(rooms=2).plans(began=5.0)) == 2
    assert len({plan.seed for plan in plans}) == 3


def test_churn_option_overrides_the_profile() -> None:
    assert task(churn=0.0).churn_rate == 0
    assert task(profile=PROFILES["idle"]).churn_rate == 0
    assert task(profile=PROFILES["messages"]).churn_rate == 0


def test_summary_adds_up_the_reports_of_all_generators() -> None:
    figures = summary.summary(run("nobody told bob"))
    assert figures["methods"]["join"]["count"] == 24
    assert figures["methods"]["join"]["max"] == pytest.approx(0.08)
    assert figures["steps"]["requests"]["rate"] == 3
    assert figures["steps"]["ready"]["p50"] == pytest.approx(0.08, rel=0.04)
    assert figures["fanout"]["newPeer"]["count"] == 24
    assert figures["failures"] == {"lost": 24}
    assert len(figures["examples"]["lost"]) == EXAMPLES
    assert figures["peak"] == {"connected": 21, "joined": 18, "in_flight": 3}
    assert figures["load"] == {"seconds": 6, "requests": 3.0, "notifications": 3.0}
    assert [entry["at"] for entry in figures["timeline"]] == list(range(8))


def test_failure_fails_the_run_and_is_shown_on_its_page() -> None:
    page = html_page.page(result("bob & <carol> heard nothing"))
    assert "bob &amp; &lt;carol&gt; heard nothing" in page
    assert "<carol>" not in page
    assert 'class="verdict failed"' in page
    assert "24 lost" in page


def test_page_refers_to_no_other_file() -> None:
    page = html_page.page(result("", "join.p99<1s"))
    assert 'class="verdict passed"' in page
    assert "join.p99&lt;1s" in page
    assert "x&lt;y" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)


def test_plots_are_well_formed() -> None:
    page = html_page.page(result())
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 8
    for svg in drawn:
        assert len(ET.fromstring(svg)) > 5
        assert not re.search(r"\b(nan|inf)\b", svg)
    assert all(word in page for word in ("gateway", "Redis", "CPU, in cores", "Memory", "queues"))


def test_run_without_any_measurement_has_a_page() -> None:
    empty = Run(task(duration=0.0), began=100.0)
    empty.ended = 100.0
    figures = summary.summary(empty) | {"slos": [], "verdict": "passed"}
    assert "nothing was measured" in html_page.page(figures)


@pytest.mark.parametrize("values", [[1.0], [0.001, 5000.0], [0.0, 0.0], [3e-6, 4e-6]])
@pytest.mark.parametrize("log", [False, True])
def test_points_are_within_the_plot(values: list[float], log: bool) -> None:
    series = plots.Series("s", list(enumerate(values)), "s0")
    svg = plots.lines([series], lambda value: f"{value:g}", until=10, log=log)
    for x, y in re.findall(r"[ML]([\d.]+),([\d.-]+)", svg):
        assert plots.LEFT <= float(x) <= plots.WIDTH
        assert 0 <= float(y) <= plots.HEIGHT - plots.BOTTOM


def test_long_series_are_thinned_and_keep_their_peaks() -> None:
    points: list[tuple[float, float | None]] = [(float(at), 1.0) for at in range(5000)]
    points[1234] = (1234.0, 99.0)
    thin = plots.thinned(points, max)
    assert len(thin) <= plots.MOST_POINTS
    assert max(value for _, value in thin if value is not None) == 99


def test_ticks_have_round_steps() -> None:
    assert [plots.round_up(step) for step in (0.3, 1, 1.1, 2.4, 30, 0)] == [0.5, 1, 2, 5, 50, 1]


async def test_watched_processes_are_found_by_pid_and_by_command_line() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60.125")
    try:
        await until(lambda: psutil.Process(process.pid).cmdline()[:1] == ["sleep"])
        for text in (str(process.pid), "sleep 60.125"):
            found = watched_processes([], [text])
            assert [it.pid for it in found.values()] == [process.pid]
            sample = await Watch(found).sample(0.0, [])
            assert list(sample.memory) == ["sleep"]
            assert sample.queued is None
    finally:
        process.kill()
        await process.wait()
