"""Shows a run while it lasts: a changing table on a terminal, elsewhere a line every few seconds."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.coordinator.run import Run, Second, since
from loadtest.model.failures import KINDS
from loadtest.model.measurements import total
from loadtest.report.slo import seconds

EVERY: Final = 5
"""Seconds between lines."""


class Progress:
    """Shows a run. Use it as a context manager, and call `show` every second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._last = 0.0

    @property
    def shown(self) -> AbstractContextManager[object]:
        return self._live or nullcontext()

    def show(self, run: Run, generators: int) -> None:
        now = since(run)
        second = run.latest(generators)
        if second is None:
            return
        if self._live is not None:
            self._live.update(_table(run, second, now))
        elif now - self._last >= EVERY:
            self._last = now
            self._console.print(_line(run, second, now), soft_wrap=True, highlight=False)


def _line(run: Run, second: Second, now: float) -> str:
    requests, notified = total(second.measured.methods), total(second.measured.fanout)
    return (
        f"{now:5.0f} s {phase(second)}: {second.sum('connected')} connected, {second.sum('joined')} joined; "
        f"{requests.count} requests/s p50 {seconds(requests.percentile(50))} p99 {seconds(requests.percentile(99))}, "
        f"{notified.count} notifications/s p99 {seconds(notified.percentile(99))}; {failed(run)}"
    )


def _table(run: Run, second: Second, now: float) -> Group:
    task = run.task
    requests, notified = total(second.measured.methods), total(second.measured.fanout)
    table = Table.grid(padding=(0, 3))
    peers = task.rooms * task.peers
    table.add_row("connected, joined", f"{second.sum('connected')}, {second.sum('joined')} of {peers}")
    table.add_row("requests", f"{requests.count}/s", _durations(requests.percentile))
    table.add_row("notifications", f"{notified.count}/s", _durations(notified.percentile))
    table.add_row("unanswered", f"{second.sum('in_flight')}")
    bad = run.whole.failures.total()
    table.add_row("failures", Text(failed(run), style="bold red" if bad else "green"))
    length = task.ramp + task.duration
    bar = Table.grid()  # a bar by itself does not end its line
    bar.add_row(ProgressBar(total=length, completed=min(max(now, 0), length), width=40))
    heading = Text(f"{task.profile_name}: {phase(second)}, {max(now, 0):.0f} of {length:.0f} s", style="bold")
    return Group(heading, bar, table, Text("Ctrl-C ends the test in order and reports", style="dim"))


def _durations(percentile: Callable[[float], float]) -> str:
    return f"p50 {seconds(percentile(50))}, p99 {seconds(percentile(99))}"


def phase(second: Second) -> str:
    """Returns the earliest phase that any generator is in."""
    order = ("ramp", "load", "settling", "leaving", "done")
    return min((tick.phase for tick in second.gauges.values()), key=order.index)


def failed(run: Run) -> str:
    failures = run.whole.failures
    return ", ".join(f"{failures[kind]} {kind}" for kind in KINDS if failures[kind]) or "no failures"
