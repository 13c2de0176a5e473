"""Observes the media nodes: chooses one for a room, finds those that died, and compares what each says it has."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, Protocol

from redis.exceptions import RedisError

from roomworker.partitions.partition import Partition
from roomworker.runtime.executor import Executor
from roomworker.runtime.room_actor import RoomActor
from shared.broker import Broker, Unroutable
from shared.cluster.port import Cluster
from shared.cluster.registry import NODE_BEAT_EVERY, Observer
from shared.protocol import bus, media
from shared.telemetry import log

SUSPECT_AFTER: Final = 2 * NODE_BEAT_EVERY
"""A node whose beat is late by so many seconds is dead if its command queue is gone as well."""
UNDISTURBED: Final = 5.0
"""Seconds that Redis and the broker must have answered before that: after an outage nodes come back one by one."""
MISSING_FOR: Final = 8.0
"""Seconds after which a router that its node does not report is lost: the event that it had closed got lost."""
ROOMS_AT_ONCE: Final = 100
"""Rooms whose orders are read in one round trip."""

logger = log.get("nodes")


class OrderReader(Protocol):
    """The part of a store that committed orders are read from."""

    async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
        """The rooms' committed orders that are still kept, with their nodes (`roomworker.storage.store`)."""
        ...


class MediaNodes:
    """The media nodes that this worker knows of, and the routers that they miss.

    `read_registry` is to be called once, then `watch` run as a task. `send_order` sends a committed order to a node.
    """

    def __init__(
        self,
        cluster: Cluster,
        broker: Broker,
        worker: str,
        partitions: Mapping[int, Partition],
        send_order: Callable[[str, media.AnyOrder], None],
    ) -> None:
        self.observer = Observer(cluster, "nodes")
        self._broker = broker
        self._partitions = partitions
        self._send_order = send_order
        self._probe = media.encode(media.Commands(worker, []))
        self._random = Random()
        self._broker_since: float | None = None
        self._probed: set[str] = set()
        self._missing: dict[tuple[str, int], dict[str, float]] = {}

    # --- liveness ---------------------------------------------------------------------------------------------

    def choose(self, avoided: Collection[str] = ()) -> str | None:
        """Returns the less loaded of two random nodes; one of `avoided` only if there is no other."""
        alive = self.observer.alive
        nodes = [(node, info) for node, info in alive.items() if node not in avoided] or list(alive.items())
        if not nodes:
            return None
        candidates = self._random.sample(nodes, min(2, len(nodes)))
        return min(candidates, key=lambda node: float(node[1].get("load", 0)))[0]

    async def read_registry(self) -> None:
        """Reads the registry. Raises `redis.RedisError`."""
        await self.observer.read(time.monotonic())

    async def watch(self) -> None:
        """Reads the registry with every beat of the nodes, and probes those that are late."""
        while True:
            await asyncio.sleep(NODE_BEAT_EVERY)
            try:
                await self.read_registry()
            except (RedisError, OSError, TimeoutError):
                self.observer.failed()
            self._probe_late_nodes(time.monotonic())

    def _probe_late_nodes(self, now: float) -> None:
        """Probes the command queues of late nodes: the broker knows at once that a process was killed, while its
        missing heartbeat proves it only after seconds (DELIVERY T2)."""
        if not self._broker.connected:
            self._broker_since = None
        elif self._broker_since is None:
            self._broker_since = now
        for node in [node for node in self.observer.alive if self._is_suspect(node, now)]:
            if node not in self._probed:
                self._probed.add(node)
                probe = self._broker.publish("media", node, self._probe, mandatory=True)
                probe.add_done_callback(partial(self._probe_answered, node))

    def _is_suspect(self, node: str, now: float) -> bool:
        if self._broker_since is None or now - self._broker_since < UNDISTURBED:
            return False
        if self.observer.undisturbed_for(now) < UNDISTURBED:
            return False
        return self.observer.silent_for(node, now) >= SUSPECT_AFTER

    def _probe_answered(self, node: str, answer: "asyncio.Future[None]") -> None:
        self._probed.discard(node)
        if answer.cancelled() or not isinstance(answer.exception(), Unroutable):
            return
        if self._is_suspect(node, time.monotonic()):  # it may have beaten while the answer was on its way
            logger.warning("node.died", node=node)
            self.observer.mark_dead(node)
            for actor in self._rooms_on(node):
                actor.when_live(Executor.node_died)

    def _rooms_on(self, node: str) -> list[RoomActor]:
        return [
            actor
            for partition in self._partitions.values()
            for actor in partition.actors.values()
            if (placement := actor.placement) is not None and placement.node == node
        ]

    # --- their routers ----------------------------------------------------------------------------------------

    def handle_report(self, partition: Partition, report: bus.NodeReport, now: float) -> None:
        """Closes routers that belong to no room, and takes rooms off a node that lost their router (DELIVERY T3)."""
        known: set[str] = set()
        for held in report.routers:
            actor = partition.actor(held.room)
            if actor.is_on(report.node, held):
                known.add(held.room)
            else:  # a foreign router, or the room is not loaded yet
                actor.when_live(partial(Executor.router_reported, node=report.node, held=held))
        missed = self._missing.pop((report.node, partition.number), {})
        missing: dict[str, float] = {}
        for actor in list(partition.actors.values()):
            placement = actor.placement
            if placement is None or placement.node != report.node or actor.room in known or not actor.has_transports:
                continue  # the router of a room without transports may not be made yet
            missing[actor.room] = missed.get(actor.room, now)
            if now - missing[actor.room] >= MISSING_FOR:
                logger.warning("router.missing", room=actor.room, node=report.node)
                actor.when_live(Executor.node_died)
        if missing:
            self._missing[report.node, partition.number] = missing

    async def resend_orders(self, store: OrderReader, partition: Partition, node: str) -> None:
        """Sends the latest orders again to a node that lost its command queue; it ignores those that it had."""
        rooms = [
            actor.room
            for actor in partition.actors.values()
            if actor.placement is not None and actor.placement.node == node
        ]
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            for to, order in await store.orders(rooms[start : start + ROOMS_AT_ONCE]):
                if to == node:
                    self._send_order(node, order)
