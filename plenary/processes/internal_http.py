"""The internal HTTP server of a process: `/metrics` for Prometheus, `/healthz` and `/readyz` for health checks."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from plenary.processes.event_loop import CannotStart
from plenary.processes.process_metrics import ProcessMetrics, RedisConnectionCounter
from shared.aio.http_connections import BoundedConnections
from shared.broker import Broker
from shared.settings import Common
from shared.telemetry import log
from shared.telemetry.http_log import SERVER_LOGGER
from shared.telemetry.metrics import MetricDescription, Metrics, Trouble, gauge

SHUTDOWN_SECONDS: Final = 1.0
CONNECTIONS_LIMIT: Final = 256
METHODS: Final = "GET, HEAD, OPTIONS"

READY = gauge("ready", "1 while the role does its work, 0 while /readyz says why not.", "role")

logger = log.get("metrics")


class InternalServer(Collector):
    """Serves the metrics, liveness and readiness of a process with any number of roles.

    `troubles` maps each role to a function that returns what keeps the role from its work, or "". A request for
    readiness or metrics calls these functions each time.
    """

    described: tuple[MetricDescription, ...] = (READY, *ProcessMetrics.described)

    def __init__(self, partitions: int) -> None:
        self.process = ProcessMetrics(partitions)
        self.troubles: dict[str, Trouble] = {}
        self._roles: list[Metrics] = []
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)
        self._runner: web.AppRunner | None = None
        self._connections = BoundedConnections(CONNECTIONS_LIMIT)

    def watcher(self, role: str) -> Callable[[Broker, RedisConnectionCounter | None], None]:
        """Returns a function that takes the role's connections; until `add_role` they explain why it is not ready."""

        def watch(broker: Broker, redis: RedisConnectionCounter | None) -> None:
            self.process.watch(broker, redis)
            self.troubles[role] = partial(_missing, broker, redis)

        return watch

    def add_role(self, role: str, trouble: Trouble, metrics: Metrics) -> None:
        """Exposes a role's metrics. The role is ready from now on whenever `trouble` returns ""."""
        self.troubles[role] = trouble
        self._roles.append(metrics)

    def collect(self) -> Iterable[Metric]:
        yield READY.with_values({role: not trouble() for role, trouble in self.troubles.items()})
        yield from self.process.collect()
        for role in self._roles:
            yield from role.collect()

    def trouble(self) -> str:
        """Returns what keeps the roles from their work, each with its name; empty if nothing does."""
        found = ((role, trouble()) for role, trouble in self.troubles.items())
        return "; ".join(f"{role}: {text}" for role, text in found if text)

    # --- HTTP -------------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> None:
        """Starts the server. Raises `CannotStart` if the address cannot be listened on."""
        app = web.Application(middlewares=[self._connections.note, _answer_options])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(
            app, access_log=None, logger=SERVER_LOGGER, shutdown_timeout=SHUTDOWN_SECONDS, handle_signals=False
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as failed:
            await self.close()
            why = os.strerror(failed.errno) if failed.errno and failed.errno > 0 else failed.strerror
            raise CannotStart(
                f"cannot serve metrics at {host}:{port}: {why}. Another port is given by "
                "--metrics-port (PLENARY_METRICS_PORT; 0: a free one), an address of this machine by --metrics-host"
            ) from None
        assert self._runner.server is not None
        self._connections.start(self._runner.server)
        self.process.start()
        logger.info("metrics.listening", host=host, port=self.port)

    @property
    def port(self) -> int:
        """The port listened on; the system chose it if the settings say 0."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        self.process.stop()
        self._connections.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        await asyncio.gather(*(role.refresh() for role in self._roles))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if trouble := self.trouble():
            return web.Response(status=503, text=f"not ready: {trouble}\n")
        return web.Response(text="ready\n")


@web.middleware
async def _answer_options(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers OPTIONS, by which some load balancers check health."""
    if request.method == "OPTIONS":
        return web.Response(status=204, headers={"Allow": METHODS})
    return await handler(request)


def _missing(broker: Broker, redis: RedisConnectionCounter | None) -> str:
    if redis is not None and not redis.connections:
        return "Redis has not answered yet"
    return "starting" if broker.connected else "no connection to the message broker yet"


@asynccontextmanager
async def internal_server(settings: Common, *roles: str) -> AsyncIterator[InternalServer]:
    """Yields the server of a process with these roles, listening if the settings name a port. Raises `CannotStart`.

    Open it before the roles start, so that `/readyz` can say what they wait for, and until they have ended.
    """
    server = InternalServer(settings.partitions)
    server.troubles.update({role: lambda: "starting" for role in roles})
    if settings.metrics_port is not None:
        await server.listen(settings.metrics_host, settings.metrics_port)
    try:
        yield server
    finally:
        await server.close()
