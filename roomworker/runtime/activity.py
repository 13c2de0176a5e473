"""What the log says of a room's life, derived from its commits: it begins and ends, peers come and go."""

import logging
from typing import Any, Final

from roomworker.core.journal import Changes
from roomworker.core.model import META, Placement
from roomworker.core.room import Room
from shared.telemetry import log

_PEER: Final = "peer|"

logger = log.get("room")


class Activity:
    """One room's. Nothing is derived while the level `info` is off."""

    def __init__(self, room: str, partition: int) -> None:
        self._room = room
        self._partition = partition
        self._sessions: dict[str, str] = {}
        """Peer → session, as committed."""
        self._placement: Placement | None = None

    def loaded(self, room: Room) -> None:
        """The room as it is stored: what it has is no news."""
        self._sessions = {name: peer.session.id for name, peer in room.peers.items()}
        self._placement = room.meta.placement

    def taken_over(self, room: Room) -> None:
        """Another worker served the room before."""
        self._say("room.taken_over", {"sessions": len(room.sessions), "peers": len(room.peers)})

    def of(self, room: Room, changes: Changes, *, first: bool) -> list[tuple[str, dict[str, Any]]]:
        """The events and their keys that are to be told once `changes`, just taken from `room`, are committed."""
        if not log.is_enabled(logging.INFO):
            return []
        events: list[tuple[str, dict[str, Any]]] = [("room.started", {})] if first else []
        if META in changes.fields and room.meta.placement != self._placement:
            self._placement = room.meta.placement
            if self._placement is not None:
                events.append(("room.placed", {"node": self._placement.node}))
        for name in changes.fields:
            if name.startswith(_PEER):
                events += self._of_peer(room, name.removeprefix(_PEER))
        return events

    def _of_peer(self, room: Room, name: str) -> list[tuple[str, dict[str, Any]]]:
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
        for event, keys in events:
            self._say(event, keys)

    def ended(self) -> None:
        self._say("room.ended", {})

    def _say(self, event: str, keys: dict[str, Any]) -> None:
        logger.info(event, room=self._room, partition=self._partition, **keys)
