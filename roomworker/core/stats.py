"""Periodic stats (§enableTransportStats … §consumerStats): which objects report, when, and what is told.

Whether an object reports is stored with it (`stats_interval`, ms); when it is next due is not: after a takeover
all are due at the first tick. The clock is the partition's ticks, so a report may come up to a second late.
"""

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from roomworker.core import consumers, producers, transports
from roomworker.core.consumers import Consumer
from roomworker.core.producers import Producer
from roomworker.core.transports import Transport
from shared.errors import PlenaryError
from shared.protocol import client, media

if TYPE_CHECKING:
    from roomworker.core.peers import Peer
    from roomworker.core.room import Room

LEAST_INTERVAL: Final = 1000

JUST_ENABLED: Final = -1
"""Due its interval after the first report, which came at some time since the last tick."""

Kind: TypeAlias = Literal["transport", "producer", "consumer"]
Reporter: TypeAlias = tuple[Kind, str, int]
"""(kind, peer's name, id)"""

Object: TypeAlias = Transport | Producer | Consumer


def enable_transport(room: "Room", peer: "Peer", message: client.EnableTransportStats) -> client.Nothing:
    found = transports.find(peer, message.id)
    if _enable(room, ("transport", peer.name, found.id), found, message.interval):
        room.save(transports.field(peer, found.id), found)
    return client.Nothing()


def enable_producer(room: "Room", peer: "Peer", message: client.EnableProducerStats) -> client.Nothing:
    found = producers.find(peer, message.id)
    if _enable(room, ("producer", peer.name, found.id), found, message.interval):
        room.save(producers.field(peer, found.id), found)
    return client.Nothing()


def enable_consumer(room: "Room", peer: "Peer", message: client.EnableConsumerStats) -> client.Nothing:
    found, _, _ = consumers.find(room, peer, message.id)
    if _enable(room, ("consumer", peer.name, found.id), found, message.interval):
        consumers.keep(room, peer, found)
    return client.Nothing()


def _enable(room: "Room", reporter: Reporter, found: Object, interval: float) -> bool:
    """Already enabled stays as it is, its interval too (as in the published objects)."""
    if found.stats_interval:
        return False
    found.stats_interval = max(LEAST_INTERVAL, int(interval))
    room.reporters[reporter] = JUST_ENABLED
    room.stats_wanted.append(reporter)
    return True


def disable_transport(room: "Room", peer: "Peer", message: client.DisableTransportStats) -> client.Nothing:
    found = transports.find(peer, message.id)
    if _disable(room, ("transport", peer.name, found.id), found):
        room.save(transports.field(peer, found.id), found)
    return client.Nothing()


def disable_producer(room: "Room", peer: "Peer", message: client.DisableProducerStats) -> client.Nothing:
    found = producers.find(peer, message.id)
    if _disable(room, ("producer", peer.name, found.id), found):
        room.save(producers.field(peer, found.id), found)
    return client.Nothing()


def disable_consumer(room: "Room", peer: "Peer", message: client.DisableConsumerStats) -> client.Nothing:
    found, _, _ = consumers.find(room, peer, message.id)
    if _disable(room, ("consumer", peer.name, found.id), found):
        consumers.keep(room, peer, found)
    return client.Nothing()


def _disable(room: "Room", reporter: Reporter, found: Object) -> bool:
    room.reporters.pop(reporter, None)
    enabled = bool(found.stats_interval)
    found.stats_interval = 0
    return enabled


def load(room: "Room") -> None:
    """Finds who reports in a room just read."""
    for peer in room.peers.values():
        of_kind: tuple[tuple[Kind, dict[int, Transport] | dict[int, Producer] | dict[int, Consumer]], ...] = (
            ("transport", peer.transports),
            ("producer", peer.producers),
            ("consumer", peer.consumers),
        )
        for kind, objects in of_kind:
            for id_, found in objects.items():
                if found.stats_interval:
                    room.reporters[kind, peer.name, id_] = 0


def due(room: "Room", now: int) -> list[Reporter]:
    """Who is to report now; each is due again after its interval. `now` is the partition's time, ms."""
    ready: list[Reporter] = []
    for reporter, at in list(room.reporters.items()):
        _, found = _find(room, reporter)
        if found is None or not found.stats_interval:
            del room.reporters[reporter]
            continue
        # half a second early rather than one late: ticks come a second apart, but not exactly
        following = now + found.stats_interval - LEAST_INTERVAL // 2
        if at == JUST_ENABLED:
            at = following - LEAST_INTERVAL
        if at <= now:
            at = following
            ready.append(reporter)
        room.reporters[reporter] = at
    return ready


def request(room: "Room", reporter: Reporter) -> media.GetStats | None:
    """What to ask the media node; None while there is nothing to tell: paused, not enabled, no media."""
    peer, found = _find(room, reporter)
    if peer is None or found is None or not found.engine or not found.stats_interval or _is_silent(room, found):
        return None
    try:
        router = room.router
    except PlenaryError:
        return None
    return media.GetStats(
        router=router, kind=reporter[0], object=found.engine, id=reporter[2], transport_id=_transport_id(found)
    )


def report(room: "Room", reporter: Reporter, engine: media.EngineId, stats: media.Stats) -> None:
    """Tells the peer, if it still wants to know of that object of the engine."""
    peer, found = _find(room, reporter)
    if peer is None or found is None or not found.stats_interval or _is_silent(room, found):
        return
    if found.engine != engine:
        return
    match found:
        case Transport():
            room.notify([peer], client.TransportStats(id=found.id, stats=stats.stats))
        case Producer():
            room.notify([peer], client.ProducerStats(id=found.id, stats=stats.stats))
        case Consumer():
            sender, _ = room.sources[found.id]
            room.notify([peer], client.ConsumerStats(id=found.id, peer_name=sender.name, stats=stats.stats))


def _find(room: "Room", reporter: Reporter) -> "tuple[Peer | None, Object | None]":
    kind, name, id_ = reporter
    peer = room.peers.get(name)
    if peer is None:
        return None, None
    match kind:
        case "transport":
            return peer, peer.transports.get(id_)
        case "producer":
            return peer, peer.producers.get(id_)
        case "consumer":
            return peer, peer.consumers.get(id_)


def _is_silent(room: "Room", found: Object) -> bool:
    match found:
        case Transport():
            return False
        case Producer():
            return found.paused
        case Consumer():
            return not found.enabled or found.paused or room.sources[found.id][1].paused


def _transport_id(found: Object) -> int:
    if isinstance(found, Transport):
        return found.id
    return found.transport or 0
