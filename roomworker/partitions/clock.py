"""The time of rooms: the leading worker publishes a tick to each partition every second; what is due then is done."""

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
"""Seconds after which a tick that nobody took is of no use."""
QUIET_TICKS: Final = 3
"""Ticks after activation, or after a gap between ticks, before anything ends by time (DELIVERY T1): what would
prevent it may be behind them."""
LEADS_FOR: Final = 2 * BEAT_EVERY
"""Seconds that a worker leads after a look at the registry: rooms must not run out of time while nothing can be
committed."""

logger = log.get("clock")


class TickPublisher:
    """Publishes while this worker leads; `run` is to be a task. `clock` is monotonic, seconds."""

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
        self._unconfirmed_ticks: set[int] = set()
        """Partitions whose last tick is not confirmed yet."""

    @property
    def leads(self) -> bool:
        return self._leads.is_set()

    def lead(self, seconds: float = LEADS_FOR) -> None:
        """This worker leads for so long, unless it is told again."""
        self._leads_until = self._clock() + seconds
        self._leads.set()

    def resign(self) -> None:
        """Another worker leads, or nobody."""
        self._leads.clear()

    async def run(self) -> None:
        """Publishes to one partition after another, evenly over `TICK_EVERY`, or what comes between would wait."""
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
        """Nothing is sent to a partition whose last tick is not confirmed yet: RabbitMQ has enough to do."""
        if partition in self._unconfirmed_ticks or not self._broker.connected:
            return
        self._number += 1
        item = bus.encode_item(bus.Tick(self._number, time.time_ns() // 1_000_000))
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
    """What a tick causes in the rooms of its partition. `grace`: ms that a session may be without a connection."""

    def __init__(self, grace: int, gateways: Observer, nodes: Observer) -> None:
        self._grace = grace
        self._gateways = gateways
        self._nodes = nodes
        self._seen: dict[int, tuple[int, int]] = {}
        """Partition → ticks since activation or the last gap, and the time of the last."""

    def activated(self, partition: Partition) -> None:
        """This worker begins to serve the partition: its count of ticks begins anew."""
        self._seen.pop(partition.number, None)

    def ticked(self, partition: Partition, tick: bus.Tick) -> None:
        """Time has passed in the partition: what is due is done, what belongs to a dead process is ended."""
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
