"""Metrics of a room worker, made from its counters when Prometheus asks."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric
from redis.exceptions import RedisError

from roomworker.core.budget import ROOM_BYTES
from roomworker.core.room import Room
from roomworker.counters import OK
from roomworker.worker import RoomWorker
from shared.aio.iteration import iterate_yielding
from shared.protocol import client, media
from shared.telemetry.metrics import counter, described_in, gauge, histogram

ROOMS = gauge("roomworker_rooms", "Rooms in this worker's memory.")
SESSIONS = gauge(
    "roomworker_sessions",
    "Sessions of the rooms in memory; `lost`: without a connection, until they are resumed or the grace ends.",
    "state",
)
PEERS = gauge("roomworker_peers", "Peers that have joined the rooms in memory.")
TRANSPORTS = gauge("roomworker_transports", "Transports of these peers.")
PRODUCERS = gauge("roomworker_producers", "Producers of these peers.")
ROOMS_UNREADABLE = gauge(
    "roomworker_unreadable_rooms", "Rooms set aside because they are too large, or no rooms that can be read."
)
ROOMS_BYTES = gauge(
    "roomworker_rooms_bytes",
    "Bytes that the rooms in memory count as: those of `all`, and of the `largest`. Limits: settings.",
    "of",
)
PARTITIONS_ACTIVE = gauge("roomworker_partitions_active", "Partitions that this worker serves.")
PARTITIONS_SUBSCRIBED = gauge(
    "roomworker_partitions_subscribed", "Partitions that this worker serves or is a standby for."
)
PARTITION_ACTIVE = gauge("roomworker_partition_active", "1 for each partition that this worker serves.", "partition")
TAKEOVERS = counter("roomworker_takeovers", "Partitions that this worker became active for.")
HAND_OVERS = counter("roomworker_hand_overs", "Partitions that this worker handed over to their primary worker.")
STEP_DOWNS = counter(
    "roomworker_step_downs",
    "Times that this worker gave up all partitions, because Redis did not answer or had been emptied.",
)
REQUESTS = counter(
    "roomworker_requests",
    "Clients' requests and notifications, by method and outcome (200 or an error's code); redone ones count again.",
    "method",
    "code",
)
FAN_OUT = counter(
    "roomworker_fan_out_bytes",
    "Bytes of what clients' messages caused to be sent, times receivers, and 256 for each receiver.",
)
DEFECTS = counter("roomworker_defects", "Messages answered 500 because of a defect in Plenary.")
UNREADABLE = counter(
    "roomworker_unreadable_items",
    "Items and batches that could not be decoded, and ticks, replays and reports that failed.",
)
DEAD_LETTERS = gauge(
    "roomworker_dead_letters", "Messages in the stream `plenary:dead`; every worker reports the same number."
)
DEAD_LETTERED = counter(
    "roomworker_dead_lettered",
    "Messages that this worker put into `plenary:dead`, because workers had crashed while handling them.",
)
QUEUE = histogram(
    "roomworker_queue_seconds",
    "Seconds from a batch's publish to its delivery here, by the two machines' clocks; ticks included.",
)
CORE = histogram(
    "roomworker_core_seconds",
    "Seconds for one delivery in the room core: decoding, and handling until it ends or waits for a media node.",
)
COMMIT = histogram("roomworker_commit_seconds", "Seconds of a round trip to Redis that commits, retries included.")
LOAD = histogram("roomworker_load_seconds", "Seconds of a round trip to Redis that loads rooms, retries included.")
MEDIA = histogram("roomworker_media_request_seconds", "Seconds from a request to a media node to its result.")
ITEMS_IN = histogram("roomworker_delivered_items", "Items in one delivery, ticks not counted.")
ITEMS_OUT = histogram(
    "roomworker_published_items", "Messages and reports in one batch to a gateway, commands in one to a media node.",
    "to",
)  # fmt: skip
ROOMS_COMMITTED = histogram("roomworker_commit_rooms", "Rooms committed in one round trip.")
COMMITS = counter(
    "roomworker_commits",
    "Commits by Redis' answer: `ok`, `applied` (an earlier answer was lost), `stale` (the room had changed).",
    "outcome",
)
MEDIA_REQUESTS = counter(
    "roomworker_media_requests", "Requests to media nodes, by kind and outcome (200 or an error's code).",
    "kind", "code",
)  # fmt: skip
MEDIA_REFUSALS = counter(
    "roomworker_media_refusals",
    "Times that a room lost its media for 5 minutes, because several media engines had died under it alone.",
)
REPLAYS = counter("roomworker_replays", "Gateways' requests for messages that they missed.")
REPLAYED = counter("roomworker_replayed_messages", "Messages sent again in answer to these requests.")
REPLAYS_REFUSED = counter(
    "roomworker_replays_refused", "Those of the requests whose session had missed more than is sent again (4001)."
)
REDIS_TRIPS = counter("roomworker_redis_round_trips", "Round trips to Redis that load or commit rooms.")
REDIS_FAILURES = counter("roomworker_redis_failures", "Round trips to Redis that failed; each was repeated.")
REDIS_MEMORY = gauge("roomworker_redis_memory_ratio", "Share of its maxmemory that Redis uses; 0 if it has none.")
GROWTH_REFUSED = gauge(
    "roomworker_growth_refused", "1 while requests that make a room grow are answered 503, as Redis is nearly full."
)
TRIMMED = counter(
    "roomworker_trimmed_entries", "Stream entries removed to save Redis' memory, besides those that commits trim."
)
EVICTED = counter("roomworker_evicted_rooms", "Rooms ended with 1013 because Redis' memory was nearly used up.")
IN_WORK = gauge("roomworker_deliveries_in_work", "Deliveries received and not acknowledged yet.")
OUTBOX = gauge("roomworker_outbox_items", "Messages, reports and commands that RabbitMQ has not confirmed yet.")
MEDIA_WAITING = gauge("roomworker_media_requests_waiting", "Requests that no media node has answered yet.")


REDIS_TIMEOUT: Final = 1.0
"""Seconds that a scrape waits for Redis; without an answer it exposes the last known number."""


@dataclass
class RoomTotals:
    """Totals over all rooms in memory."""

    rooms: int = 0
    unreadable: int = 0
    sessions: dict[str, int] = field(default_factory=lambda: {"connected": 0, "lost": 0})
    peers: int = 0
    transports: int = 0
    producers: int = 0
    bytes: dict[str, int] = field(default_factory=lambda: {"all": 0, "largest": 0})

    def add(self, room: Room | None) -> None:
        """Adds one room; None stands for a room that is not loaded yet."""
        self.rooms += 1
        self.bytes["all"] += ROOM_BYTES
        if room is None:
            return
        for session in room.sessions.values():
            self.sessions["connected" if session.gateway else "lost"] += 1
        self.bytes["all"] += room.budget.total
        self.bytes["largest"] = max(self.bytes["largest"], room.budget.total)
        self.peers += len(room.peers)
        for peer in room.peers.values():
            self.transports += len(peer.transports)
            self.producers += len(peer.producers)


class WorkerMetrics:
    """Collects all metrics of one worker."""

    described = described_in(globals())

    def __init__(self, worker: RoomWorker) -> None:
        self._worker = worker
        self._dead_letters = 0
        self._totals = RoomTotals()

    async def refresh(self) -> None:
        """Counts the rooms in memory and Redis' dead letters; to be awaited before `collect`."""
        totals = RoomTotals()
        actors = [actor for partition in self._worker.partitions.values() for actor in partition.actors.values()]
        async for actor in iterate_yielding(actors):
            totals.add(actor.loaded_room)
            totals.unreadable += bool(actor.unreadable)
        self._totals = totals
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(REDIS_TIMEOUT):
                self._dead_letters = await self._worker.store.count_dead_letters()

    def collect(self) -> Iterable[Metric]:
        """Yields all metrics, with the totals of the last `refresh`."""
        worker, counters = self._worker, self._worker.counters
        yield from self._rooms()
        partitions = worker.partitions.values()
        active = [partition.number for partition in partitions if partition.active]
        yield PARTITIONS_ACTIVE.with_value(len(active))
        yield PARTITIONS_SUBSCRIBED.with_value(len(worker.coordinator.subscribed))
        yield PARTITION_ACTIVE.with_values(dict.fromkeys(active, 1))
        yield TAKEOVERS.with_value(counters.takeovers_total)
        yield HAND_OVERS.with_value(counters.hand_overs_total)
        yield STEP_DOWNS.with_value(counters.step_downs_total)
        handled = {(kind, OK): count for kind, count in counters.handled.items()} | counters.rejected
        yield REQUESTS.with_values(
            {(client.method_of(kind) if kind else "other", code): count for (kind, code), count in handled.items()}
        )
        yield FAN_OUT.with_value(counters.fan_out_bytes_total)
        yield DEFECTS.with_value(counters.defects_total)
        yield UNREADABLE.with_value(sum(partition.bad_items for partition in partitions))
        yield DEAD_LETTERS.with_value(self._dead_letters)
        yield DEAD_LETTERED.with_value(counters.dead_letters_total)
        yield QUEUE.with_histogram(counters.queue)
        yield CORE.with_histogram(counters.core)
        yield COMMIT.with_histogram(counters.commit)
        yield LOAD.with_histogram(counters.load)
        yield MEDIA.with_histogram(counters.media_seconds)
        yield ITEMS_IN.with_histogram(counters.items_in)
        yield ITEMS_OUT.with_histograms({"gateway": counters.items_to_gateways, "medianode": counters.items_to_nodes})
        yield ROOMS_COMMITTED.with_histogram(counters.rooms_committed)
        yield COMMITS.with_values({status.lower(): count for status, count in counters.commits.items()})
        yield MEDIA_REQUESTS.with_values(
            {(media.wire_name(kind), code): count for (kind, code), count in counters.media_requests.items()}
        )
        yield MEDIA_REFUSALS.with_value(counters.media_refusals_total)
        yield REPLAYS.with_value(counters.replays_total)
        yield REPLAYED.with_value(counters.replayed_messages_total)
        yield REPLAYS_REFUSED.with_value(counters.replays_refused_total)
        yield REDIS_TRIPS.with_value(worker.store.round_trips)
        yield REDIS_FAILURES.with_value(worker.store.failures)
        yield REDIS_MEMORY.with_value(worker.memory.watch.use.share)
        yield GROWTH_REFUSED.with_value(worker.memory.watch.is_full)
        yield TRIMMED.with_value(counters.trimmed_entries_total)
        yield EVICTED.with_value(counters.evicted_rooms_total)
        yield IN_WORK.with_value(sum(partition.unacknowledged for partition in partitions))
        yield OUTBOX.with_value(worker.outbox.waiting)
        yield MEDIA_WAITING.with_value(worker.media.waiting)

    def _rooms(self) -> Iterable[Metric]:
        totals = self._totals
        yield ROOMS.with_value(totals.rooms)
        yield SESSIONS.with_values(totals.sessions)
        yield PEERS.with_value(totals.peers)
        yield TRANSPORTS.with_value(totals.transports)
        yield PRODUCERS.with_value(totals.producers)
        yield ROOMS_BYTES.with_values(totals.bytes)
        yield ROOMS_UNREADABLE.with_value(totals.unreadable)
