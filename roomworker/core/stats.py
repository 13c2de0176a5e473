"""Sends periodic stats of transports, producers and consumers (§enableTransportStats … §consumerStats).

An object that reports stats stores its `stats_interval` (ms). The time of its next report is not stored: after a
takeover all reports are due at the first tick. The clock is the partition's ticks, so a report may come up to a
second late.
"""

from collections.abc import Mapping
from typing import Final

from roomworker.core import consumers, producers, transports
from roomworker.core.limits import check_count
from roomworker.core.model import Consumer, MediaObject, Peer, Producer, Reporter, ReporterKind, Transport
from roomworker.core.room import Room
from shared.errors import PlenaryError
from shared.protocol import client, media

LEAST_INTERVAL: Final = 1000
"""Milliseconds between two reports of an object, at least."""

REPORTERS_LIMIT: Final = 64
"""Objects of one peer that report stats: each report is a request to the media node."""

LONGEST_INTERVAL: Final = 2**53
"""Milliseconds that are as good as never, and no number of 300 digits."""

JUST_ENABLED: Final = -1
"""Stands for a due time one interval after the first report, which was requested since the last tick."""


def enable_transport(room: Room, peer: Peer, message: client.EnableTransportStats) -> client.Nothing:
    """Has the transport report stats at an interval, at least a second (§enableTransportStats)."""
    transport = transports.find(peer, message.id)
    if _enable(room, peer, transport, message.interval):
        room.save(peer.field_of(transport), transport)
    return client.Nothing()


def enable_producer(room: Room, peer: Peer, message: client.EnableProducerStats) -> client.Nothing:
    """Has the producer report stats (§enableProducerStats)."""
    producer = producers.find(peer, message.id)
    if _enable(room, peer, producer, message.interval):
        room.save(peer.field_of(producer), producer)
    return client.Nothing()


def enable_consumer(room: Room, peer: Peer, message: client.EnableConsumerStats) -> client.Nothing:
    """Has the consumer report stats (§enableConsumerStats)."""
    consumer, _, _ = consumers.find_to_change(room, peer, message.id)
    if _enable(room, peer, consumer, message.interval):
        consumers.save(room, peer, consumer)
    return client.Nothing()


def _enable(room: Room, peer: Peer, reporting: MediaObject, interval: float) -> bool:
    """Starts an object's reports; returns false if it reports already, at an interval that it then keeps.

    The published objects do the same.
    """
    if reporting.stats_interval:
        return False
    check_count(_count_reporters(peer), REPORTERS_LIMIT, "stats of a peer")
    reporting.stats_interval = max(LEAST_INTERVAL, int(min(interval, LONGEST_INTERVAL)))
    reporter = _reporter(peer, reporting)
    room.stats_due[reporter] = JUST_ENABLED
    room.first_stats_wanted.append(reporter)
    return True


def _count_reporters(peer: Peer) -> int:
    owned: tuple[Mapping[int, MediaObject], ...] = (peer.transports, peer.producers, peer.consumers)
    return sum(bool(reporting.stats_interval) for objects in owned for reporting in objects.values())


def disable_transport(room: Room, peer: Peer, message: client.DisableTransportStats) -> client.Nothing:
    """Ends the transport's reports (§disableTransportStats)."""
    transport = transports.find(peer, message.id)
    if _disable(room, peer, transport):
        room.save(peer.field_of(transport), transport)
    return client.Nothing()


def disable_producer(room: Room, peer: Peer, message: client.DisableProducerStats) -> client.Nothing:
    """Ends the producer's reports (§disableProducerStats)."""
    producer = producers.find(peer, message.id)
    if _disable(room, peer, producer):
        room.save(peer.field_of(producer), producer)
    return client.Nothing()


def disable_consumer(room: Room, peer: Peer, message: client.DisableConsumerStats) -> client.Nothing:
    """Ends the consumer's reports (§disableConsumerStats)."""
    consumer, _, _ = consumers.find(room, peer, message.id)
    if _disable(room, peer, consumer):
        consumers.save(room, peer, consumer)
    return client.Nothing()


