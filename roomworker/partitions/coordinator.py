"""Coordinates this worker with the others: registers it, subscribes to its partitions, and elects the leader."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from roomworker.counters import Counters
from roomworker.partitions.assignment import ranks
from roomworker.partitions.clock import TickPublisher
from roomworker.partitions.partition import Partition
from shared.broker import Broker, BrokerError
from shared.cluster.agreement import Epoch, agree_on_partitions
from shared.cluster.port import Cluster, Info
from shared.cluster.registry import BEAT_EVERY, Membership, Observer
from shared.telemetry import log

HAND_OVER_TIMEOUT: Final = 1.0
"""Seconds that a partition's unfinished work may take before it is left to the next worker."""
STEP_DOWN_AFTER: Final = 3.0
"""Seconds without Redis after which a worker gives its partitions up: others may be able to commit (DELIVERY B4)."""
HEARD_WITHIN: Final = 3 * BEAT_EVERY
"""Seconds since its last heartbeat within which a worker counts as living."""
EVICT_AFTER: Final = 60.0
"""Seconds without a heartbeat after which a dead process leaves the registry."""

logger = log.get("coordinator")


class Coordinator:
    """Keeps one worker in the registry and subscribed to the partitions that it ranks for.

    `start` joins the cluster, `run` is to be a task, and `close` hands all partitions over. `describe` returns what
    the registry shows of this worker; `gateways` and `nodes` observe the processes of the other roles.
    """

    def __init__(
        self,
        worker: str,
        cluster: Cluster,
        broker: Broker,
        partitions: Mapping[int, Partition],
        prefetch: int,
        counters: Counters,
        ticks: TickPublisher,
        describe: Callable[[], Info],
        gateways: Observer,
        nodes: Observer,
    ) -> None:
        self.worker = worker
        self.redis_answers = True
        self.subscribed: set[int] = set()
        """Partitions that this worker serves or is a standby for."""
        self._cluster = cluster
        self._broker = broker
        self._partitions = partitions
        self._prefetch = prefetch
        self._counters = counters
        self._ticks = ticks
        self._describe = describe
        self._workers = Observer(cluster, "workers")
        self._gateways = gateways
        self._nodes = nodes
        self._membership = Membership(cluster, "workers", worker, {})
        self._epoch = Epoch(cluster)
        self._active: list[int] = []
        self._leaving = asyncio.Event()

    @property
    def leaving(self) -> bool:
        """Whether `leave` was called."""
        return self._leaving.is_set()

    async def start(self) -> None:
        """Joins the other workers; may be called again. Raises `DifferentCluster`, `redis.RedisError`, `OSError`."""
        await agree_on_partitions(self._cluster, len(self._partitions))
        await self._observe()
        await self._rebalance()
        await self._beat()

    async def run(self) -> None:
        """Reads the registry and adapts to it every second, until `leave` is called."""
        reached = time.monotonic()
        while not self._leaving.is_set():
            began = time.monotonic()
            try:
                await self._check_in()
                reached = time.monotonic()
                self.redis_answers = True
                if self._broker.connected:  # else this would wait, and delay the heartbeat
                    await self._update_leadership()
                    await self._rebalance()
            except (RedisError, OSError, TimeoutError):
                for observer in (self._workers, self._gateways):
                    observer.failed()
                self.redis_answers = False
                if time.monotonic() - reached >= STEP_DOWN_AFTER:
                    await self._step_down("Redis does not answer")
            except BrokerError as failure:
                logger.warning("partition.subscribe_failed", error=str(failure))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), max(0.0, BEAT_EVERY - (time.monotonic() - began)))

    def leave(self) -> None:
        """Ends `run` with its present round, so that nothing is subscribed or registered again."""
        self._leaving.set()
        self._ticks.resign()

    async def close(self) -> None:
        """Leaves the registry, finishes deliveries that are under way and gives all partitions up."""
        with suppress(RedisError, OSError):
            await self._membership.leave()
        await asyncio.gather(*(self._release(self._partitions[number]) for number in sorted(self.subscribed)))

    # --- the registry -----------------------------------------------------------------------------------------

    async def _check_in(self) -> None:
        if await self._epoch.changed():
            logger.error("redis.emptied")
            await self._step_down("Redis was emptied")
            await agree_on_partitions(self._cluster, len(self._partitions))
        await self._observe()
        await self._beat()

    async def _observe(self) -> None:
        now = time.monotonic()
        for observer in (self._workers, self._gateways):
            await observer.read(now)

    async def _beat(self) -> None:
        active = [partition.number for partition in self._partitions.values() if partition.active]
        if active != self._active:
            self._active = active
            logger.info("worker.partitions_changed", partitions=len(active))
        own = {"subscribed": sorted(self.subscribed), "active": active}
        self._membership.info = {**own, **self._describe()}
        await self._membership.beat()

    def _live_workers(self) -> set[str]:
        """Returns this worker and those with a recent heartbeat."""
        return {*self._workers.beating(HEARD_WITHIN, time.monotonic()), self.worker}

    # --- partitions -------------------------------------------------------------------------------------------

    async def _rebalance(self) -> None:
        """Subscribes where this worker ranks, and hands over what another is primary of (DELIVERY B2)."""
        # A standby too many costs little. If dead workers counted, a partition could have no living standby.
        workers = sorted(self._live_workers())
        hand_overs: list[Coroutine[Any, Any, None]] = []
        for number, ranked in enumerate(ranks(len(self._partitions), workers)):
            partition = self._partitions[number]
            if number not in self.subscribed:
                if self.worker in ranked:
                    await self._subscribe(partition)
            elif partition.active and ranked[0] != self.worker:
                if self._is_ready(ranked[0], number):
                    hand_overs.append(self._hand_over(partition, stay=self.worker in ranked))
            elif self.worker not in ranked:
                hand_overs.append(self._hand_over(partition, stay=False))
        # concurrently: each may take up to `HAND_OVER_TIMEOUT`, and the heartbeat waits for all of them
        await asyncio.gather(*hand_overs)

    def _is_ready(self, worker: str, partition: int) -> bool:
        """Whether the worker is subscribed to the partition, and its last heartbeat is recent."""
        listed = self._workers.alive.get(worker, {}).get("subscribed", ())
        return partition in listed and self._workers.silent_for(worker, time.monotonic()) < 2 * BEAT_EVERY

    async def _subscribe(self, partition: Partition) -> None:
        await partition.subscribe(self._broker, self._prefetch)
        self.subscribed.add(partition.number)

    async def _hand_over(self, partition: Partition, *, stay: bool) -> None:
        """Gives the partition up to its primary; with `stay` this worker subscribes again as a standby."""
        self._counters.hand_overs_total += 1
        await self._release(partition)
        if stay:
            await self._subscribe(partition)

    async def _release(self, partition: Partition) -> None:
        with suppress(TimeoutError):  # what is not finished by then is redone by the next
            await asyncio.wait_for(partition.wait_idle(), HAND_OVER_TIMEOUT)
        self.subscribed.discard(partition.number)
        await partition.unsubscribe()

    async def _step_down(self, reason: str) -> None:
        """Gives all partitions up, unfinished, and forgets their rooms; the next rebalance subscribes again."""
        if self.subscribed:
            self._counters.step_downs_total += 1
            logger.warning("worker.stepped_down", partitions=len(self.subscribed), reason=reason)
        partitions = [self._partitions[number] for number in self.subscribed]
        self.subscribed.clear()
        await asyncio.gather(*(partition.unsubscribe() for partition in partitions))

    # --- leadership -------------------------------------------------------------------------------------------

    async def _update_leadership(self) -> None:
        """Makes the worker with the lowest id publish ticks and remove dead processes from the registry."""
        if min(self._live_workers()) != self.worker:
            self._ticks.resign()
            return
        now = time.monotonic()
        wall_clock = time.time_ns() // 1_000_000  # only the first leader that a cluster has is asked what time it is
        self._ticks.set_time(await self._cluster.advance_time(self._ticks.time, wall_clock))
        self._ticks.lead()
        for role, observer in (("worker", self._workers), ("gateway", self._gateways), ("node", self._nodes)):
            for member in observer.dead_for(EVICT_AFTER, now):
                if await observer.evict(member):
                    logger.info("process.evicted", **{role: member})
