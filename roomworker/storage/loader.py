"""Loads a room from its stored fields and computes its derived parts anew."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from roomworker.core import stats
from roomworker.core.budget import WorkerTotal, size_of, size_of_session
from roomworker.core.limits import DEFAULTS, Limits
from roomworker.core.model import (
    META,
    ClosedSession,
    Consumer,
    EngineDeaths,
    Meta,
    Peer,
    PeerData,
    Producer,
    Session,
    StoredAnswer,
    Transport,
)
from roomworker.core.room import Room
from roomworker.storage.port import Stored

RECORD_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one record, far above the largest that a client can cause."""
COUNTED_FACTOR: Final = 2
"""Factor of a room's limit up to which it is loaded: the limit may have been lowered, or the counting changed."""

R = TypeVar("R", PeerData, Transport, Producer, Consumer)

_meta = msgspec.json.Decoder(Meta).decode
_session = msgspec.json.Decoder(Session).decode
_peer = msgspec.json.Decoder(PeerData).decode
_transport = msgspec.json.Decoder(Transport).decode
_producer = msgspec.json.Decoder(Producer).decode
_consumer = msgspec.json.Decoder(Consumer).decode
_engine_deaths = msgspec.json.Decoder(EngineDeaths).decode
_encode = msgspec.json.Encoder().encode


class RoomTooLarge(ValueError):
    """The room would take more memory than it may."""


def trace_of(room: Room) -> bytes:
    """Returns what the room leaves to a later room of its name when it is deleted; empty: nothing."""
    return _encode(room.meta.engine_deaths) if room.meta.engine_deaths else b""


def load_stored(name: str, partition: int, stored: Stored, limits: Limits, total: WorkerTotal) -> Room:
    """Returns the room that is stored, or an empty one without an incarnation. Raises as `load` does."""
    incarnation, _, n = stored.version.partition(":")
    return load(
        name,
        partition,
        incarnation,
        int(n or 0),
        stored.fields,
        stored.closed_sessions,
        stored.answered_calls,
        limits,
        stored.trace,
        total,
    )


def load(
    name: str,
    partition: int,
    incarnation: str,
    n: int,
    fields: Mapping[str, bytes],
    closed_sessions: Mapping[str, ClosedSession],
    answered_calls: Mapping[str, StoredAnswer] = MappingProxyType({}),
    limits: Limits = DEFAULTS,
    trace: bytes = b"",
    total: WorkerTotal | None = None,
) -> Room:
    """Returns the room in memory.

    Raises `RoomTooLarge`, or `msgspec.MsgspecError` or `KeyError` if the fields are not a room's.

    A room that has no record of its own yet gets what the last room of its name left in its `trace`.
    """
    room = Room(name, partition, incarnation, n, limits, total)
    room.closed_sessions.update(closed_sessions)
    room.answered_calls.update(answered_calls)
    if META in fields:
        room.meta = _meta(fields[META])
        room.configure()
    elif trace:
        room.meta.engine_deaths = _engine_deaths(trace)
    of_kind = _by_kind(fields)
    for value in of_kind["session"]:
        session = _session(value[1])
        room.sessions[session.id] = session
        room.session_of[session.peer] = session
        room.budget.add_to_room(size_of_session(session))
    for data in sorted((_read(room, _peer, *one) for one in of_kind["peer"]), key=lambda data: data.number):
        room.peers[data.name] = Peer(data, room.session_of[data.name])
    _load_media(room, of_kind)
    stats.load(room)
    return room


def _read(room: Room, decode: Callable[[bytes], R], owner: str, value: bytes) -> R:
    """Decodes a record of a peer and counts its bytes. Raises `RoomTooLarge` before there are too many.

    A version with other limits may have stored the record: decoded, it can be thirty times as large as in the store.
    """
    if len(value) > RECORD_BYTES:
        raise RoomTooLarge(f"too large: a record of {len(value)} bytes")
    record = decode(value)
    room.budget.add(owner, size_of(record))
    if room.budget.total > COUNTED_FACTOR * room.limits.room_bytes:
        raise RoomTooLarge(f"too large: more than {COUNTED_FACTOR} times {room.limits.room_bytes} bytes, as counted")
    return record


def _load_media(room: Room, of_kind: Mapping[str, list[tuple[str, bytes]]]) -> None:
    for owner, value in of_kind["transport"]:
        transport = _read(room, _transport, owner, value)
        room.peers[owner].transports[transport.id] = transport
    producers = [(owner, _read(room, _producer, owner, value)) for owner, value in of_kind["producer"]]
    for owner, producer in sorted(producers, key=lambda pair: pair[1].number):
        peer = room.peers[owner]
        peer.producers[producer.id] = producer
        room.producers_by_number[producer.number] = (peer, producer)
    for owner, value in of_kind["consumer"]:
        consumer = _read(room, _consumer, owner, value)
        peer = room.peers[owner]
        peer.consumers[consumer.id] = consumer
        if consumer.engine:
            room.consumers_by_engine[consumer.engine] = (peer, consumer)


def _by_kind(fields: Mapping[str, bytes]) -> dict[str, list[tuple[str, bytes]]]:
    """Returns (owning peer's name, record) by kind."""
    of_kind: dict[str, list[tuple[str, bytes]]] = {
        kind: [] for kind in ("session", "peer", "transport", "producer", "consumer")
    }
    for name, value in fields.items():
        kind, _, rest = name.partition("|")
        if kind in of_kind:
            owner = rest if kind in ("session", "peer") else rest.partition("|")[2]
            of_kind[kind].append((owner, value))
    return of_kind
