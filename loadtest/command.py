"""`plenary loadtest`: options, output and exit code of a load test."""

import asyncio
import json
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import typer
import uvloop
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtest.coordinator.processes import watched_processes
from loadtest.coordinator.run import GeneratorProcesses, Run, RunParameters
from loadtest.coordinator.watch import Watch
from loadtest.generator.profiles import PROFILES, described
from loadtest.model.failures import GENERATOR_KINDS, KINDS, SERVER_KINDS
from loadtest.report import html_page, slo, summary
from loadtest.report.progress import Progress

URL: Final = "ws://127.0.0.1:8080"
SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}

console = Console()
if not console.is_terminal:
    console = Console(width=100)

STYLES: Final = {"passed": "green", "failed": "red", "invalid": "yellow"}
EXIT_CODES: Final = {"passed": 0, "failed": 1, "invalid": 3}
NOT_STARTED: Final = 2

_HELP: Final = """\
Measures a cluster with virtual peers that do what browsers do, and checks what each of them is told.

Rates are kept whatever the server does: each latency counts from the moment when a request was due. Failures are
counted by kind: {server}. Faults of the load generator itself are counted, too: {generator}. Every count must be 0
for the run to pass, unless an --slo names it.

Exit code: 0 passed, 1 failed, 2 not started, 3 invalid (the load generator itself was at fault)."""

Urls: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="A gateway, or a balancer before them; may be repeated: ws://HOST:8080.", show_default=URL),
]
Rooms: TypeAlias = Annotated[int, typer.Option(min=1, help="Number of rooms.")]
Peers: TypeAlias = Annotated[int, typer.Option(min=1, help="Peers in each room.")]
Ramp: TypeAlias = Annotated[float, typer.Option(min=0, help="Seconds within which all peers join.")]
Duration: TypeAlias = Annotated[float, typer.Option(min=0, help="Seconds of load after the ramp.")]
ProfileName: TypeAlias = Annotated[str, typer.Option(help=described(), metavar="|".join(PROFILES))]
Churn: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0, help="Peers per second that leave and join again.", show_default="by profile"),
]
Processes: TypeAlias = Annotated[int, typer.Option(min=1, help="Generator processes. Each room is in one of them.")]
Seed: TypeAlias = Annotated[
    str, typer.Option(help="Seed of all random choices, and part of the rooms' names.", show_default="random")
]
Slos: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--slo", help="An objective of the run; may be repeated: 'join.p99<500ms', 'requests.rate>=100'."),
]
JsonFile: TypeAlias = Annotated[Path | None, typer.Option("--json", help="File for all figures, for machines.")]
HtmlFile: TypeAlias = Annotated[Path | None, typer.Option("--html", help="File for the report, a page with plots.")]
Watched: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--watch",
        help="Pid or part of a command line whose CPU and memory are shown; may be repeated.",
        show_default="the cluster's, if it is on this machine",
    ),
]
AmqpUrl: TypeAlias = Annotated[
    str, typer.Option(envvar="PLENARY_AMQP_URL", help="RabbitMQ, to show how many messages wait in its queues.")
]
Partitions: TypeAlias = Annotated[int, typer.Option(envvar="PLENARY_PARTITIONS", help="Number of partitions.")]


def loadtest(
    url: Urls = None,
    rooms: Rooms = 20,
    peers: Peers = 4,
    ramp: Ramp = 10,
    duration: Duration = 30,
    profile: ProfileName = "calls",
    churn: Churn = None,
    processes: Processes = 1,
    seed: Seed = "",
    slos: Slos = None,
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    watched: Watched = None,
    amqp_url: AmqpUrl = "",
    partitions: Partitions = 32,
) -> None:
    objectives = _objectives(slos or [])
    _check(profile, json_file, html_file)
    task = RunParameters(
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
    watch = Watch(watched_processes(task.urls, watched or []), amqp_url, partitions)
    run = uvloop.run(_run(task, watch))
    _report(run, objectives, json_file, html_file)


def _check(profile: str, *files: Path | None) -> None:
    """Checks options before the run: raises if it could not begin, or its report could not be written."""
    if profile not in PROFILES:
        raise typer.BadParameter(f"--profile: {profile!r} is none of {', '.join(PROFILES)}")
    for file in files:
        if file is not None and not file.absolute().parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.absolute().parent}")


