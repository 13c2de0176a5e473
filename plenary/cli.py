"""The command line. What is typed here wins over the environment; nothing else of the settings is decided here."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from plenary import allinone, process, roles, status
from shared import log
from shared.settings import Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings

app = typer.Typer(
    help=(
        "Plenary: a horizontally scaled signaling backend for multi-party WebRTC.\n\n"
        "`plenary run` is everything in one process. In a cluster run any number of `plenary gateway`,"
        " `plenary roomworker` and `plenary medianode`, all with the same Redis and RabbitMQ.\n\n"
        "Every option can also be given in the environment, as PLENARY_ and its name: PLENARY_REDIS_URL."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

S = TypeVar("S", bound=Common)


def _option(settings: type[Common], field: str, *names: str) -> Any:
    """An option whose help and default are the setting's own."""
    info = settings.model_fields[field]
    default = info.default if info.default not in ("", None) else "none"
    return typer.Option(
        *(names or (f"--{field.replace('_', '-')}",)),
        help=info.description,
        show_default=str(default),
        envvar=None,
    )


RedisUrl = Annotated[str | None, _option(Common, "redis_url")]
AmqpUrl = Annotated[str | None, _option(Common, "amqp_url")]
MemoryRedisUrl = Annotated[str | None, _option(RunSettings, "redis_url")]
MemoryAmqpUrl = Annotated[str | None, _option(RunSettings, "amqp_url")]
Partitions = Annotated[int | None, _option(Common, "partitions")]
QueueType = Annotated[str | None, _option(Common, "queue_type")]
Name = Annotated[str | None, _option(Common, "name")]
LogLevel = Annotated[str | None, _option(Common, "log_level")]
LogFormat = Annotated[str | None, _option(Common, "log_format")]
Host = Annotated[str | None, _option(GatewaySettings, "host")]
Port = Annotated[int | None, _option(GatewaySettings, "port")]
Page = Annotated[str | None, _option(GatewaySettings, "page")]
TlsCert = Annotated[str | None, _option(GatewaySettings, "tls_cert")]
TlsKey = Annotated[str | None, _option(GatewaySettings, "tls_key")]
FrameLimit = Annotated[int | None, _option(GatewaySettings, "frame_limit")]
UnappliedLimit = Annotated[int | None, _option(GatewaySettings, "unapplied_limit")]
SendBuffer = Annotated[int | None, _option(GatewaySettings, "send_buffer")]
DrainSeconds = Annotated[float | None, _option(GatewaySettings, "drain_seconds")]
Prefetch = Annotated[int | None, _option(WorkerSettings, "prefetch")]
Engine = Annotated[str | None, _option(NodeSettings, "engine")]
EnginePath = Annotated[str | None, _option(NodeSettings, "engine_path")]
Engines = Annotated[int | None, _option(NodeSettings, "engines")]
ListenIp = Annotated[str | None, _option(NodeSettings, "listen_ip")]
AnnouncedIp = Annotated[str | None, _option(NodeSettings, "announced_ip")]
MediaPort = Annotated[int | None, _option(NodeSettings, "media_port")]
RtcMinPort = Annotated[int | None, _option(NodeSettings, "rtc_min_port")]
RtcMaxPort = Annotated[int | None, _option(NodeSettings, "rtc_max_port")]
InitialBitrate = Annotated[int | None, _option(NodeSettings, "initial_bitrate")]


@app.command()
def run(
    redis_url: MemoryRedisUrl = None,
    amqp_url: MemoryAmqpUrl = None,
    host: Host = None,
    port: Port = None,
    page: Page = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    engine: Engine = None,
    engine_path: EnginePath = None,
    engines: Engines = None,
    listen_ip: ListenIp = None,
    announced_ip: AnnouncedIp = None,
    media_port: MediaPort = None,
    partitions: Partitions = None,
    queue_type: QueueType = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Everything in one process, with a page to call each other. Needs nothing else unless URLs are given."""
    _start(RunSettings, "all", allinone.run, locals())


@app.command()
def gateway(
    host: Host = None,
    port: Port = None,
    page: Page = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    frame_limit: FrameLimit = None,
    unapplied_limit: UnappliedLimit = None,
    send_buffer: SendBuffer = None,
    drain_seconds: DrainSeconds = None,
    redis_url: RedisUrl = None,
    amqp_url: AmqpUrl = None,
    partitions: Partitions = None,
    queue_type: QueueType = None,
    name: Name = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Takes clients' WebSockets. Stateless: run as many as there are connections for, behind one address."""
    _start(GatewaySettings, "gateway", roles.gateway, locals())


@app.command()
def roomworker(
    prefetch: Prefetch = None,
    redis_url: RedisUrl = None,
    amqp_url: AmqpUrl = None,
    partitions: Partitions = None,
    queue_type: QueueType = None,
    name: Name = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Owns rooms. The partitions are shared fairly among all that run; at most one worker a partition."""
    _start(WorkerSettings, "roomworker", roles.roomworker, locals())


@app.command()
def medianode(
    engine: Engine = None,
    engine_path: EnginePath = None,
    engines: Engines = None,
    listen_ip: ListenIp = None,
    announced_ip: AnnouncedIp = None,
    media_port: MediaPort = None,
    rtc_min_port: RtcMinPort = None,
    rtc_max_port: RtcMaxPort = None,
    initial_bitrate: InitialBitrate = None,
    redis_url: RedisUrl = None,
    amqp_url: AmqpUrl = None,
    partitions: Partitions = None,
    queue_type: QueueType = None,
    name: Name = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Carries audio and video with mediasoup-worker. Clients must reach its media ports."""
    _start(NodeSettings, "medianode", roles.medianode, locals())


@app.command(name="status")
def status_(redis_url: RedisUrl = None) -> None:
    """Shows the cluster's gateways, room workers and media nodes."""
    settings = _settings(Common, {"redis_url": redis_url})
    process.run(lambda _: status.show(settings.redis_url))


def _settings(kind: type[S], typed: dict[str, Any]) -> S:
    try:
        return kind(**{field: value for field, value in typed.items() if value is not None})
    except ValidationError as invalid:
        problems = "\n".join(
            f"  --{'-'.join(str(part) for part in error['loc']).replace('_', '-')}: {error['msg']}"
            for error in invalid.errors()
        )
        raise typer.BadParameter(f"invalid settings\n{problems}") from None


def _start(
    kind: type[S],
    role: str,
    main: Callable[[S, asyncio.Event], Any],
    typed: dict[str, Any],
) -> None:
    settings = _settings(kind, typed)
    log.configure(settings.log_level, settings.log_format, role=role)
    process.run(lambda stop: main(settings, stop))


def main() -> None:
    app()
