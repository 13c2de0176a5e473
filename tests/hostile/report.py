"""Shows the outcomes of attacks as a table and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from tests.hostile.verdict import MIB, Latency, Outcome

COLUMNS = (
    "attack",
    "verdict",
    "victim p50/p99 ms",
    "control p50/p99 ms",
    "peak MiB (before)",
    "died",
    "back",
    "left",
)


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Returns a Markdown table, and beneath it what did not hold."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(_row(outcome) for outcome in outcomes)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for outcome in outcomes:
        if outcome.skipped:
            lines.append(f"{outcome.attack} is skipped: {outcome.skipped}")
            continue
        did = ", ".join(f"{count} {name}" for name, count in sorted(outcome.counts.items()))
        lines.append(f"{outcome.attack}: {did or 'nothing counted'}")
        if wrong := [name for name, held in outcome.checks().items() if not held]:
            reason = f" ({outcome.failed})" if outcome.failed else ""
            lines.append(f"{outcome.attack} fails: {', '.join(wrong)}{reason}")
    return "\n".join(lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    if outcome.skipped:
        return (outcome.attack, "skipped", *("" for _ in COLUMNS[2:]))
    peaks = ", ".join(
        f"{name} {peak / MIB:.0f} ({outcome.memory_before.get(name, 0) / MIB:.0f})"
        for name, peak in outcome.memory_peaks.items()
    )
    back = "never" if outcome.back_after is None else f"{outcome.back_after:.1f} s"
    left = f"{len(outcome.left_keys)} keys, {outcome.left_expiring} expiring, {outcome.left_bytes / 1024:.0f} KiB"
    return (
        outcome.attack,
        "passed" if outcome.passed else "FAILED",
        _latency(outcome.victim),
        _latency(outcome.control),
        peaks,
        ", ".join(outcome.died) or "none",
        back,
        left,
    )


def _latency(found: Latency | None) -> str:
    if found is None:
        return ""
    wrong = f", {found.unserved} unserved" if found.unserved else ""
    return f"{1000 * found.p50:.1f} / {1000 * found.p99:.1f}{wrong}"


def as_json(outcomes: Sequence[Outcome], *, note: str) -> str:
    """Returns the outcomes with what they were measured on."""
    found: dict[str, Any] = {
        "note": note,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "attacks": [outcome.as_json() for outcome in outcomes],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
