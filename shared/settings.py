"""Defines every setting of every role, with its default, its `PLENARY_…` variable and its command line option.

The environment is read once, by the command that starts a role; what was typed on the command line wins. An empty
default means what the description says of it. Secrets may stand in files (`shared.secrets`).
"""

import ipaddress
import re
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from redis.asyncio import ConnectionPool

from shared.broker import addresses
from shared.secrets import SecretFiles


def _redis_url(url: str) -> str:
    """Checks the URL; the error never repeats a part of the value, which may hold a password."""
    if url and (why := _fault_of_redis_url(url)):
        raise ValueError(f"expected a URL like redis://HOST:6379/0 ({why})")
    return url


def _fault_of_redis_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        return "it begins with redis://, rediss:// or unix://"
    if parts.scheme != "unix" and not parts.hostname:
        return "there is no host"
    try:
        _ = parts.port
    except ValueError:
        return "the port is not a number from 1 to 65535; characters like # / ? @ in a password are percent-encoded"
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        return "what follows the host is the number of a database, like /0"
    try:
        pool = ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)  # reads the options, and does not connect
    except (ValueError, TypeError) as wrong:
        return f"an option cannot be used: {wrong}"
    return ""


def _amqp_url(url: str) -> str:
    """Checks the URL; the error never repeats the value, which may hold a password."""
    if url:
        try:
            addresses.parse(url)
        except ValueError as wrong:
            raise ValueError(f"expected a URL like amqp://USER:PASSWORD@HOST:5672/ ({wrong})") from None
    return url


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("expected an IP address, not a name, and IPv6 without brackets") from None
    return text


def _reachable_address(text: str) -> str:
    """Checks an address that clients are told; empty: none."""
    if text:
        address = ipaddress.ip_address(_address(text))
        if address.is_unspecified or address.is_multicast:
            raise ValueError(f"clients cannot send to {text}: give the address at which they reach this machine")
    return text


def _host(text: str) -> str:
    """Takes the brackets of an IPv6 address away, which belong to URLs only."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _networks(text: str) -> str:
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            ipaddress.ip_network(part)
        except ValueError as wrong:
            raise ValueError(f"expected networks like 10.0.0.0/8, separated by commas ({wrong})") from None
    return text


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
OptionalPort: TypeAlias = Annotated[Port | None, BeforeValidator(_none_if_empty)]
RedisUrl: TypeAlias = Annotated[str, AfterValidator(_redis_url)]
AmqpUrl: TypeAlias = Annotated[str, AfterValidator(_amqp_url)]
Networks: TypeAlias = Annotated[str, AfterValidator(_networks)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
ReachableAddress: TypeAlias = Annotated[str, AfterValidator(_reachable_address)]
Host: TypeAlias = Annotated[str, AfterValidator(_host)]
SECRETS: Final = ("redis_url", "amqp_url", "api_key")
"""The settings whose values may be in files that PLENARY_…_FILE name (`shared.secrets`)."""


class Common(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PLENARY_", extra="ignore", frozen=True)

    redis_url: RedisUrl = Field("redis://127.0.0.1:6379/0", description="Where room state is kept.")
    amqp_url: AmqpUrl = Field(
        "amqp://guest:guest@127.0.0.1:5672/",
        description="RabbitMQ. Several servers: amqp://USER:PASSWORD@HOST1,HOST2:5673/VHOST, or URLs separated by "
        "commas. TLS: amqps://…?cafile=…&certfile=…&keyfile=…&verify=0, all optional.",
    )
    redis_trim_at: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of Redis' maxmemory from which on less is kept for repetition.",
    )
    redis_refuse_at: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Share of Redis' maxmemory from which on nothing may grow: no new clients, 503, large rooms end.",
    )
    grace_seconds: float = Field(
        15.0, gt=0, le=3600, description="How long a resumable session may be without a connection."
    )
    partitions: int = Field(32, ge=1, le=1024, description="Partitions of rooms; fixed once a cluster runs.")
    queue_type: Literal["classic", "quorum"] = Field("classic", description="Kind of the partition queues.")
    name: str = Field("", description="This process's name in logs and status; by default role, host and pid.")
    metrics_port: OptionalPort = Field(
        None, description="Port of metrics and health checks; by default none, 0 picks a free one."
    )
    metrics_host: Host = Field("127.0.0.1", description="Address of metrics and health checks: an internal one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else json.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from, the first wins: typed options, files of secrets, the environment."""
        return init_settings, SecretFiles(settings_cls, SECRETS), env_settings

    @model_validator(mode="after")
    def _trims_before_it_refuses(self) -> Self:
        if self.redis_trim_at > self.redis_refuse_at:
            raise ValueError("--redis-trim-at is above --redis-refuse-at")
        return self


