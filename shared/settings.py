"""Every setting of every role, with its default and its `PLENARY_…` environment variable.

The environment is read once, by the command that starts a role; what was typed on the command line wins.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class Common(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PLENARY_", extra="ignore", frozen=True)

    name: str = Field("", description="This process's name in logs and status; by default role, host and pid.")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Where room state is kept.")
    amqp_url: str = Field("amqp://guest:guest@127.0.0.1:5672/", description="RabbitMQ.")
    partitions: int = Field(32, ge=1, le=1024, description="Partitions of rooms; fixed once a cluster runs.")
    queue_type: Literal["classic", "quorum"] = Field("classic", description="Kind of the partition queues.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else json.")


class GatewaySettings(Common):
    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - a public server
    port: Port = Field(8080, description="Port of WebSocket, page and health checks; 0 picks a free one.")
    page: str = Field("", description="Folder of the demo page; empty: the built one, `none`: no page.")
    tls_cert: str = Field("", description="Certificate chain (PEM); with tls_key serves https and wss.")
    tls_key: str = Field("", description="Private key (PEM).")
    frame_limit: int = Field(256 * 1024, ge=1024, le=1024 * 1024, description="Largest frame accepted, bytes.")
    unapplied_limit: int = Field(256, ge=1, description="Inputs of one connection in flight.")
    send_buffer: int = Field(1024 * 1024, ge=4096, description="Bytes unsent to a client before it is dropped.")
    drain_seconds: float = Field(10.0, ge=0, description="Longest wait for clients to leave on SIGTERM.")


class WorkerSettings(Common):
    prefetch: int = Field(64, ge=1, description="Deliveries of one partition in work at once.")


class NodeSettings(Common):
    engine: Literal["mediasoup", "null"] = Field(
        "mediasoup", description="null accepts everything and connects nothing: for load tests of signaling."
    )
    engine_path: str = Field("", description="The mediasoup-worker binary; empty: found or built.")
    engines: int = Field(0, ge=0, le=256, description="Engine processes; 0: one per core.")
    listen_ip: str = Field("0.0.0.0", description="Address the media ports are bound to.")  # noqa: S104
    announced_ip: str = Field("", description="Address told to clients; empty: first non-loopback address.")
    media_port: Port = Field(0, description="First media port (UDP and TCP), one per engine; 0: any free ones.")
    rtc_min_port: Port = Field(40000, description="Port range of transports outside the shared port.")
    rtc_max_port: Port = Field(49999, description="Its end.")
    initial_bitrate: int = Field(1_000_000, ge=0, description="First estimate per transport, bits per second.")


class RunSettings(GatewaySettings, WorkerSettings, NodeSettings):
    """All roles in one process. Empty URLs: in-memory broker and Redis."""

    redis_url: str = Field("", description="Real Redis; empty: in memory.")
    amqp_url: str = Field("", description="Real RabbitMQ; empty: in memory.")