def _report(run: Run, objectives: Sequence[slo.Slo], json_file: Path | None, html_file: Path | None) -> None:
    """Prints and writes what the run measured; raises `typer.Exit` unless it passed."""
    result = summary.summary(run)
    verdicts = [objective.judge(result) for objective in objectives]
    verdict = slo.outcome(verdicts)
    _print(result, verdicts, verdict)
    result |= {"slos": summary.verdicts_json(verdicts), "verdict": verdict, "passed": verdict == "passed"}
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    if html_file is not None:
        html_file.write_text(html_page.page(result))
        console.print(f"report: {html_file}", soft_wrap=True, highlight=False, markup=False)
    if code := EXIT_CODES[verdict]:
        raise typer.Exit(code)


loadtest.__doc__ = _HELP.format(
    server="; ".join(f"{kind} ({about})" for kind, about in SERVER_KINDS.items()),
    generator="; ".join(f"{kind} ({about})" for kind, about in GENERATOR_KINDS.items()),
)


def _objectives(texts: Sequence[str]) -> list[slo.Slo]:
    try:
        return slo.objectives(slo.parse(text) for text in texts)
    except slo.BadExpression as bad:
        raise typer.BadParameter(f"--slo {bad}") from None


def _address(text: str) -> str:
    """Returns an address as ws://HOST:PORT or wss://HOST:PORT. Raises `typer.BadParameter`."""
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise typer.BadParameter(f"--url: expected an address like {URL}, got {text!r}")
    return f"{SCHEMES[parts.scheme]}://{parts.netloc}"


def _reachable(urls: list[str]) -> list[str]:
    """Returns all gateways if one is ready. Otherwise prints why none is, and exits."""
    reasons = {url: reason for url in urls if (reason := _unready(url))}
    for url, reason in reasons.items():
        typer.echo(f"plenary: {url}: {reason}", err=True)
    if len(reasons) == len(urls):
        raise typer.Exit(NOT_STARTED)
    return urls


def _unready(url: str) -> str:
    try:
        with urllib.request.urlopen(f"http{url[2:]}/readyz", timeout=5):  # noqa: S310 - http or https
            return ""
    except urllib.error.HTTPError as refused:
        return f"the gateway is not ready: {refused.read(200).decode(errors='replace').strip()}"
    except (urllib.error.URLError, OSError) as failure:
        return f"no answer ({getattr(failure, 'reason', failure)})"


async def _run(task: RunParameters, watch: Watch) -> Run:
    progress = Progress(console)
    generators = GeneratorProcesses(task, watch, progress.show)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, generators.stop)
    console.print(
        f"{task.rooms} rooms with {task.peers} peers each, profile {task.profile_name}, seed {task.seed}"
        + (f"; watching {', '.join(watch.names)}" if watch.names else ""),
        soft_wrap=True,
        highlight=False,
    )
    try:
        with progress.shown:
            return await generators.run_all()
    finally:
        await watch.close()


# --- the report on the terminal -----------------------------------------------------------------------------------


def _print(result: dict[str, Any], verdicts: list[slo.Verdict], verdict: slo.Outcome) -> None:
    steps = {name: result["steps"][name] for name in slo.STEPS if result["steps"].get(name, {}).get("count")}
    _print_rows("Requests", result["methods"])
    _print_rows("Notification latency", result["fanout"])
    _print_rows("Steps", steps)
    peak, load = result["peak"], result["load"]
    console.print(
        f"{peak['connected']} connections, {peak['joined']} peers in rooms; under load "
        f"{load['requests']:.0f} requests and {load['notifications']:.0f} notifications a second",
        highlight=False,
    )
    for kind, count in result["failures"].items():
        console.print(f"[red]{count} {kind}[/]: {KINDS[kind]}", highlight=False)
        for example in result["examples"].get(kind, []):
            console.print(f"    {example['at']:6.1f} s  {escape(example['text'])}", highlight=False, soft_wrap=True)
    shown = [it for it in verdicts if not it.held or it.text not in {f"{kind}==0" for kind in KINDS}]
    for one in shown:
        style = "[green]met[/]" if one.held else "[red]not met[/]"
        console.print(f"{style}  {escape(one.text)}  (measured {escape(one.actual)})", highlight=False)
    ended = ", interrupted" if result["interrupted"] else ""
    console.print(f"[bold {STYLES[verdict]}]{html_page.VERDICTS[verdict]}{ended}[/]")


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
