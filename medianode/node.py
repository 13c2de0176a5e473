"""The media node: takes room workers' commands, publishes results and events, and beats in the registry.

Commands arrive in batches and are carried out in their order, without a task each: engines answer by callback.
Results and events leave through the `Outbox`.
"""

import asyncio
import itertools
import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import cast

import msgspec
from redis.exceptions import RedisError

from medianode.address import announced_ip
from medianode.command_queue import CommandQueue
from medianode.counters import Counters
from medianode.delayed_placements import DelayedPlacements
from medianode.engine_pool import EnginePool
from medianode.engines.mediasoup.engine import MediasoupEngine, MediasoupSettings
from medianode.engines.mediasoup.flatbuffers_codec import load_schema
from medianode.engines.null import NullEngine
from medianode.engines.port import Engine, EngineFactory
from medianode.object_registry import ObjectRegistry
from medianode.outbox import Outbox
from medianode.placement import ObjectCounts
from medianode.toolchain.engine_folder import schema_folder
from medianode.toolchain.install import ensure_engine
from shared.broker import Broker, Subscription
from shared.cluster.agreement import Epoch, process_id
from shared.cluster.port import Cluster, Info
from shared.cluster.registry import NODE_BEAT_EVERY, Membership
from shared.protocol import media
from shared.protocol.media import Answer, AnyEvent, Failed
from shared.settings import NodeSettings
from shared.telemetry import log

COMMANDS_LIMIT = 20_000
"""Commands that may wait; a request above that is refused, an order never."""
TOO_MUCH = "the media node has too much to do"
REPORT_EVERY_BEATS = 10
"""Heartbeats from one report of the node's routers to the next."""
FINAL_COMMIT = 2**53
"""A commit number higher than any of a room."""


async def engine_factory(settings: NodeSettings) -> EngineFactory:
    """Returns what makes engines as the settings say. Builds the engine if it is missing, which takes minutes.

    Raises `medianode.toolchain.errors.EngineUnavailable` if there is no engine and none can be built.
    """
    announced = announced_ip(settings.announced_ip, settings.listen_ip)
    if settings.engine == "null":
        return lambda _: NullEngine(announced)
    binary = await asyncio.to_thread(ensure_engine, settings.engine_path)
    schema = load_schema(schema_folder(binary))

    def make(index: int) -> Engine:
        return MediasoupEngine(
            MediasoupSettings(
                binary=binary,
                schema=schema,
                listen_ip=settings.listen_ip,
                announced_ip=announced,
                port=settings.media_port + index if settings.media_port else 0,
                rtc_min_port=settings.rtc_min_port,
                rtc_max_port=settings.rtc_max_port,
                initial_bitrate=settings.initial_bitrate,
            )
        )

    return make


