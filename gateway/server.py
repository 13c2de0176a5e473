"""Assembles a gateway, and runs it from its registration to its closing.

`start` begins to serve, `drain` takes no new clients and sends the others elsewhere, `close` ends. Broker and Redis
belong to the caller, which connects the broker before `start` and closes both after `close`.
"""

import asyncio
import time
from functools import partial
from typing import Final

from redis.exceptions import RedisError

from gateway.api.server import Api
from gateway.bus.partition_publisher import InputPublisher
from gateway.counters import Counters
from gateway.http.connection import HttpConnection, OpenConnections
from gateway.http.listener import Listener, files_for_connections, listening_sockets
from gateway.http.site import PAGE_POLICY, Site, page_folder
from gateway.protocol.addresses import parse_networks
from gateway.protocol.admission import Admission, AdmissionLimits, Origin
from gateway.websocket.acceptor import UpgradeHandler, tls
from gateway.websocket.delivery import OutputDelivery
from gateway.websocket.hub import SWEEP_EVERY, Hub
from shared import errors
from shared.broker import Broker, Subscription
from shared.cluster.agreement import Epoch, agree_on_partitions, process_id
from shared.cluster.joining import until_redis_works
from shared.cluster.port import Cluster
from shared.cluster.redis_memory import MemoryWatch
from shared.cluster.registry import BEAT_EVERY, Membership
from shared.settings import GatewaySettings
from shared.telemetry import log

IDLE_SECONDS: Final = 1.0
"""Seconds for a request's head when all connections are taken and another client comes."""
DRAIN_STEP: Final = 0.05
REPLAY_STEP: Final = 200
"""The number of sessions that ask for a replay at a time after the notify queue was lost."""


