"""Finds out which gateways, room workers and media nodes are alive by their heartbeats.

Each role has a registry, process id → `{"beat": n, …}` (`shared.cluster.port`). Entries do not expire: a process is
dead only when one observer has *read* the same beat for `DEAD_AFTER` seconds of its own clock (DELIVERY T2), so that
a Redis outage makes no process look dead. Ids contain a random boot id and are never reused.
"""

from collections.abc import Mapping
from typing import Any

from shared.cluster.port import Cluster, Info
from shared.cluster.redis_keys import Role

BEAT_EVERY = 1.0
"""Seconds between two heartbeats."""
NODE_BEAT_EVERY = 0.5
"""Seconds between two heartbeats of a media node, whose death interrupts the media of many calls."""
DEAD_AFTER = 5.0
"""Seconds without a new heartbeat after which a process is dead."""


class Membership:
    """The entry of this process. `info` is public (load, addresses) and may be replaced at any time."""

    def __init__(self, cluster: Cluster, role: Role, member: str, info: Info) -> None:
        self._cluster = cluster
        self._role: Role = role
        self.member = member
        self.info = info
        self._beat = 0

    async def beat(self) -> None:
        """Announces this process once more. Call it every `BEAT_EVERY` seconds. Raises `redis.RedisError`."""
        self._beat += 1
        await self._cluster.announce(self._role, self.member, {**self.info, "beat": self._beat})

    async def leave(self) -> None:
        """Removes the entry, so that others need not wait for `DEAD_AFTER`."""
        await self._cluster.withdraw(self._role, self.member)


class Observer:
    """Reads one role's members and judges, by its own clock, which are alive."""

    def __init__(self, cluster: Cluster, role: Role) -> None:
        self._cluster = cluster
        self._role: Role = role
        self._seen: dict[str, tuple[int, float]] = {}
        self._last_read: float | None = None
        self._since = 0.0
        self._unlisted: dict[str, float] = {}
        self._heard: set[str] = set()
        self._marked_dead: dict[str, int] = {}
        self.alive: dict[str, dict[str, Any]] = {}
        self.dead: set[str] = set()

    async def read(self, now: float) -> None:
        """Reads the registry once; `now` is this process's monotonic clock, seconds. Raises `redis.RedisError`.

        `alive` and `dead` are then the listed members, as judged here; a member that is not listed has left.
        """
        self.update(await self._cluster.members(self._role), now)

    def failed(self) -> None:
        """Notes that a read failed: time that passed unobserved proves nothing, so every count starts again."""
        self._last_read = None

    def update(self, members: Mapping[str, dict[str, Any]], now: float) -> None:
        """Judges the members that were read at `now`."""
        restart = self._last_read is None or now - self._last_read > DEAD_AFTER
        if restart:
            self._since = now
        self._last_read = now
        seen: dict[str, tuple[int, float]] = {}
        for name, info in members.items():
            beat = info["beat"]
            known = self._seen.get(name)
            if known and known[0] != beat:
                self._heard.add(name)
            unchanged_since = known[1] if known and known[0] == beat and not restart else now
            seen[name] = (beat, unchanged_since)
        self._seen = seen
        self._heard &= seen.keys()
        self._unlisted = {} if restart else {name: at for name, at in self._unlisted.items() if name not in members}
        self._marked_dead = {
            name: beat for name, beat in self._marked_dead.items() if seen.get(name, (0, 0))[0] == beat
        }
        self.dead = {
            name for name, (_, since) in seen.items() if now - since >= DEAD_AFTER or name in self._marked_dead
        }
        self.alive = {name: info for name, info in members.items() if name not in self.dead}

    def mark_dead(self, member: str) -> None:
        """Declares a member dead that is known to be by other signs, until its beat changes."""
        if member in self._seen:
            self._marked_dead[member] = self._seen[member][0]
            self.alive.pop(member, None)
            self.dead.add(member)

    def undisturbed_for(self, now: float) -> float:
        """Returns the seconds since the first read after which none failed."""
        return now - self._since if self._last_read is not None else 0.0

    def is_dead(self, member: str, now: float) -> bool:
        """Returns whether a member is dead, or has not been listed for `DEAD_AFTER` seconds."""
        if member in self.alive or self._last_read is None:
            return False
        return member in self.dead or now - self._unlisted.setdefault(member, now) >= DEAD_AFTER

    def silent_for(self, member: str, now: float) -> float:
        """Returns the seconds since the member's beat changed; infinity if it is not listed."""
        seen = self._seen.get(member)
        return now - seen[1] if seen else float("inf")

    def beating(self, within: float, now: float) -> set[str]:
        """Returns the living members whose beat was seen to change, the last time within so many seconds.

        `alive` has dead members for a while, and all that are listed while this observer has only begun to look.
        """
        return {name for name in self._heard & self.alive.keys() if now - self._seen[name][1] < within}

    def dead_for(self, seconds: float, now: float) -> list[str]:
        """Returns the members whose beat has not changed for `seconds`."""
        return [name for name, (_, since) in self._seen.items() if now - since >= seconds]

    async def evict(self, member: str) -> bool:
        """Removes a dead member's entry; returns False if another observer did."""
        return await self._cluster.withdraw(self._role, member)