class MediaNode:
    """One media node on a connected broker: `start`, then `wait` or `close`."""

    def __init__(self, settings: NodeSettings, broker: Broker, cluster: Cluster, make: EngineFactory) -> None:
        self._settings = settings
        self._broker = broker
        self.id = process_id("medianode", settings.name)
        self._announced = announced_ip(settings.announced_ip, settings.listen_ip)
        self._log = log.get("node").bind(node=self.id)
        self.counts = Counters()
        self._objects = ObjectRegistry()
        self._commands = CommandQueue(self._carry_out, self._command_failed)
        self._delayed = DelayedPlacements(self._commands.put)
        self._outbox = Outbox(self.id, broker, self.counts)
        self._membership = Membership(cluster, "nodes", self.id, {})
        self._epoch = Epoch(cluster)
        self._pool = EnginePool(
            make,
            self.size,
            on_event=self._event,
            on_started=self._engine_started,
            on_ended=self._engine_ended,
            in_use=self._objects.is_in_use,
        )
        self._seen: set[media.EngineId] = set()
        """The routers that were here at the last check that found Redis not emptied."""
        self._subscription: Subscription | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stop = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._redis_answers = True

    @property
    def size(self) -> int:
        """The number of engines that should run, without a spare one."""
        if self._settings.engine == "null":
            return 1
        return self._settings.engines or len(os.sched_getaffinity(0))

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the node takes commands and is in the registry (or Redis is away).

        Raises `EngineFailed` if an engine does not start, e.g. because its port is taken.
        """
        ready = asyncio.Event()
        self._main = asyncio.create_task(self._run(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._main, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not ready.is_set():
            await self._main
        self._log.info("node.started", engine=self._settings.engine, address=self._announced)

    async def wait(self) -> None:
        """Returns when the node is closed or has failed; `close` raises what made it fail."""
        assert self._main
        await asyncio.wait({self._main})

    def trouble(self) -> str:
        """Returns why no room should be placed here now, or "" if rooms can be."""
        if self._stop.is_set():
            return "leaving"
        if self._main is None or self._main.done():
            return "stopped"
        if not self._objects.engines:
            return "no media engine runs"
        if trouble := self._broker.trouble:
            return trouble
        if not self._redis_answers:
            return "Redis does not answer"
        return ""

    @property
    def engines(self) -> dict[int, tuple[Engine, ObjectCounts]]:
        """The engines that run, by index, with the numbers of their objects."""
        loads = self._objects.by_engine
        return {index: (engine, loads[engine]) for index, engine in self._pool.engines.items() if engine in loads}

    @property
    def engines_wanted(self) -> int:
        """The number of engines that should run."""
        return self._pool.wanted

    @property
    def suspects(self) -> int:
        """Number of routers here whose rooms lately had engine deaths."""
        return self._objects.suspects

    @property
    def events(self) -> int:
        """Number of events sent to rooms so far."""
        return self._outbox.events

    @property
    def engine_deaths(self) -> int:
        """Number of engines that ended by themselves so far."""
        return self._pool.deaths

    async def close(self) -> None:
        """Leaves the registry, tells the rooms that their routers are closed, and ends the engines."""
        self._stop.set()
        if self._main:
            await self._main

    async def _run(self, ready: asyncio.Event) -> None:
        try:
            deaths = await self._pool.start()
            async with asyncio.TaskGroup() as self._group:
                keepers = [
                    self._group.create_task(self._pool.supervise(index, death)) for index, death in enumerate(deaths)
                ]
                keepers.append(self._group.create_task(self._pool.supervise_spare()))
                self._subscription = await self._broker.subscribe_exclusive(
                    "media",
                    self.id,
                    self._received,
                    on_lost=partial(self._log.warning, "queue.lost"),
                    on_restored=self._queue_restored,
                )
                beating = self._group.create_task(self._beat_regularly(ready))
                await self._stop.wait()
                for task in (beating, *keepers):
                    task.cancel()
                await self._leave()
        finally:
            self._group = None
            await self._pool.close()

    async def _leave(self) -> None:
        """Leaves the registry first, so that no room whose router closes is placed here again."""
        try:
            await self._membership.leave()
        except (RedisError, OSError) as error:
            self._log.warning("registry.not_left", error=repr(error))
        if self._subscription:
            await self._subscription.close()
        self._commands.clear()
        self._delayed.clear()
        for router in self._objects.routers():
            self._outbox.send_event(router, media.RouterClosed(router.id, "the media node shuts down"))
        await self._pool.close()
        await self._outbox.drain()

    # --- commands ---------------------------------------------------------------------------------------------

    def _received(self, body: bytes) -> None:
        try:
            commands = media.decode_commands(body)
        except msgspec.MsgspecError as error:
            self._log.error("commands.unreadable", error=str(error))
            return
        self.counts.commands_in.observe(len(commands.commands))
        for command in commands.commands:
            waiting = len(self._commands) + len(self._delayed)
            if waiting >= COMMANDS_LIMIT and isinstance(command.body, media.Request):
                self._result_callback(commands.reply_to, command)(Failed(503, TOO_MUCH))
            else:
                self._commands.put(commands.reply_to, command)

    def _carry_out(self, reply_to: str, command: media.Command) -> None:
        if isinstance(command.body, media.Order):
            self.counts.ordered(type(command.body))
            self._objects.order(command.body)
        elif not self._is_delayed(reply_to, command):
            self._objects.request(command.body, self._result_callback(reply_to, command))

    def _is_delayed(self, reply_to: str, command: media.Command) -> bool:
        """Delays the placement of a suspect room for a moment, while there is only one engine to place it on."""
        request = command.body
        if not isinstance(request, media.CreateTransport) or request.router.engine_deaths == 0:
            return False
        if self._objects.has(request.router):
            return False
        self._pool.want_spare()
        if self._objects.engines > 1 or self._pool.wanted == 1:
            return False
        return self._delayed.keep(reply_to, command, request.router.id)

    def _command_failed(self, command: media.Command, error: Exception) -> None:
        """Makes the rooms send their commands again, as after the loss of the node's queue."""
        self._log.error("command.failed", command=type(command.body).__name__, exc_info=error)
        self._report(lost=True)

    def _result_callback(self, reply_to: str, command: media.Command) -> Callable[[media.AnyResult], None]:
        n, kind, began = command.n, cast("type[media.Request]", type(command.body)), perf_counter()

        def done(result: media.AnyResult) -> None:
            self.counts.answered(kind, result, perf_counter() - began)
            if self._group is None:
                return  # the node is closed: pending requests have failed, and no result can be sent
            self._outbox.send_result(reply_to, Answer(n, result))

        return done

    # --- events -----------------------------------------------------------------------------------------------

    def _event(self, event: AnyEvent) -> None:
        router = self._objects.router_of(event)
        if router:
            self._outbox.send_event(router, event)

    def _engine_started(self, engine: Engine) -> None:
        self._objects.add_engine(engine, spare=engine is self._pool.spare)
        if self._objects.engines > 1:
            self._delayed.release()

    def _engine_ended(self, engine: Engine, reason: str) -> None:
        """Tells the rooms how many others may have ended the engine as well as they."""
        others = self._objects.other_suspects(engine)
        if others:
            self._pool.want_spare()
        for router in self._objects.remove_engine(engine, reason):
            event = media.RouterClosed(router.id, reason, engine_died=True, other_suspects=others[router.id])
            self._outbox.send_event(router, event)

    # --- reports ----------------------------------------------------------------------------------------------

    def _queue_restored(self) -> None:
        self._log.info("queue.restored")
        self._report(lost=True)

    def _report(self, *, lost: bool = False) -> None:
        self._outbox.report(self._objects.routers(), lost=lost)

    # --- heartbeat --------------------------------------------------------------------------------------------

    async def _beat_regularly(self, ready: asyncio.Event) -> None:
        for beat in itertools.count(1):
            if beat % REPORT_EVERY_BEATS == 0:
                self._report()
            self._membership.info = self.info()
            try:
                await self._membership.beat()
                await self._check_epoch()
            except (RedisError, OSError):  # `Cluster` has logged the failure
                self._redis_answers = False
            else:
                self._redis_answers = True
            ready.set()
            await asyncio.sleep(NODE_BEAT_EVERY)

    async def _check_epoch(self) -> None:
        here = {router.id for router in self._objects.routers()}
        if await self._epoch.changed():
            self._close_routers_of_lost_rooms()
        self._seen = here

    def _close_routers_of_lost_rooms(self) -> None:
        """Closes the routers of rooms that Redis has lost: no room worker knows them any more (DELIVERY C7).

        A router made since the last check may belong to a newer room; if not, the next report shows that.
        """
        routers = [router for router in self._objects.routers() if router.id in self._seen]
        self._log.error("redis.emptied", routers=len(routers))
        for router in routers:
            self._objects.order(media.Close(object=router.id, v=FINAL_COMMIT, kind="router"))

    def info(self) -> Info:
        """Returns this node's entry in the registry; placement compares `load`, the objects per core in use."""
        counts = self._objects.counts()
        return {
            "engine": self._settings.engine,
            "engines": self._objects.engines,
            "announced_ip": self._announced,
            "routers": counts.routers,
            "transports": counts.transports,
            "producers": counts.producers,
            "consumers": counts.consumers,
            "paused": counts.paused,
            "load": counts.load / max(1, min(self._objects.engines, self.size)),
        }
