"""Logs a room's life, derived from its commits: its start, placement and end, peers that join and leave, and the loss
of its media, which is counted as well."""

import logging
from typing import Any, Final

from roomworker.core.engine_deaths import REFUSED_MS
from roomworker.core.journal import Changes
from roomworker.core.model import META, Placement
from roomworker.core.room import Room
from roomworker.counters import Counters
from shared.telemetry import log

MEDIA_REFUSED: Final = "room.media_refused"
_PEER: Final = "peer|"

logger = log.get("room")


class RoomLog:
    """Derives and writes the log lines of one room; nothing is derived while the level `info` is off."""

    def __init__(self, room: str, partition: int, counters: Counters) -> None:
        self._room = room
        self._partition = partition
        self._counters = counters
        self._sessions: dict[str, str] = {}
        """The session of each peer, as committed."""
        self._placement: Placement | None = None
        self._refused_until = 0

    def loaded(self, room: Room) -> None:
        """Takes the peers, placement and refusal of the stored room, which are not logged again."""
        self._sessions = {name: peer.session.id for name, peer in room.peers.items()}
        self._placement = room.meta.placement
        self._refused_until = _refused_until(room)

    def taken_over(self, room: Room) -> None:
        """Logs that this worker continues a room that another one served."""
        self._write("room.taken_over", {"sessions": len(room.sessions), "peers": len(room.peers)})

    def events_of(self, room: Room, changes: Changes, *, first: bool) -> list[tuple[str, dict[str, Any]]]:
        """Returns the events, with their keys, to log once `changes`, just taken from `room`, are committed."""
        events: list[tuple[str, dict[str, Any]]] = []
        if (refused_until := _refused_until(room)) > self._refused_until:
            deaths = room.meta.engine_deaths
            events.append((MEDIA_REFUSED, {"engine_deaths": deaths.number if deaths else 0}))
        self._refused_until = refused_until
        if not log.is_enabled(logging.INFO):
            return events
        if first:
            events.append(("room.started", {}))
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
        """Logs the events of a commit, and counts the loss of media."""
        for event, keys in events:
            if event == MEDIA_REFUSED:
                self._counters.media_refusals_total += 1
                logger.error(event, room=self._room, partition=self._partition, seconds=REFUSED_MS // 1000, **keys)
            else:
                self._write(event, keys)

    def ended(self) -> None:
        """Logs that the room was deleted."""
        self._write("room.ended", {})

    def _write(self, event: str, keys: dict[str, Any]) -> None:
        logger.info(event, room=self._room, partition=self._partition, **keys)


def _refused_until(room: Room) -> int:
    return room.meta.engine_deaths.refused_until if room.meta.engine_deaths else 0
