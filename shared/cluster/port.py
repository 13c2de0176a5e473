"""What the processes of a cluster share besides messages: who is there, what all agree on, which rooms there are."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from shared.cluster.redis_keys import Role

Info: TypeAlias = Mapping[str, Any]
"""What a process tells of itself: plain JSON."""


class Cluster(Protocol):
    """`RedisCluster` for several processes, `MemoryCluster` for one; both keep to tests/conformance/test_registry.py.

    Every method raises `redis.RedisError` or `OSError` while the server does not answer, and is carried out as a
    whole even if its caller is cancelled.
    """

    async def announce(self, role: Role, member: str, info: Info) -> None:
        """Puts a process into the registry, or replaces what it said of itself."""
        ...

    async def withdraw(self, role: Role, member: str) -> bool:
        """Removes a process from the registry; false if it was not there."""
        ...

    async def members(self, role: Role) -> dict[str, dict[str, Any]]:
        """Process id → what it said of itself.

        An entry that is not valid is left out, and logged once (`shared.cluster.entries`).
        """
        ...

    async def agree_on_partitions(self, partitions: int) -> int:
        """The cluster's number of partitions; the first process that asks fixes it.

        Raises `shared.cluster.entries.InvalidEntry` if something else stands there.
        """
        ...

    async def epoch(self) -> str:
        """A random value that stays the same until the server is emptied."""
        ...

    async def room_counts(self, partitions: Sequence[int]) -> list[int]:
        """How many entries each partition's index of rooms has."""
        ...

    async def rooms(self, partitions: Sequence[int]) -> list[list[str]]:
        """The names in each partition's index of rooms, in order, each once."""
        ...
