"""A room's state in comparable form: its records as they are stored, and its derived indexes."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from roomworker.core.room import Room


def snapshot(room: Room) -> dict[str, Any]:
    """Everything a room knows, by the names of its records, and its derived indexes."""
    encode = msgspec.json.encode
    records: dict[str, Any] = {"meta": encode(room.meta)}
    for session in room.sessions.values():
        records[session.field] = encode(session)
    for peer in room.peers.values():
        records[peer.field] = encode(peer.data)
        for kind, objects in _objects(peer):
            for id_, record in objects.items():
                records[f"{kind}|{id_}|{peer.name}"] = encode(record)
    return records


def indexes(room: Room) -> dict[str, Any]:
    """Returns what is derived from the records, in comparable form."""
    return {
        "peers": list(room.peers),
        "session_of": {name: session.id for name, session in room.session_of.items()},
        "sessions": sorted(room.sessions),
        "sources": {number: (peer.name, source.id) for number, (peer, source) in room.producers_by_number.items()},
        "engines": {engine: (peer.name, fed.id) for engine, (peer, fed) in room.consumers_by_engine.items()},
        "closed_sessions": room.closed_sessions,
        "n": room.n,
    }


def _objects(peer: Any) -> Iterable[tuple[str, Mapping[int, Any]]]:
    return (("transport", peer.transports), ("producer", peer.producers), ("consumer", peer.consumers))
