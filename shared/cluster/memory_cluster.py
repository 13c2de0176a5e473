"""Keeps the registry and the other shared facts of a cluster that is one process."""

import secrets
from collections.abc import Sequence
from typing import Any

import orjson

from shared.cluster.entries import EntryReader
from shared.cluster.port import Info, MemoryUse
from shared.cluster.redis_keys import Role, indexed_rooms


class MemoryCluster:
    """Implements `shared.cluster.port.Cluster`.

    `index` is partition → entries as `shared.cluster.redis_keys.index_member` makes them; the store of the same
    process keeps it (`roomworker.storage.memory`). `entries` is role → process id → JSON, the registry.
    """

    def __init__(self) -> None:
        self.index: dict[int, set[str]] = {}
        self.entries: dict[Role, dict[bytes, bytes]] = {"gateways": {}, "workers": {}, "nodes": {}}
        self.memory_use = MemoryUse()
        """The answer of `memory`; a test may set it."""
        self._reader = EntryReader()
        self._partitions: int | None = None
        self._epoch = secrets.token_hex(8)
        self._time: int | None = None

    async def announce(self, role: Role, member: str, info: Info) -> None:
        self.entries[role][member.encode()] = orjson.dumps(info)

    async def withdraw(self, role: Role, member: str) -> bool:
        return self.entries[role].pop(member.encode(), None) is not None

    async def members(self, role: Role) -> dict[str, dict[str, Any]]:
        return self._reader.decode(role, self.entries[role])

    async def agree_on_partitions(self, partitions: int) -> int:
        if self._partitions is None:
            self._partitions = partitions
        return self._partitions

    async def epoch(self) -> str:
        return self._epoch

    async def advance_time(self, now: int, first: int) -> int:
        self._time = max(now, first if self._time is None else self._time)
        return self._time

    async def memory(self) -> MemoryUse:
        return self.memory_use

    async def room_counts(self, partitions: Sequence[int]) -> list[int]:
        return [len(self.index.get(partition, ())) for partition in partitions]

    async def rooms(self, partitions: Sequence[int]) -> list[list[str]]:
        return [indexed_rooms(self.index.get(partition, ())) for partition in partitions]

    def clear(self) -> None:
        """Forgets everything, as a server that was emptied does."""
        self.index.clear()
        for members in self.entries.values():
            members.clear()
        self._partitions = None
        self._time = None
        self._epoch = secrets.token_hex(8)
