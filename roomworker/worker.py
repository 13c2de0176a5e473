"""One room worker process: its partitions, what they share, and its place among the other workers."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.messaging.media_client import MediaClient
from roomworker.messaging.outbox import Outbox
from roomworker.partitions.assignment import ranks
from roomworker.partitions.media_nodes import MediaNodes
from roomworker.partitions.partition import Partition
from roomworker.runtime.committer import Committer
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.room_actor import RoomActor
from roomworker.storage.retention import Retention
from roomworker.storage.store import Store
from shared.broker import Broker, BrokerError, Subscription
from shared.cluster.agreement import Epoch, agree_on_partitions, process_id
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.registry import BEAT_EVERY, Membership, Observer
from shared.errors import GAP, GONE, CloseKind
from shared.protocol import bus, media
from shared.settings import WorkerSettings
from shared.telemetry import log

QUIET_TICKS: Final = 3
"""Ticks after activation, or a gap between ticks, before anything ends by time (DELIVERY T1): what would prevent it
may be behind them."""

TICK_TTL: Final = 3.0
LEADS_FOR: Final = 2 * BEAT_EVERY
"""After a look at who lives, and at Redis: nobody runs out of time while nothing can be committed."""
HAND_OVER_PATIENCE: Final = 1.0
TAKE_OVER_AT_ONCE: Final = 100
STEP_DOWN_AFTER: Final = 3.0
HEARD_WITHIN: Final = 3 * BEAT_EVERY
KEEP_BEYOND_GRACE_MS: Final = 15_000
"""Sent messages are kept this much longer than a session may be without a connection (DELIVERY O1)."""
EVICT_AFTER: Final = 60.0

logger = log.get("worker")


class RoomWorker:
    """`start` returns once the worker serves; `close` hands everything over. The caller owns broker and Redis."""

    def __init__(self, settings: WorkerSettings, broker: Broker, redis: Redis) -> None:
        self.id = process_id("roomworker", settings.name)
        self._settings = settings
        self.limits = Limits(
            peers=settings.max_peers,
            transports_per_peer=settings.max_transports,
            producers_per_peer=settings.max_producers,
            app_data_bytes=settings.app_data_limit,
            message_bytes=settings.message_limit,
            max_incoming_bitrate=settings.max_incoming_bitrate,
        )
        self._broker = broker
        cluster = self._cluster = RedisCluster(redis)
        self.counters = Counters()
        self._grace = round(settings.grace_seconds * 1000)
        self.store = Store(redis, keep_out_ms=self._grace + KEEP_BEYOND_GRACE_MS)
        self.committer = Committer(self.store, self.counters)
        self._retention = Retention((self._grace + KEEP_BEYOND_GRACE_MS) / 1000, time.monotonic())
        self.outbox = Outbox(
            broker, self.id, lambda lost: self._media.lost(lost, time.monotonic()), self.counters, self._retention
        )
        self._media = MediaClient(self.outbox.ask, self.counters)
        self._membership = Membership(cluster, "workers", self.id, {})
        self._epoch = Epoch(cluster)
        self._workers = Observer(cluster, "workers")
        self._gateways = Observer(cluster, "gateways")
        self._nodes = MediaNodes(cluster, broker, self.id, lambda: self.partitions.values(), self.outbox.order)
        self.partitions = {number: Partition(number, self) for number in range(settings.partitions)}
        self._subscribed: set[int] = set()
        self._ticks_seen: dict[int, tuple[int, int]] = {}
        self._tick = 0
        self._leads = asyncio.Event()
        self._leads_until = 0.0
        self._unconfirmed_ticks: set[int] = set()
        """Partitions whose last tick is not confirmed yet."""
        self._tokens = 0
        self._results: Subscription | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._seconds: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._redis_answers = True
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await agree_on_partitions(self._cluster, self._settings.partitions)
        self._results = await self._broker.subscribe_exclusive(
            "media", self.id, self._results_came, on_lost=_nothing, on_restored=_nothing
        )
        self._spawn(self.committer.load_loop())
        self._spawn(self.committer.commit_loop())
        self._spawn(self._nodes.watch())
        self._spawn(self._publish_ticks())
        await self._observe()
        await self._nodes.look()
        await self._rebalance()
        await self._beat()
        self._seconds = self._spawn(self._every_second())
        logger.info("room worker serves", id=self.id, partitions=len(self._subscribed))

    async def wait(self) -> None:
        """Returns never; raises what went wrong if a part of the worker has failed."""
        await self._failure

    @property
    def subscribed(self) -> int:
        """Partitions that this worker serves or stands in line for."""
        return len(self._subscribed)

    @property
    def media_requests_waiting(self) -> int:
        return self._media.waiting

    def trouble(self) -> str:
        """Why this worker cannot serve now; empty if it can."""
        if self._leaving.is_set():
            return "leaving"
        if self._failure.done():
            return "a part of it has failed"
        if trouble := self._broker.trouble:
            return trouble
        if not self._redis_answers:
            return "Redis does not answer"
        return ""

    async def close(self) -> None:
        """Leaves the others to serve: finishes what is under way, closes its partitions, says goodbye."""
        self._leaving.set()
        if self._seconds is not None:  # or it would subscribe and register again
            await asyncio.wait({self._seconds}, timeout=HAND_OVER_PATIENCE)
            self._seconds.cancel()
        with suppress(RedisError, OSError):
            await self._membership.leave()
        await asyncio.gather(*(self._give_up(self.partitions[number]) for number in sorted(self._subscribed)))
        if self._results is not None:
            await self._results.close()
        while self._tasks:  # redis-py can lose a cancellation that comes in the middle of a command
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=0.1)
        self.outbox.close()
        logger.info("room worker has left", id=self.id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("a part of the room worker has failed", exc_info=failure)
            if not self._failure.done():
                self._failure.set_exception(failure)
                self._failure.exception()  # whoever waits gets it; nobody has to

    async def _every_second(self) -> None:
        reached = time.monotonic()
        while not self._leaving.is_set():
            began = time.monotonic()
            try:
                if await self._epoch.changed():
                    logger.error("Redis was emptied: all rooms are gone")
                    await self._step_down()
                    await agree_on_partitions(self._cluster, self._settings.partitions)
                await self._observe()
                await self._beat()
                reached = time.monotonic()
                self._redis_answers = True
                if self._broker.connected:  # or this would wait, and the heartbeat with it
                    await self._update_leadership()
                    await self._rebalance()
            except (RedisError, OSError, TimeoutError) as failure:
                for observer in (self._workers, self._gateways):
                    observer.failed()
                self._redis_answers = False
                logger.warning("registry does not answer", error=str(failure))
                if time.monotonic() - reached >= STEP_DOWN_AFTER:  # who can commit shall have them (DELIVERY B4)
                    await self._step_down()
            except BrokerError as failure:
                logger.warning("broker does not answer", error=str(failure))
            self._media.expire(time.monotonic())
            self.outbox.forget_idle()
            self._retention.forget(time.monotonic())
            if not self._broker.connected:
                self._retention.link_down(time.monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), max(0.0, BEAT_EVERY - (time.monotonic() - began)))

    # --- among the others -------------------------------------------------------------------------------------

    async def _observe(self) -> None:
        now = time.monotonic()
        for observer in (self._workers, self._gateways):
            await observer.read(now)

    async def _beat(self) -> None:
        active = [partition.number for partition in self.partitions.values() if partition.active]
        if active != self._membership.info.get("active"):
            logger.info("partitions served", count=len(active))
        self._membership.info = {
            "subscribed": sorted(self._subscribed),
            "active": active,
            "rooms": sum(len(partition.actors) for partition in self.partitions.values()),
            "published": self.outbox.published,
            "commits": self.committer.commits,
            "round_trips": self.store.round_trips,
        }
        await self._membership.beat()

    async def _rebalance(self) -> None:
        """Subscribes where this worker ranks, and hands over what another is primary of (DELIVERY B2)."""
        # Too many in line cost little. Too few, because the dead are counted, and nobody is there when the next dies.
        workers = sorted(self._living())
        hand_overs: list[Coroutine[Any, Any, None]] = []
        for number, ranked in enumerate(ranks(self._settings.partitions, workers)):
            partition = self.partitions[number]
            if number not in self._subscribed:
                if self.id in ranked:
                    await self._subscribe(partition)
            elif partition.active and ranked[0] != self.id:
                if self._waits_for(ranked[0], number):
                    hand_overs.append(self._hand_over(partition, stay=self.id in ranked))
            elif self.id not in ranked:
                hand_overs.append(self._hand_over(partition, stay=False))
        # side by side: each may take its patience, and the heartbeat waits for all of them
        await asyncio.gather(*hand_overs)

    def _living(self) -> set[str]:
        """This worker and those that it hears."""
        return {*self._workers.beating(HEARD_WITHIN, time.monotonic()), self.id}

    def _waits_for(self, worker: str, partition: int) -> bool:
        """Whether the worker is in line for the partition, and has been heard of just now: not one that died."""
        listed = self._workers.alive.get(worker, {}).get("subscribed", ())
        return partition in listed and self._workers.silent_for(worker, time.monotonic()) < 2 * BEAT_EVERY

    async def _subscribe(self, partition: Partition) -> None:
        await partition.subscribe(self._broker, self._settings.prefetch)
        self._subscribed.add(partition.number)

    async def _hand_over(self, partition: Partition, *, stay: bool) -> None:
        """`stay`: in line behind the others."""
        self.counters.hand_overs_total += 1
        await self._give_up(partition)
        if stay:
            await self._subscribe(partition)

    async def _give_up(self, partition: Partition) -> None:
        with suppress(TimeoutError):  # what is not finished by then is redone by the next
            await asyncio.wait_for(partition.quiet(), HAND_OVER_PATIENCE)
        self._subscribed.discard(partition.number)
        await partition.unsubscribe()

    async def _update_leadership(self) -> None:
        """The worker with the lowest id tells the time and clears away the dead."""
        if min(self._living()) != self.id:
            self._leads.clear()
            return
        now = time.monotonic()
        self._leads_until = now + LEADS_FOR
        self._leads.set()
        for observer in (self._workers, self._gateways, self._nodes.observer):
            for member in observer.dead_for(EVICT_AFTER, now):
                if await observer.evict(member):
                    logger.info("removed a dead process", member=member)

    async def _publish_ticks(self) -> None:
        """While this worker leads: every second to each partition, one after another, or what comes between waits."""
        step = BEAT_EVERY / self._settings.partitions
        numbers = itertools.cycle(range(self._settings.partitions))
        while True:
            await self._leads.wait()
            due = time.monotonic()
            while self._leads.is_set():
                now = time.monotonic()
                if now > self._leads_until or self._leaving.is_set():
                    self._leads.clear()
                    break
                due = max(due, now - BEAT_EVERY)
                while due <= now:
                    self._publish_tick(next(numbers))
                    due += step
                await asyncio.sleep(due - now)

    def _publish_tick(self, partition: int) -> None:
        """Not one whose last tick is not confirmed yet: RabbitMQ has enough to do."""
        if partition in self._unconfirmed_ticks or not self._broker.connected:
            return
        self._tick += 1
        item = bus.encode_item(bus.Tick(self._tick, time.time_ns() // 1_000_000))
        self._unconfirmed_ticks.add(partition)
        told = self._broker.publish(
            "rooms", str(partition), bus.encode_batch(self.id, [item], time.time()), ttl=TICK_TTL
        )
        told.add_done_callback(partial(self._tick_confirmed, partition))

    def _tick_confirmed(self, partition: int, told: "asyncio.Future[None]") -> None:
        self._unconfirmed_ticks.discard(partition)
        if not told.cancelled() and (failure := told.exception()) is not None:
            logger.debug("a tick was not taken", partition=partition, error=str(failure))

    def _results_came(self, body: bytes) -> None:
        self._media.receive(body, time.monotonic())

    async def _step_down(self) -> None:
        """Gives its partitions up, unfinished, and forgets their rooms; the next balance takes them again."""
        if self._subscribed:
            self.counters.step_downs_total += 1
            logger.warning("gives its partitions up", partitions=len(self._subscribed))
        partitions = [self.partitions[number] for number in self._subscribed]
        self._subscribed.clear()
        await asyncio.gather(*(partition.unsubscribe() for partition in partitions))

    # --- what rooms and partitions ask of their worker ----------------------------------------------------------

    def choose_node(self) -> str | None:
        return self._nodes.choose(self._media.avoided(time.monotonic()))

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        self._media.ask(node, request, on_result, time.monotonic())

    def report(self, gateway: str, applied: bus.Applied) -> None:
        self.outbox.tell(gateway, applied)

    def reply(self, gateway: str, reply: Reply) -> None:
        self.outbox.tell(gateway, reply)

    def publish(self, changes: Changes, done: Callable[[], None]) -> None:
        self.outbox.push(changes, done)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(work)

    def want_load(self, actor: RoomActor) -> None:
        self.committer.want_load(actor)

    def want_commit(self, actor: RoomActor) -> None:
        self.committer.want_commit(actor)

    def keeps_all(self, actor: RoomActor) -> bool:
        return self._retention.keeps_all(actor.gateways, time.monotonic())

    def next_token(self) -> str:
        self._tokens += 1
        return f"{self.id}:{self._tokens}"

    def activated(self, partition: Partition) -> None:
        self.counters.takeovers_total += 1
        self._ticks_seen.pop(partition.number, None)
        logger.debug("active", partition=partition.number)
        self._spawn(self._take_over(partition))

    async def _take_over(self, partition: Partition) -> None:
        """Every room of the partition is loaded, and its gateways hear what its sessions have behind them.

        Orders that the predecessor committed and may not have published go once more: nodes ignore what is old.
        """
        rooms = await self.store.indexed(partition.number)
        for start in range(0, len(rooms), TAKE_OVER_AT_ONCE):
            some = rooms[start : start + TAKE_OVER_AT_ONCE]
            for node, order in await self.store.orders(some):
                self.outbox.order(node, order)
            for room in some:
                if not partition.active:
                    return
                partition.announce(room)

    def ticked(self, partition: Partition, tick: bus.Tick) -> None:
        """Time has passed in the partition: whatever belongs to a process that died is ended."""
        seen, last = self._ticks_seen.get(partition.number, (0, tick.now))
        seen = 1 if tick.now - last > QUIET_TICKS * 1000 else seen + 1
        self._ticks_seen[partition.number] = (seen, tick.now)
        if seen <= QUIET_TICKS:
            return
        now = time.monotonic()
        for actor in list(partition.actors.values()):
            if actor.wants_time:
                actor.when_live(partial(Executor.tick, now=tick.now, grace=self._grace))
            for gateway in actor.gateways():
                if self._gateways.is_dead(gateway, now):
                    actor.when_live(partial(Executor.gateway_died, gateway=gateway))
            placement = actor.placement
            if placement is not None and self._nodes.observer.is_dead(placement.node, now):
                actor.when_live(Executor.node_died)

    def reported(self, partition: Partition, report: bus.NodeReport) -> None:
        self._nodes.reported(partition, report, time.monotonic())
        if report.lost:
            self._spawn(self._nodes.send_again(self.store, partition, report.node))

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        actor.when_live(lambda executor: self._answer_replay(executor, gateway, item))

    def _answer_replay(self, executor: Executor, gateway: str, item: bus.Replay) -> None:
        where = executor.position(item.session)
        if where is None:
            self._close(gateway, item, GONE)
        elif not executor.released(gateway, item):
            self._spawn(self._replay(gateway, item, where, known=item.session in executor.room.sessions))

    async def _replay(self, gateway: str, item: bus.Replay, where: ClosedSession, *, known: bool) -> None:
        """Sends what is kept, then where the session stands: the gateway asks until it has heard that."""
        found = await self.store.replay(item.room, item.session, item.after)
        self.counters.replays_total += 1
        self.counters.replayed_messages_total += len(found)
        for message, out in found:
            recipient = bus.Recipient(item.connection, item.session, out)
            self.outbox.tell(gateway, bus.Message(message.body, [recipient], message.close))
        kept = [out for _, out in found] or [where.n_out + 1]
        if kept[0] > item.after + 1 or kept[-1] - kept[0] >= len(kept):
            self._close(gateway, item, GAP)
        elif not found and not known:
            self._close(gateway, item, GONE)
        else:
            out = max((out for _, out in found), default=where.n_out)
            self.outbox.tell(gateway, bus.Applied(item.connection, item.session, where.n_in, out))

    def _close(self, gateway: str, item: bus.Replay, why: CloseKind) -> None:
        recipient = bus.Recipient(item.connection, item.session, 0)
        self.outbox.tell(gateway, bus.Message(why.reason.encode(), [recipient], why.code))


def _nothing() -> None:
    """Requests whose results were lost with the queue run into their deadline."""
