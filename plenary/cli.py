"""The command line. What is typed here wins over the environment; nothing else of the settings is decided here."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from loadtest.command import loadtest
from plenary import allinone, api, options, process, roles, status
from shared.settings import Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings
from shared.telemetry import log
from shared.version import version

app = typer.Typer(
    help=(
        "Plenary: a horizontally scaled signaling backend for multi-party WebRTC.\n\n"
        "`plenary run` is everything in one process. In a cluster run any number of `plenary gateway`,"
        " `plenary roomworker` and `plenary medianode`, all with the same Redis and RabbitMQ.\n\n"
        "Every option of a role can also be given in the environment, as PLENARY_ and its name: PLENARY_REDIS_URL."
    ),
    no_args_is_help=True,
    add_completion=False,
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
    name: str, kind: type[S], main: Callable[[S, asyncio.Event], Coroutine[Any, Any, None]], about: str
) -> None:
    """Adds a command that runs until it is told to stop."""

    def start(typed: dict[str, Any]) -> None:
        settings = options.settings(kind, typed)
        log.configure(settings.log_level, settings.log_format, role=name)
        process.run(partial(main, settings))

    app.command(name=name)(options.with_options(kind, start, about))


_role(
    "run",
    RunSettings,
    allinone.run,
    "Everything in one process, with a page to call each other. Needs nothing else unless URLs are given.",
)
_role(
    "gateway",
    GatewaySettings,
    roles.gateway,
    "Takes clients' WebSockets. Stateless: run as many as there are connections for, behind one address.",
)
_role(
    "roomworker",
    WorkerSettings,
    roles.roomworker,
    "Owns rooms. The partitions are shared fairly among all that run; at most one worker a partition.",
)
_role(
    "medianode",
    NodeSettings,
    roles.medianode,
    "Carries audio and video with mediasoup-worker. Clients must reach its media ports.",
)


@app.command(name="status")
def _status(
    redis_url: Annotated[
        str | None, typer.Option(help="The cluster's Redis.", show_default="redis://127.0.0.1:6379/0")
    ] = None,
    amqp_url: Annotated[
        str | None, typer.Option(help="Its RabbitMQ.", show_default="amqp://guest:guest@127.0.0.1:5672/")
    ] = None,
) -> None:
    """Shows the cluster's gateways, room workers and media nodes, what waits for them, and what was set aside.

    From Redis and RabbitMQ; looks for two seconds.
    """
    typed = {"redis_url": redis_url, "amqp_url": amqp_url}
    settings = options.settings(Common, {name: url for name, url in typed.items() if url})
    process.run(lambda _: status.show(settings.redis_url, settings.amqp_url))


api.add_to(app)
app.command(name="loadtest")(loadtest)


def main() -> None:
    app()
