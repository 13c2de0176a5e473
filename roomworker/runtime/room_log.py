"""Logs a room's life, derived from its commits: its start, placement and end, and peers that join and leave."""

import logging
from typing import Any, Final

from roomworker.core.journal import Changes
from roomworker.core.model import META, Placement
from roomworker.core.room import Room
from shared.telemetry import log

_PEER: Final = "peer|"

logger = log.get("room")


class RoomLog:
    """Derives and writes the log lines of one room; nothing is derived while the level `info` is off."""

    def __init__(self, room: str, partition: int) -> None:
        self._room = room
        self._partition = partition
        self._sessions: dict[str, str] = {}
        """The session of each peer, as committed."""
        self._placement: Placement | None = None

    def loaded(self, room: Room) -> None:
        """Takes the peers and the placement of the stored room, which are not logged again."""
        self._sessions = {name: peer.session.id for name, peer in room.peers.items()}
        self._placement = room.meta.placement

    def taken_over(self, room: Room) -> None:
        """Logs that this worker continues a room that another one served."""
        self._write("room.taken_over", {"sessions": len(room.sessions), "peers": len(room.peers)})

    def events_of(self, room: Room, changes: Changes, *, first: bool) -> list[tuple[str, dict[str, Any]]]:
        """Returns the events, with their keys, to log once `changes`, just taken from `room`, are committed."""
        if not log.is_enabled(logging.INFO):
            return []
        events: list[tuple[str, dict[str, Any]]] = [("room.started", {})] if first else []
        if META in changes.fields and room.meta.placement != self._placement:
            self._placement = room.meta.placement
            if self._placement is not None:
                events.append(("room.placed", {"node": self._placement.node}))
        for name in changes.fields:
            if name.startswith(_PEER):
                events += self._peer_events(room, name.removeprefix(_PEER))
        return events

    def _peer_events(self, room: Room, name: str) -> list[tuple[str, dict[str, Any]]]:
        before = self._sessions.pop(name, None)
        peer = room.peers.get(name)
        now = peer.session.id if peer else None
        if now is not None:
            self._sessions[name] = now
        if now == before:
            return []
        left = [] if before is None else [("peer.left", {"peer": name, "session": before})]
        joined = [] if now is None else [("peer.joined", {"peer": name, "session": now})]
        return [*left, *joined]

    def committed(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        """Logs the events of a commit."""
        for event, keys in events:
            self._write(event, keys)

    def ended(self) -> None:
        """Logs that the room was deleted."""
        self._write("room.ended", {})

    def _write(self, event: str, keys: dict[str, Any]) -> None:
        logger.info(event, room=self._room, partition=self._partition, **keys)
