"""The command line. A typed option wins over the environment; defaults are in `shared.settings`."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from loadtest.command import loadtest
from plenary.commands import server_api, setting_options
from plenary.processes import event_loop
from plenary.processes.all_in_one import run_all_roles
from plenary.processes.single_role import run_gateway, run_media_node, run_room_worker
from plenary.status.command import show_status
from shared.settings import Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings
from shared.telemetry import log
from shared.version import version

app = typer.Typer(
    help=(
        "Plenary: a horizontally scaled signaling backend for multi-party WebRTC.\n\n"
        "**Try it:** `plenary run`, and open http://localhost:8080/ twice. It is everything in one process.\n\n"
        "**A cluster:** any number of `plenary gateway`, `plenary roomworker` and `plenary medianode`, all with the"
        " same Redis and RabbitMQ (`--redis-url`, `--amqp-url`). `plenary status` shows what runs.\n\n"
        "**Rooms and peers:** `plenary rooms` and `plenary peers` ask a gateway's server API, which is on if the"
        " gateway has a key (`--api-key`).\n\n"
        "Every option of a role can also be given in the environment, as PLENARY_ and its name: PLENARY_REDIS_URL."
        " `plenary ROLE --help` lists them. Tab completion: `plenary --install-completion`."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

S = TypeVar("S", bound=Common)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"plenary {version()}")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _role(
    name: str, kind: type[S], main: Callable[[S, asyncio.Event], Coroutine[Any, Any, None]], help_text: str
) -> None:
    """Adds the command of a role, which runs until SIGTERM or SIGINT."""

    def start(typed: dict[str, Any]) -> None:
        settings = setting_options.settings(kind, typed)
        log.configure(settings.log_level, settings.log_format, role=name)
        setting_options.warn_of_unknown_variables(os.environ)
        event_loop.run(partial(main, settings))

    app.command(name=name)(setting_options.with_options(kind, start, help_text))


_role(
    "run",
    RunSettings,
    run_all_roles,
    "Runs everything in one process, with a page to call each other. Needs no servers unless URLs are given.\n\n"
    "Example: `plenary run --port 8080`",
)
_role(
    "gateway",
    GatewaySettings,
    run_gateway,
    "Takes clients' WebSockets. Keeps no state: run as many as the connections need, behind one address.\n\n"
    "Example: `plenary gateway --redis-url redis://redis:6379/0 --amqp-url amqp://USER:PASSWORD@rabbitmq:5672/`",
)
_role(
    "roomworker",
    WorkerSettings,
    run_room_worker,
    "Carries out what clients ask of rooms. The partitions of rooms are shared evenly among all workers that run.\n\n"
    "Example: `plenary roomworker --redis-url redis://redis:6379/0 --amqp-url amqp://USER:PASSWORD@rabbitmq:5672/`",
)
_role(
    "medianode",
    NodeSettings,
    run_media_node,
    "Carries audio and video with mediasoup-worker. Clients must reach its media ports.\n\n"
    "Example: `plenary medianode --announced-ip 203.0.113.7 --media-port 40000 --engines 4`, with UDP and TCP ports"
    " 40000 to 40003 open to clients",
)


@app.command(name="status")
def _status(
    redis_url: Annotated[
        str | None, typer.Option(help="The cluster's Redis.", show_default="redis://127.0.0.1:6379/0")
    ] = None,
    amqp_url: Annotated[
        str | None, typer.Option(help="The cluster's RabbitMQ.", show_default="amqp://guest:guest@127.0.0.1:5672/")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C; with --json one object a line.")
    ] = False,
) -> None:
    """Shows the cluster's gateways, room workers and media nodes, what waits for them, and what was set aside.

    Reads Redis and RabbitMQ, for two seconds each time: a process lives if its entry changes meanwhile.

    Examples: `plenary status`, `plenary status --watch`, `plenary status --json | jq '.roomWorkers[].rooms'`
    """
    typed = {"redis_url": redis_url, "amqp_url": amqp_url}
    settings = setting_options.settings(Common, {name: url for name, url in typed.items() if url})
    log.configure(settings.log_level, settings.log_format, role="status")
    setting_options.warn_of_unknown_variables(os.environ)
    urls = settings.redis_url, settings.amqp_url
    event_loop.run(lambda stop: show_status(*urls, stop, as_json=as_json, watch=watch))


server_api.add_to(app)
app.command(name="loadtest")(loadtest)


def main() -> None:
    app()