class GatewaySettings(Common):
    host: Host = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a public server
    port: Port = Field(8080, description="Port of WebSocket, page and health checks; 0 picks a free one.")
    page: str = Field("", description="Folder of the call page; by default the built one. `none`: no page.")
    tls_cert: str = Field("", description="Certificate chain (PEM); with --tls-key serves https and wss.")
    tls_key: str = Field("", description="Private key (PEM).")
    page_policy: str = Field("", description="Content-Security-Policy of the page; by default the built one's.")
    connections: int = Field(
        0, ge=0, description="Connections at a time; 0: as many as files may be opened, less 128."
    )
    connections_per_ip: int = Field(
        0, ge=0, description="Connections of one address at a time, an IPv6 /64 counting as one; 0: no limit."
    )
    rooms_per_ip: int = Field(0, ge=0, description="Rooms of one address at a time on this gateway; 0: no limit.")
    connection_rate: float = Field(
        1000, ge=0, description="New connections per second, four times as many at once; 0: no limit."
    )
    connection_rate_per_ip: float = Field(
        0, ge=0, description="New connections per second of one address, four times as many at once; 0: no limit."
    )
    trusted_proxies: Networks = Field(
        "",
        description="Networks of proxies whose X-Forwarded-For or PROXY protocol names the client, as"
        " 10.0.0.0/8,fd00::/8. By default none: the socket's address counts.",
    )
    api_key: str = Field("", description="Key of the server API; without one the API is off.")
    api_host: Host = Field("127.0.0.1", description="Address of the server API: an internal one.")
    api_port: Port = Field(8081, description="Port of the server API; 0 picks a free one.")
    message_rate: float = Field(50, ge=0, description="Messages per second and connection; 0: no limit.")
    message_burst: int = Field(200, ge=1, description="Messages of a connection at once, beyond the rate.")
    byte_rate: int = Field(
        1024 * 1024,
        ge=0,
        description="Bytes per second that are read of a connection, and four times as many at once; 0: no limit.",
    )
    frame_limit: int = Field(256 * 1024, ge=1024, le=1024 * 1024, description="Largest frame accepted, bytes.")
    unapplied_limit: int = Field(256, ge=1, description="Inputs of one connection in flight.")
    send_buffer: int = Field(1024 * 1024, ge=4096, description="Bytes unsent to a client before it is dropped.")
    unsent_limit: int = Field(
        128 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes unsent to all clients of a gateway; above it those with the most are dropped.",
    )
    unfinished_limit: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        description="Bytes of messages that have not ended, of all clients of a gateway; above it the largest are"
        " given up.",
    )
    socket_buffer: int = Field(
        64 * 1024,
        ge=4096,
        description="Bytes that the kernel keeps of each connection and direction; Linux counts twice as many.",
    )
    drain_seconds: float = Field(10, ge=0, description="Longest wait for clients to leave on SIGTERM.")

    @model_validator(mode="after")
    def _tls_is_a_pair(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key belong together: give both, or neither")
        return self


class WorkerSettings(Common):
    max_peers: int = Field(500, ge=1, description="Peers of a room; a room made by the API may say otherwise.")
    max_transports: int = Field(16, ge=1, description="Transports of a peer; likewise.")
    max_producers: int = Field(32, ge=1, description="Producers of a peer; likewise.")
    max_incoming_bitrate: int = Field(0, ge=0, description="Bits per second that one transport may bring; 0: any.")
    app_data_limit: int = Field(16 * 1024, ge=0, description="Largest appData, bytes.")
    message_limit: int = Field(64 * 1024, ge=0, description="Largest message between peers, bytes.")
    peer_bytes: int = Field(
        2 * 1024 * 1024, ge=16 * 1024, description="Bytes that one peer's objects may take, as counted."
    )
    room_bytes: int = Field(
        128 * 1024 * 1024,
        ge=64 * 1024,
        description="Bytes that a room may take, as counted; a room that takes more in Redis is not loaded.",
    )
    worker_bytes: int = Field(
        512 * 1024 * 1024, ge=1024 * 1024, description="Bytes that all rooms of a process may take, as counted."
    )
    peer_fan_out: int = Field(
        4 * 1024 * 1024,
        ge=0,
        description="Bytes a second that one peer's messages may cause to be sent, times receivers; 0: any number.",
    )
    room_fan_out: int = Field(
        32 * 1024 * 1024, ge=0, description="The same for messages between all peers of a room."
    )
    room_stream_bytes: int = Field(
        64 * 1024 * 1024,
        ge=0,
        description="Bytes of messages between peers that a room may send in 30 s, for which Redis keeps them; 0: any"
        " number.",
    )
    replay_limit: int = Field(
        4 * 1024 * 1024,
        ge=64 * 1024,
        description="Bytes of missed messages up to which a session is sent them again; beyond it has to start anew.",
    )
    prefetch: int = Field(64, ge=1, description="Deliveries of one partition in work at once.")


class NodeSettings(Common):
    engine: Literal["mediasoup", "null"] = Field(
        "mediasoup", description="null accepts everything and connects nothing: for load tests of signaling."
    )
    engine_path: str = Field("", description="The mediasoup-worker binary; by default found or built.")
    engines: int = Field(
        0, ge=0, le=256, description="Engine processes; 0: one per core. A single one has a spare at times."
    )
    listen_ip: Address = Field("0.0.0.0", description="Address the media ports are bound to.")  # noqa: S104
    announced_ip: ReachableAddress = Field(
        "", description="Address told to clients; by default the machine's first that is not loopback."
    )
    media_port: Port = Field(
        0,
        description="First media port (UDP and TCP), one per engine, the next one for the spare of a single engine;"
        " 0: any of the range --rtc-min-port begins.",
    )
    rtc_min_port: Port = Field(40000, description="First port an engine may take if --media-port is 0.")
    rtc_max_port: Port = Field(49999, description="The last one.")
    initial_bitrate: int = Field(1_000_000, ge=0, description="First estimate per transport, bits per second.")

    @model_validator(mode="after")
    def _ports_are_a_range(self) -> Self:
        if self.rtc_min_port > self.rtc_max_port:
            raise ValueError("--rtc-min-port is above --rtc-max-port")
        return self


class RunSettings(GatewaySettings, WorkerSettings, NodeSettings):
    """The settings of all roles in one process; with empty URLs broker and Redis are in memory."""

    redis_url: RedisUrl = Field("", description="Real Redis; by default in memory.")
    amqp_url: AmqpUrl = Field("", description="Real RabbitMQ; by default in memory.")

    @model_validator(mode="after")
    def _servers_are_a_pair(self) -> Self:
        if bool(self.redis_url) != bool(self.amqp_url):
            raise ValueError("--redis-url and --amqp-url belong together: give both, or neither")
        return self