class Gateway:
    """One gateway process, on the broker and the cluster it is given."""

    def __init__(self, settings: GatewaySettings, broker: Broker, cluster: Cluster) -> None:
        self.id = process_id("gateway", settings.name)
        self.settings = settings
        self.counters = Counters()
        self._broker = broker
        self._cluster = cluster
        self._inputs = InputPublisher(broker, self.id, settings.partitions, self.counters)
        self.hub = Hub(settings, self.id, self._inputs, self.counters)
        self._delivery = OutputDelivery(self.hub)
        self.admission = _admission(settings)
        self.http_connections = OpenConnections()
        self._site = Site(page_folder(settings.page), self.trouble, settings.page_policy or PAGE_POLICY)
        self._handler = UpgradeHandler(self.hub, self._site)
        self._membership = Membership(cluster, "gateways", self.id, {})
        self._epoch = Epoch(cluster)
        self._memory = MemoryWatch(settings.redis_trim_at, settings.redis_refuse_at)
        self._log = log.get("gateway")
        self._listener: Listener | None = None
        self.api = Api(settings, self.hub.calls, cluster, self.counters) if settings.api_key else None
        self._notify: Subscription | None = None
        self._notify_up = False
        self._notify_restored = asyncio.Event()
        self._beating = False
        self._work: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when clients can connect. Raises OSError (port), `BadCertificate`, `DifferentCluster`."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        self._log.info("gateway.listening", gateway=self.id, host=self.settings.host, port=self.port)

    async def _start(self) -> None:
        await self._site.load()
        context = tls(self.settings)
        self._notify = await self._broker.subscribe_exclusive(
            "notify",
            f"{self.id}.#",
            self._delivery.receive,
            on_lost=self._on_notify_lost,
            on_restored=self._on_notify_restored,
        )
        self._notify_up = True
        await until_redis_works(partial(agree_on_partitions, self._cluster, self.settings.partitions))
        if self.api is not None:
            await self.api.start()
        await self._beat()  # before the first session, or a room worker would take this gateway for dead
        self._work = asyncio.create_task(self._run(), name=self.id)
        self._work.add_done_callback(self._on_stopped)
        sockets = listening_sockets(self.settings.host, self.settings.port, self.settings.socket_buffer)
        self._listener = Listener(
            sockets, self._http_connection, context, self.admission, self.counters, self._make_room
        )

    def _http_connection(self, origin: Origin) -> HttpConnection:
        return HttpConnection(self._handler, origin, self.counters, self.http_connections)

    def _make_room(self) -> bool:
        """Cuts off the oldest connection without a request for `IDLE_SECONDS`; returns False if there is none."""
        oldest = next(iter(self.http_connections), None)
        if oldest is None or asyncio.get_running_loop().time() - oldest.opened_at < IDLE_SECONDS:
            return False
        self.counters.count_refused("timeout")
        oldest.abort()
        return True

    @property
    def port(self) -> int:
        """The port listened on, which the kernel chose if the settings say 0."""
        assert self._listener is not None
        return self._listener.port

    async def wait(self) -> None:
        """Waits for ever; raises the failure that made the gateway stop working."""
        assert self._work is not None
        await asyncio.shield(self._work)

    async def drain(self) -> None:
        """Closes the connections a few at a time and waits until that is applied, for `drain_seconds` at most."""
        self.hub.draining = True
        self._stop_listening()
        self._log.info("gateway.draining", connections=len(self.hub.connections))
        try:
            async with asyncio.timeout(self.settings.drain_seconds):
                await self._close_gradually()
                await self.hub.empty.wait()
        except TimeoutError:
            self._log.warning("gateway.drain_timed_out", connections=len(self.hub.connections))

    async def _close_gradually(self) -> None:
        """Closes the connections over half the time, so that the clients do not reach other gateways all at once."""
        connections = list(self.hub.connections.values())
        steps = max(1.0, self.settings.drain_seconds / 2 / DRAIN_STEP)
        pace = max(20, -int(-len(connections) // steps))
        for start in range(0, len(connections), pace):
            if start:
                await asyncio.sleep(DRAIN_STEP)
            for connection in connections[start : start + pace]:
                connection.close_as(errors.DRAINING)

    async def close(self) -> None:
        """Cuts off the connections that are left; room workers notice the end of their sessions."""
        self._stop_listening()
        for connection in list(self.hub.connections.values()):
            connection.abort()
        self.hub.closing_sockets.abort()
        for opened in list(self.http_connections):
            opened.abort()
        if self.api is not None:
            await self.api.close()
        if self._notify is not None:
            await self._notify.close()
            self._notify = None
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])
        try:
            await self._membership.leave()
        except (RedisError, OSError) as failed:
            self._log.warning("gateway.still_registered", error=repr(failed))

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()

    # --- work -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as work:
            work.create_task(self._inputs.run())
            work.create_task(self._sweep())
            work.create_task(self._beats())
            work.create_task(self._recover())
            work.create_task(self._site.watch())
            if self.api is not None:
                work.create_task(self.api.run())

    def _on_stopped(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and work.exception() is not None:
            self._log.error("gateway.failed", exc_info=work.exception())

    async def _sweep(self) -> None:
        took = 0.0
        while True:
            await asyncio.sleep(max(0.0, SWEEP_EVERY - took))
            began = time.monotonic()
            await self.hub.sweep()
            took = time.monotonic() - began

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY)
            await self._beat()

    async def _beat(self) -> None:
        self._membership.info = {
            "connections": len(self.hub.connections),
            "draining": self.hub.draining,
            "frames_in": self.counters.frames_in_total,
            "frames_out": self.counters.frames_out_total,
            "published": self.counters.batches_out_total,
        }
        try:
            await self._membership.beat()
            if await self._epoch.changed():
                self._log.error("redis.emptied", connections=len(self.hub.connections))
                self.hub.end_all_sessions()
            self._memory.update(await self._cluster.memory())
        except (RedisError, OSError):  # logged by the cluster's client already
            self._beating = False
        else:
            self._beating = True
        self.hub.redis_answers = self._beating
        self.hub.redis_is_full = self._memory.is_full

    # --- losses of the broker -------------------------------------------------------------------------------

    def _on_notify_lost(self) -> None:
        self._notify_up = False

    def _on_notify_restored(self) -> None:
        self._notify_up = True
        self._notify_restored.set()

    async def _recover(self) -> None:
        """Publishes again what the broker may have lost, and asks for outputs lost with the old notify queue."""
        while True:
            await self._notify_restored.wait()
            self._notify_restored.clear()
            self._inputs.rewind()
            connections = list(self.hub.connections.values())
            for start in range(0, len(connections), REPLAY_STEP):
                for connection in connections[start : start + REPLAY_STEP]:
                    self.hub.perform(connection, connection.session.request_replay())
                await asyncio.sleep(DRAIN_STEP)

    def trouble(self) -> str:
        """Returns why this gateway is not ready for clients; empty if it is."""
        if self.hub.draining:
            return "draining"
        if self._work is None or self._work.done():
            return "stopped"
        if trouble := self._broker.trouble:
            return trouble
        if not self._notify_up:
            return "the queue of outgoing messages is being restored"
        if not self._beating:
            return "Redis does not answer"
        if self.hub.overloaded:
            return "too many messages are not applied yet"
        return self._memory.trouble


def _admission(settings: GatewaySettings) -> Admission:
    limits = AdmissionLimits(
        settings.connections,
        files_for_connections(),
        settings.connections_per_ip,
        settings.rooms_per_ip,
        settings.connection_rate,
        settings.connection_rate_per_ip,
    )
    return Admission(limits, parse_networks(settings.trusted_proxies), time.monotonic)