def _disable(room: Room, peer: Peer, reporting: MediaObject) -> bool:
    """Ends an object's reports; returns false if it had none."""
    room.stats_due.pop(_reporter(peer, reporting), None)
    enabled = bool(reporting.stats_interval)
    reporting.stats_interval = 0
    return enabled


def _reporter(peer: Peer, reporting: MediaObject) -> Reporter:
    return reporting.record_kind, peer.name, reporting.id


def load(room: Room) -> None:
    """Makes the reports of a room that was just loaded due at its first tick."""
    for peer in room.peers.values():
        owned: tuple[Mapping[int, MediaObject], ...] = (peer.transports, peer.producers, peer.consumers)
        for objects in owned:
            for reporting in objects.values():
                if reporting.stats_interval:
                    room.stats_due[_reporter(peer, reporting)] = 0


def take_due(room: Room, now: int) -> list[Reporter]:
    """Returns the reporters that are due at `now` (ms, the partition's time), each due again after its interval.

    While rooms must not grow, none is returned: reports are kept for repetition.
    """
    ready: list[Reporter] = []
    if room.limits.growth.refused:
        return ready
    for reporter, due_at in list(room.stats_due.items()):
        _, reporting = _find(room, reporter)
        if reporting is None or not reporting.stats_interval:
            del room.stats_due[reporter]
            continue
        # half a second early rather than a second late: ticks do not come exactly a second apart
        following = now + reporting.stats_interval - LEAST_INTERVAL // 2
        if due_at == JUST_ENABLED:
            due_at = following - LEAST_INTERVAL
        if due_at <= now:
            due_at = following
            ready.append(reporter)
        room.stats_due[reporter] = due_at
    return ready


def request(room: Room, reporter: Reporter) -> media.GetStats | None:
    """Returns the request to the media node; None while the object is paused, not enabled or without media."""
    peer, reporting = _find(room, reporter)
    if peer is None or reporting is None or not _reports(room, reporting) or not reporting.engine:
        return None
    try:
        router = room.router
    except PlenaryError:
        return None
    return media.GetStats(
        router=router,
        kind=reporting.record_kind,
        object=reporting.engine,
        id=reporting.id,
        transport_id=_transport_id(reporting),
    )


def report(room: Room, reporter: Reporter, engine: media.EngineId, stats: media.Stats) -> None:
    """Sends the stats of the engine's object to its peer, unless the object or its reports ended meanwhile."""
    peer, reporting = _find(room, reporter)
    if peer is None or reporting is None or not _reports(room, reporting) or reporting.engine != engine:
        return
    match reporting:
        case Transport():
            room.notify([peer], client.TransportStats(id=reporting.id, stats=stats.stats))
        case Producer():
            room.notify([peer], client.ProducerStats(id=reporting.id, stats=stats.stats))
        case Consumer():
            sender, _ = room.producers_by_number[reporting.id]
            room.notify([peer], client.ConsumerStats(id=reporting.id, peer_name=sender.name, stats=stats.stats))


def _find(room: Room, reporter: Reporter) -> tuple[Peer | None, MediaObject | None]:
    kind, name, object_id = reporter
    peer = room.peers.get(name)
    return peer, _object(peer, kind, object_id) if peer is not None else None


def _object(peer: Peer, kind: ReporterKind, object_id: int) -> MediaObject | None:
    match kind:
        case "transport":
            return peer.transports.get(object_id)
        case "producer":
            return peer.producers.get(object_id)
        case "consumer":
            return peer.consumers.get(object_id)


def _reports(room: Room, reporting: MediaObject) -> bool:
    """Whether stats are enabled and media can flow."""
    if not reporting.stats_interval:
        return False
    match reporting:
        case Transport():
            return True
        case Producer():
            return not reporting.paused
        case Consumer():
            _, producer = room.producers_by_number[reporting.id]
            return reporting.enabled and not reporting.paused and not producer.paused


def _transport_id(reporting: MediaObject) -> int:
    if isinstance(reporting, Transport):
        return reporting.id
    return reporting.transport or 0
