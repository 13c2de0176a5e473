"""Limits the `appData` that everybody is told who joins a room: of its peers and of their producers.

An answer to `join` repeats all of it, so that it costs its length times all who join, whatever else they do.
"""

from typing import Final

from msgspec import Raw

from roomworker.core.model import Peer
from roomworker.core.room import Room
from shared.errors import TooLarge, TooMany
from shared.protocol import client

PEER_PARTS: Final = 4
"""A peer may tell so many times the largest `appData` in all."""
ROOM_PARTS: Final = 256
"""A room may tell so many times the largest `appData`, and a peer above that a quarter of one."""


def check(room: Room, peer: Peer | None, app_data: client.AppData) -> None:
    """Checks what a peer is to tell besides; `peer` is None if it only joins.

    Raises `TooLarge` beyond the peer's share, `TooMany` beyond the room's.
    """
    most = room.limits.app_data_bytes
    told = _size(app_data) + (_told(peer) if peer is not None else 0)
    if told <= most // 4:
        return
    if told > PEER_PARTS * most:
        raise TooLarge(f"appData: more than {PEER_PARTS * most} bytes of one peer and its producers")
    if told + sum(_told(other) for other in room.peers.values() if other is not peer) > ROOM_PARTS * most:
        raise TooMany(f"appData: more than {ROOM_PARTS * most} bytes of a room's peers and their producers")


def _told(peer: Peer) -> int:
    return _size(peer.data.app_data) + sum(_size(producer.app_data) for producer in peer.producers.values())


def _size(app_data: client.AppData) -> int:
    return len(app_data) if isinstance(app_data, Raw) else 0
