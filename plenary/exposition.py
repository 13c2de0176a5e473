"""The internal HTTP port of a process: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever runs it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from plenary.process import CannotStart
from plenary.process_metrics import ProcessMetrics, RedisLink
from shared.broker import Broker
from shared.settings import Common
from shared.telemetry import log
from shared.telemetry.metrics import Described, Metrics, Trouble, gauge

SHUTDOWN_SECONDS: Final = 1.0

READY = gauge("ready", "1 while the role does its work, 0 while /readyz says why not.", "role")

logger = log.get("metrics")


class Exposition(Collector):
    """What this process exposes. `troubles`: what keeps each role from its work, asked anew each time."""

    described: tuple[Described, ...] = (READY, *ProcessMetrics.described)

    def __init__(self, partitions: int) -> None:
        self.process = ProcessMetrics(partitions)
        self.troubles: dict[str, Trouble] = {}
        self._roles: list[Metrics] = []
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)
        self._runner: web.AppRunner | None = None

    def starting(self, role: str) -> Callable[[Broker, RedisLink | None], None]:
        """The role's links, told to what this returns, are watched, and say why it is not ready until `serves`."""

        def watch(broker: Broker, redis: RedisLink | None) -> None:
            self.process.watch(broker, redis)
            self.troubles[role] = partial(_missing, broker, redis)

        return watch

    def serves(self, role: str, trouble: Trouble, metrics: Metrics) -> None:
        self.troubles[role] = trouble
        self._roles.append(metrics)

    def collect(self) -> Iterable[Metric]:
        yield READY.by({role: not trouble() for role, trouble in self.troubles.items()})
        yield from self.process.collect()
        for role in self._roles:
            yield from role.collect()

    def trouble(self) -> str:
        """Of all roles, with their names; empty if there is none."""
        found = ((role, trouble()) for role, trouble in self.troubles.items())
        return "; ".join(f"{role}: {text}" for role, text in found if text)

    # --- HTTP -------------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> None:
        """Raises `CannotStart`."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, handle_signals=False)
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
        self.process.start()
        logger.info("metrics.listening", host=host, port=self.port)

    @property
    def port(self) -> int:
        """The port listened on, also when the settings left it open."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        self.process.stop()
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


def _missing(broker: Broker, redis: RedisLink | None) -> str:
    if redis is not None and not redis.connections:
        return "Redis has not answered yet"
    return "starting" if broker.connected else "no connection to the message broker yet"


@asynccontextmanager
async def exposition(settings: Common, *roles: str) -> AsyncIterator[Exposition]:
    """For a process with these roles, from before they start until they have ended. Raises `CannotStart`."""
    shown = Exposition(settings.partitions)
    shown.troubles.update({role: lambda: "starting" for role in roles})
    if settings.metrics_port is not None:
        await shown.listen(settings.metrics_host, settings.metrics_port)
    try:
        yield shown
    finally:
        await shown.close()
