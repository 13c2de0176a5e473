"""Publishes and receives ticks, the time of rooms: the leading worker sends one to each partition every second."""

import asyncio
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from roomworker.partitions.partition import Partition
from roomworker.runtime.executor import Executor
from shared.broker import Broker
from shared.cluster.registry import BEAT_EVERY, Observer
from shared.protocol import bus
from shared.telemetry import log

TICK_EVERY: Final = 1.0
"""Seconds between two ticks of a partition."""
TICK_TTL: Final = 3.0
"""Seconds after which a tick that no worker has received expires."""
QUIET_TICKS: Final = 3
"""Ticks after activation, or after a gap between ticks, before anything ends by time (DELIVERY T1): a resumption
that prevents it may be queued behind them."""
LEADS_FOR: Final = 2 * BEAT_EVERY
"""Seconds that a worker leads after it has read the registry: sessions must not expire while Redis cannot be
reached."""

logger = log.get("clock")


class TickPublisher:
    """Publishes ticks while this worker leads; `run` is to be a task. `clock` is monotonic, seconds.

    The ticks have the cluster's time: the leader takes over what the cluster has (`set_time`), and advances it by its
    own monotonic clock.
    """

    def __init__(
        self, worker: str, broker: Broker, partitions: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worker = worker
        self._broker = broker
        self._partitions = partitions
        self._clock = clock
        self._number = 0
        self._leads = asyncio.Event()
        self._leads_until = 0.0
        self._time = 0
        self._time_set = 0.0
        self._unconfirmed_ticks: set[int] = set()
        """Partitions whose last tick is not confirmed yet."""

    @property
    def leads(self) -> bool:
        """Whether this worker publishes the ticks."""
        return self._leads.is_set()

    @property
    def time(self) -> int:
        """The cluster's time, ms, as far as this worker knows it; 0: not at all."""
        return self._time + round((self._clock() - self._time_set) * 1000) if self._time else 0

    def set_time(self, now: int) -> None:
        """Brings the cluster's time up to date with what another leader made of it; it never falls."""
        if now > self.time:
            self._time, self._time_set = now, self._clock()

    def lead(self, seconds: float = LEADS_FOR) -> None:
        """Makes this worker lead for so many seconds from now."""
        self._leads_until = self._clock() + seconds
        self._leads.set()

    def resign(self) -> None:
        """Stops publishing: another worker leads, or none does."""
        self._leads.clear()

    async def run(self) -> None:
        """Publishes to one partition after another, spread evenly over `TICK_EVERY`, so that a worker with many
        partitions does not handle all its ticks at once."""
        step = TICK_EVERY / self._partitions
        numbers = itertools.cycle(range(self._partitions))
        while True:
            await self._leads.wait()
            due = self._clock()
            while self._leads.is_set():
                now = self._clock()
                if now > self._leads_until:
                    self._leads.clear()
                    break
                due = max(due, now - TICK_EVERY)
                while due <= now:
                    self._publish(next(numbers))
                    due += step
                await asyncio.sleep(due - now)

    def _publish(self, partition: int) -> None:
        """Publishes a tick, unless the partition's last one is not confirmed yet: RabbitMQ is then overloaded."""
        if partition in self._unconfirmed_ticks or not self._broker.connected:
            return
        self._number += 1
        item = bus.encode_item(bus.Tick(self._number, self.time, self._worker, self._clock()))
        self._unconfirmed_ticks.add(partition)
        sent = self._broker.publish(
            "rooms", str(partition), bus.encode_batch(self._worker, [item], time.time()), ttl=TICK_TTL
        )
        sent.add_done_callback(partial(self._confirmed, partition))

    def _confirmed(self, partition: int, sent: "asyncio.Future[None]") -> None:
        self._unconfirmed_ticks.discard(partition)
        if not sent.cancelled() and (failure := sent.exception()) is not None:
            logger.debug("tick.refused", partition=partition, error=str(failure))


class TickReceiver:
    """Applies ticks to the rooms of their partition. `grace`: ms that a session may be without a connection."""

    def __init__(self, grace: int, gateways: Observer, nodes: Observer) -> None:
        self._grace = grace
        self._gateways = gateways
        self._nodes = nodes
        self._seen: dict[int, tuple[int, int]] = {}
        """The ticks of each partition since its activation or last gap, and the time of the last one."""

    def activated(self, partition: Partition) -> None:
        """Starts counting the partition's ticks anew, when this worker begins to serve it."""
        self._seen.pop(partition.number, None)

    def ticked(self, partition: Partition, tick: bus.Tick) -> None:
        """Does what is due in the partition's rooms, and gives up what belonged to dead gateways and media nodes.

        `tick.now` is the partition's time.
        """
        actors = list(partition.actors.values())
        for actor in actors:
            actor.retry()
        seen, last = self._seen.get(partition.number, (0, tick.now))
        seen = 1 if tick.now - last > QUIET_TICKS * 1000 else seen + 1
        self._seen[partition.number] = (seen, tick.now)
        if seen <= QUIET_TICKS:
            return
        now = time.monotonic()
        for actor in actors:
            if actor.needs_ticks:
                actor.when_live(partial(Executor.tick, now=tick.now, grace=self._grace))
            for gateway in actor.gateways():
                if self._gateways.is_dead(gateway, now):
                    actor.when_live(partial(Executor.gateway_died, gateway=gateway))
            placement = actor.placement
            if placement is not None and self._nodes.is_dead(placement.node, now):
                actor.when_live(Executor.node_died)
