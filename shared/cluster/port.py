"""Defines the port of what a cluster's processes share besides messages: registry, agreements, index of rooms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from shared.cluster.redis_keys import Role

Info: TypeAlias = Mapping[str, Any]
"""The facts that a process publishes about itself, as plain JSON."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The bytes that a server uses for data, and the most it may use; `limit` 0: no limit, or it is not known."""

    used: int = 0
    limit: int = 0

    @property
    def share(self) -> float:
        """The used share of the limit; 0 without one."""
        return self.used / self.limit if self.limit else 0.0


class Cluster(Protocol):
    """The facts that the processes of a cluster share.

    `RedisCluster` is for several processes, `MemoryCluster` for one; tests/conformance/test_registry.py tests both.

    Every method raises `redis.RedisError` or `OSError` while the server does not answer, and is carried out as a
    whole even if its caller is cancelled. What these methods write is small, and is written to a full server as well.
    """

    async def announce(self, role: Role, member: str, info: Info) -> None:
        """Puts a process into the registry, or replaces its facts."""
        ...

    async def withdraw(self, role: Role, member: str) -> bool:
        """Removes a process from the registry; false if it was not there."""
        ...

    async def members(self, role: Role) -> dict[str, dict[str, Any]]:
        """Returns the facts of a role's processes by process id.

        An entry that is not valid is left out, and logged once (`shared.cluster.entries`).
        """
        ...

    async def agree_on_partitions(self, partitions: int) -> int:
        """Returns the cluster's number of partitions; the first process that asks fixes it.

        Raises `shared.cluster.entries.InvalidEntry` if something else stands there.
        """
        ...

    async def epoch(self) -> str:
        """Returns a random value that stays the same until the server is emptied."""
        ...

    async def advance_time(self, now: int, first: int) -> int:
        """Returns the cluster's time (ms), which is `now` from here on if that is greater, and never falls.

        A cluster without a time begins with `first`, the wall clock of the process that asks.
        """
        ...

    async def memory(self) -> MemoryUse:
        """Returns the server's use of memory."""
        ...

    async def room_counts(self, partitions: Sequence[int]) -> list[int]:
        """Returns the number of entries in each partition's index of rooms."""
        ...

    async def rooms(self, partitions: Sequence[int]) -> list[list[str]]:
        """Returns the names in each partition's index of rooms, in order, each once."""
        ...
