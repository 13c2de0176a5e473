"""A room worker's metrics: all of them, made from what it counts when somebody asks."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric
from redis.exceptions import RedisError

from roomworker.core.room import Room
from roomworker.counters import OK
from roomworker.worker import RoomWorker
from shared.aio.iteration import iterate_yielding
from shared.protocol import client, media
from shared.telemetry.metrics import counter, described_in, gauge, histogram

ROOMS = gauge("roomworker_rooms", "Rooms in this worker's memory.")
SESSIONS = gauge(
    "roomworker_sessions", "Sessions of these rooms; lost: without a connection, for the grace.", "state"
)
PEERS = gauge("roomworker_peers", "Peers that have joined these rooms.")
TRANSPORTS = gauge("roomworker_transports", "Their transports.")
PRODUCERS = gauge("roomworker_producers", "Their producers.")
PARTITIONS_ACTIVE = gauge("roomworker_partitions_active", "Partitions that this worker serves.")
PARTITIONS_SUBSCRIBED = gauge("roomworker_partitions_subscribed", "Partitions that it serves or stands in line for.")
PARTITION_ACTIVE = gauge("roomworker_partition_active", "1 for each partition that this worker serves.", "partition")
TAKEOVERS = counter("roomworker_takeovers", "Partitions that this worker began to serve.")
HAND_OVERS = counter("roomworker_hand_overs", "Partitions that it gave to the worker whose turn it is.")
STEP_DOWNS = counter(
    "roomworker_step_downs", "Times that it gave all partitions up, because Redis was silent or had been emptied."
)
REQUESTS = counter(
    "roomworker_requests",
    "Clients' requests and notifications handled, by method and outcome (200 or an error's code); redone ones again.",
    "method",
    "code",
)
DEFECTS = counter("roomworker_defects", "Messages answered 500 because their handler met a defect of ours.")
UNREADABLE = counter("roomworker_unreadable_items", "Items and batches that could not be decoded; they are dropped.")
DEAD_LETTERS = gauge("roomworker_dead_letters", "Messages in the stream `plenary:dead`; the same at each worker.")
DEAD_LETTERED = counter("roomworker_dead_lettered", "Messages that this worker set aside: others had died of them.")
QUEUE = histogram(
    "roomworker_queue_seconds", "From a batch's publish to its delivery here, by the two machines' clocks; ticks too."
)
CORE = histogram(
    "roomworker_core_seconds", "A delivery's way through the core: decoded, and handled up to media requests."
)
COMMIT = histogram("roomworker_commit_seconds", "A round trip to Redis that commits, repetitions included.")
LOAD = histogram("roomworker_load_seconds", "A round trip to Redis that loads rooms, repetitions included.")
MEDIA = histogram("roomworker_media_request_seconds", "From a request to a media node to its result.")
ITEMS_IN = histogram("roomworker_delivered_items", "Items in a delivery, ticks not counted.")
ITEMS_OUT = histogram(
    "roomworker_published_items", "Messages and reports in a batch to a gateway, commands in one to a media node.",
    "to",
)  # fmt: skip
ROOMS_COMMITTED = histogram("roomworker_commit_rooms", "Rooms committed in one round trip.")
COMMITS = counter(
    "roomworker_commits",
    "Commits by what Redis said: ok, applied (the answer had been lost), stale (somebody else had changed the room).",
    "outcome",
)
MEDIA_REQUESTS = counter(
    "roomworker_media_requests", "Requests to media nodes by kind and outcome (200 or an error's code).",
    "kind", "code",
)  # fmt: skip
REPLAYS = counter("roomworker_replays", "Gateways' questions for messages that they missed.")
REPLAYED = counter("roomworker_replayed_messages", "Messages sent once more in answer to them.")
REDIS_TRIPS = counter("roomworker_redis_round_trips", "Round trips to Redis for rooms.")
REDIS_FAILURES = counter("roomworker_redis_failures", "Round trips that Redis did not answer; each was repeated.")
IN_WORK = gauge("roomworker_deliveries_in_work", "Deliveries received and not acknowledged yet.")
OUTBOX = gauge("roomworker_outbox_items", "Messages, reports and commands that RabbitMQ has not confirmed yet.")
MEDIA_WAITING = gauge("roomworker_media_requests_waiting", "Requests that no media node has answered yet.")


PATIENCE: Final = 1.0
"""Seconds that a scrape waits for Redis; without an answer the last known number is told."""


@dataclass
class Census:
    """All rooms in memory, looked at one by one."""

    rooms: int = 0
    sessions: dict[str, int] = field(default_factory=lambda: {"connected": 0, "lost": 0})
    peers: int = 0
    transports: int = 0
    producers: int = 0

    def count(self, room: Room | None) -> None:
        """`room`: as far as it is loaded."""
        self.rooms += 1
        if room is None:
            return
        for session in room.sessions.values():
            self.sessions["connected" if session.gateway else "lost"] += 1
        self.peers += len(room.peers)
        for peer in room.peers.values():
            self.transports += len(peer.transports)
            self.producers += len(peer.producers)


class WorkerMetrics:
    described = described_in(globals())

    def __init__(self, worker: RoomWorker) -> None:
        self._worker = worker
        self._dead_letters = 0
        self._census = Census()

    async def refresh(self) -> None:
        census = Census()
        actors = [actor for partition in self._worker.partitions.values() for actor in partition.actors.values()]
        async for actor in iterate_yielding(actors):
            census.count(actor.content)
        self._census = census
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                self._dead_letters = await self._worker.store.dead_letters()

    def collect(self) -> Iterable[Metric]:
        worker, counters = self._worker, self._worker.counters
        yield from self._rooms()
        partitions = worker.partitions.values()
        active = [partition.number for partition in partitions if partition.active]
        yield PARTITIONS_ACTIVE.of(len(active))
        yield PARTITIONS_SUBSCRIBED.of(worker.subscribed)
        yield PARTITION_ACTIVE.by(dict.fromkeys(active, 1))
        yield TAKEOVERS.of(counters.takeovers_total)
        yield HAND_OVERS.of(counters.hand_overs_total)
        yield STEP_DOWNS.of(counters.step_downs_total)
        handled = {(kind, OK): count for kind, count in counters.handled.items()} | counters.rejected
        yield REQUESTS.by(
            {(client.method_of(kind) if kind else "other", code): count for (kind, code), count in handled.items()}
        )
        yield DEFECTS.of(counters.defects_total)
        yield UNREADABLE.of(sum(partition.bad_items for partition in partitions))
        yield DEAD_LETTERS.of(self._dead_letters)
        yield DEAD_LETTERED.of(counters.dead_letters_total)
        yield QUEUE.spread(counters.queue)
        yield CORE.spread(counters.core)
        yield COMMIT.spread(counters.commit)
        yield LOAD.spread(counters.load)
        yield MEDIA.spread(counters.media_seconds)
        yield ITEMS_IN.spread(counters.items_in)
        yield ITEMS_OUT.spreads({"gateway": counters.items_to_gateways, "medianode": counters.items_to_nodes})
        yield ROOMS_COMMITTED.spread(counters.rooms_committed)
        yield COMMITS.by({status.lower(): count for status, count in counters.commits.items()})
        yield MEDIA_REQUESTS.by(
            {(media.wire_name(kind), code): count for (kind, code), count in counters.media_requests.items()}
        )
        yield REPLAYS.of(counters.replays_total)
        yield REPLAYED.of(counters.replayed_messages_total)
        yield REDIS_TRIPS.of(worker.store.round_trips)
        yield REDIS_FAILURES.of(worker.store.failures)
        yield IN_WORK.of(sum(partition.in_work for partition in partitions))
        yield OUTBOX.of(worker.outbox.waiting)
        yield MEDIA_WAITING.of(worker.media_requests_waiting)

    def _rooms(self) -> Iterable[Metric]:
        census = self._census
        yield ROOMS.of(census.rooms)
        yield SESSIONS.by(census.sessions)
        yield PEERS.of(census.peers)
        yield TRANSPORTS.of(census.transports)
        yield PRODUCERS.of(census.producers)
