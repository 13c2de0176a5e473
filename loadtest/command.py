"""`plenary loadtest`: what is typed, what is shown, and the exit code."""

import asyncio
import json
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
import uvloop
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.coordinator.processes import watched_processes
from loadtest.coordinator.run import Crew, Run, Task
from loadtest.coordinator.watch import Watch
from loadtest.generator.profiles import PROFILES, described
from loadtest.report import html_page, slo, summary
from loadtest.report.progress import Progress

URL: Final = "ws://127.0.0.1:8080"
SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

console = Console()
if not console.is_terminal:
    console = Console(width=100)

_CHECKED: Final = """Virtual peers do what browsers do, and check that each is told everything, once and in order.

Rates are kept whatever the server does: each latency counts from the moment the request was meant to be sent. What
went wrong is counted by kind: {kinds}. Every kind must be 0 for the run to pass, unless an --slo speaks of it.

Exit code: 0 passed, 1 failed, 2 not started."""


def loadtest(
    url: Annotated[
        list[str] | None,
        typer.Option(help="A gateway or a balancer before them, may be repeated: ws://HOST:8080.", show_default=URL),
    ] = None,
    rooms: Annotated[int, typer.Option(min=1, help="Rooms.")] = 20,
    peers: Annotated[int, typer.Option(min=1, help="Peers in each room.")] = 4,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds in which they all come.")] = 10,
    duration: Annotated[float, typer.Option(min=0, help="Seconds of load when all are there.")] = 30,
    profile: Annotated[str, typer.Option(help=described(), metavar="|".join(PROFILES))] = "calls",
    churn: Annotated[
        float | None,
        typer.Option(min=0, help="Peers per second that leave and come again.", show_default="by profile"),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Generator processes. Each room is in one of them.")] = 1,
    seed: Annotated[
        str, typer.Option(help="The same seed, the same chance; also in the rooms' names.", show_default="random")
    ] = "",
    slos: Annotated[
        list[str] | None,
        typer.Option("--slo", help="Must hold to pass, may be repeated: 'join.p99<500ms', 'requests.rate>=100'."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="All figures, for machines.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="A page with plots.")] = None,
    watched: Annotated[
        list[str] | None,
        typer.Option(
            "--watch",
            help="Pid or part of a command line whose CPU and memory are shown, may be repeated.",
            show_default="the cluster's, if it is on this machine",
        ),
    ] = None,
    amqp_url: Annotated[
        str, typer.Option(envvar="PLENARY_AMQP_URL", help="RabbitMQ, to show how long the partitions' queues are.")
    ] = "",
    partitions: Annotated[int, typer.Option(envvar="PLENARY_PARTITIONS", help="How many there are.")] = 32,
) -> None:
    demands = _demands(slos or [])
    if profile not in PROFILES:
        raise typer.BadParameter(f"--profile: {profile!r} is none of {', '.join(PROFILES)}")
    for file in (json_file, html_file):
        if file is not None and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.absolute().parent}")
    task = Task(
        urls=_reachable([_address(it) for it in url or [URL]]),
        rooms=rooms,
        peers=peers,
        ramp=ramp,
        duration=duration,
        profile_name=profile,
        profile=PROFILES[profile],
        churn=churn,
        processes=min(processes, rooms),
        seed=seed or secrets.token_hex(3),
    )
    looked_at = Watch(watched_processes(task.urls, watched or []), amqp_url, partitions)
    run = uvloop.run(_run(task, looked_at))
    result = summary.summary(run)
    verdicts = [demand.judge(result) for demand in demands]
    passed = all(verdict.held for verdict in verdicts)
    _print(result, verdicts, passed=passed)
    result |= {"slos": summary.verdicts_json(verdicts), "passed": passed}
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    if html_file is not None:
        html_file.write_text(html_page.page(result))
        console.print(f"report: {html_file}", soft_wrap=True, highlight=False, markup=False)
    if not passed:
        raise typer.Exit(1)


loadtest.__doc__ = _CHECKED.format(kinds="; ".join(f"{kind} ({about})" for kind, about in slo.KINDS.items()))


def _demands(texts: Sequence[str]) -> list[slo.Slo]:
    try:
        return slo.demands(slo.parse(text) for text in texts)
    except slo.BadExpression as bad:
        raise typer.BadParameter(f"--slo {bad}") from None


def _address(text: str) -> str:
    """ws://HOST:PORT"""
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise typer.BadParameter(f"--url: expected an address like {URL}, got {text!r}")
    return f"{SCHEMES[parts.scheme]}://{parts.netloc}"


def _reachable(urls: list[str]) -> list[str]:
    """All of them, if one is ready; else says why and exits with 2."""
    reasons = {url: reason for url in urls if (reason := _unready(url))}
    for url, reason in reasons.items():
        typer.echo(f"plenary: {url}: {reason}", err=True)
    if len(reasons) == len(urls):
        raise typer.Exit(2)
    return urls


def _unready(url: str) -> str:
    try:
        with urllib.request.urlopen(f"http{url[2:]}/readyz", timeout=5):  # noqa: S310 - http or https
            return ""
    except urllib.error.HTTPError as refused:
        return f"the gateway is not ready: {refused.read(200).decode(errors='replace').strip()}"
    except (urllib.error.URLError, OSError) as failure:
        return f"nobody answers ({getattr(failure, 'reason', failure)})"


async def _run(task: Task, looked_at: Watch) -> Run:
    progress = Progress(console)
    crew = Crew(task, looked_at, progress.show)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, crew.stop)
    console.print(
        f"{task.rooms} rooms with {task.peers} peers each, profile {task.profile_name}, seed {task.seed}"
        + (f"; watching {', '.join(looked_at.names)}" if looked_at.names else ""),
        soft_wrap=True,
        highlight=False,
    )
    try:
        with progress.shown:
            return await crew.work()
    finally:
        await looked_at.close()


# --- the end --------------------------------------------------------------------------------------------------


def _print(result: dict[str, Any], verdicts: list[slo.Verdict], *, passed: bool) -> None:
    steps = {name: result["steps"][name] for name in slo.STEPS if result["steps"].get(name, {}).get("count")}
    _print_rows("Requests", result["methods"])
    _print_rows("Until others were told", result["fanout"])
    _print_rows("Steps", steps)
    peak, load = result["peak"], result["load"]
    console.print(
        f"{peak['connected']} connections, {peak['joined']} peers in rooms; under load "
        f"{load['requests']:.0f} requests and {load['notifications']:.0f} notifications a second",
        highlight=False,
    )
    for kind, count in result["failures"].items():
        console.print(f"[red]{count} {kind}[/]: {slo.KINDS[kind]}", highlight=False)
        for example in result["examples"].get(kind, []):
            console.print(f"    {example['at']:6.1f} s  {escape(example['text'])}", highlight=False, soft_wrap=True)
    given = [it for it in verdicts if not it.held or it.text not in {f"{kind}==0" for kind in slo.KINDS}]
    for verdict in given:
        style = "[green]held[/]" if verdict.held else "[red]not held[/]"
        console.print(f"{style}  {escape(verdict.text)}  ({escape(verdict.actual)})", highlight=False)
    ended = ", interrupted" if result["interrupted"] else ""
    console.print(f"[bold green]passed{ended}[/]" if passed else f"[bold red]failed{ended}[/]")


def _print_rows(title: str, rows: dict[str, Any]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("count", "p50", "p95", "p99", "max", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in rows.items():
        durations = (slo.seconds(row[it]) for it in ("p50", "p95", "p99", "max"))
        errors = f"[red]{row['errors']}[/]" if row["errors"] else "0"
        table.add_row(name, f"{row['count']}", *durations, errors)
    console.print(table)
