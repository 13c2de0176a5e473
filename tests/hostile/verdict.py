"""What is measured of one attack, and whether it is good enough. Pure."""

from typing import Any, Final

import msgspec

P99_LIMIT: Final = 0.1
"""Seconds that the victims' p99 must stay below,"""
P99_TIMES_CONTROL: Final = 3.0
"""or this many times that of the control run."""
LEAST_SAMPLES: Final = 1000
BACK_WITHIN: Final = 10.0
"""Seconds after the end in which everything must serve again."""
LEFT_BYTES: Final = 64 * 1024
"""Bytes that closed sessions and rooms may still take in Redis a minute later: they are known for ten minutes, and
expire. Keys without an expiry must not be there at all."""
MIB: Final = 1024 * 1024


class Latency(msgspec.Struct):
    """Seconds that the victims waited. `refused` were answered with an error, `unserved` not at all."""

    samples: int = 0
    p50: float = 0.0
    p99: float = 0.0
    refused: int = 0
    unserved: int = 0


class Outcome(msgspec.Struct):
    """One attack. Memory is in bytes by process; keys and bytes are those of Redis without the victims' room."""

    attack: str
    what: str
    seconds: float = 0.0
    skipped: str = ""
    failed: str = ""
    """The reason why the attack itself could not be made."""
    control: Latency | None = None
    victim: Latency | None = None
    counts: dict[str, int] = {}
    """What the attacker did and saw."""
    control_counts: dict[str, int] = {}
    memory_before: dict[str, int] = {}
    memory_peaks: dict[str, int] = {}
    died: list[str] = []
    back_after: float | None = None
    """Seconds from the end until everything served again; None: not while anybody looked."""
    left_keys: list[str] = []
    left_expiring: int = 0
    left_bytes: int = 0
    bytes_before: int = 0
    judges_latency: bool = True
    server_checks: dict[str, bool] = {}
    """What an attack on a server, or on a media port, must hold besides."""

    def checks(self, *, samples: int = LEAST_SAMPLES) -> dict[str, bool]:
        """Returns whether each thing that must hold did."""
        found = {"the attack was made": not self.failed, "no process died": not self.died}
        if self.judges_latency:
            found[f"{samples} samples"] = self.victim is not None and self.victim.samples >= samples
            found["victims were served"] = self._victims_were_served()
        found["back within 10 s"] = self.back_after is not None and self.back_after <= BACK_WITHIN
        found["nothing left in Redis"] = not self.left_keys and self.left_bytes <= self.bytes_before + LEFT_BYTES
        return found | self.server_checks

    def _victims_were_served(self) -> bool:
        if self.victim is None:
            return False
        control = self.control.p99 if self.control is not None else 0.0
        return self.victim.p99 < P99_LIMIT or self.victim.p99 <= P99_TIMES_CONTROL * control

    @property
    def passed(self) -> bool:
        return not self.skipped and all(self.checks().values())

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"checks": self.checks(), "passed": self.passed}
