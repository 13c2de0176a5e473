"""Watches how much of its `maxmemory` Redis uses, and says when it is time to save memory.

Redis with `noeviction` refuses every command that may need memory once `maxmemory` is reached. Two marks lie before:
from the first on room workers trim what they keep for repetition, from the second on nothing may grow
(docs/explanation/failure-modes.md). `MemoryWatch` is told the figures about once a second.
"""

from typing import Final

from shared.cluster.port import MemoryUse
from shared.telemetry import log

HYSTERESIS: Final = 0.02
"""The share by which the use must fall below a mark before the mark counts as not reached any more."""

logger = log.get("redis")


class MemoryWatch:
    """Compares Redis' memory with two marks, which are shares of `maxmemory`; `trim_at` is not above `refuse_at`.

    Without a `maxmemory` no mark is ever reached.
    """

    def __init__(self, trim_at: float, refuse_at: float) -> None:
        self._trim_at = trim_at
        self._refuse_at = refuse_at
        self.use = MemoryUse()
        self.is_high = False
        """Whether the first mark is reached: less is to be kept."""
        self.is_full = False
        """Whether the second mark is reached: nothing may grow."""

    @property
    def trouble(self) -> str:
        """The reason why no room may grow now; empty if rooms may."""
        return f"Redis uses {self.use.share:.0%} of its maxmemory" if self.is_full else ""

    def update(self, use: MemoryUse) -> None:
        """Takes the present figures; logs when a mark is reached and when it is not any more."""
        self.use = use
        before = self.is_high, self.is_full
        self.is_high = use.share >= self._trim_at - (HYSTERESIS if self.is_high else 0.0)
        self.is_full = use.share >= self._refuse_at - (HYSTERESIS if self.is_full else 0.0)
        if (self.is_high, self.is_full) == before:
            return
        facts = {"used_bytes": use.used, "maxmemory_bytes": use.limit}
        if self.is_full:
            logger.error(
                "redis.memory_full", hint="nothing may grow until there is more memory or less data", **facts
            )
        elif self.is_high:
            logger.warning("redis.memory_high", **facts)
        else:
            logger.info("redis.memory_sufficient", **facts)
