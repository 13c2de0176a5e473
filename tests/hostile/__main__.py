"""Attacks a cluster: python -m tests.hostile --help."""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from devtools.starting import Unavailable
from tests.hostile import report
from tests.hostile.catalogue import ATTACKS
from tests.hostile.driver import Plan, run
from tests.hostile.limits import memory_cgroups
from tests.hostile.stage import limited_servers
from tests.hostile.verdict import Outcome

SKIPPED: int = 0


async def attacks(names: list[str], plan: Plan, logs: Path) -> list[Outcome]:
    """Makes the attacks and returns their outcomes. Raises `Unavailable`."""
    outcomes: list[Outcome] = []
    with memory_cgroups() as groups, limited_servers(groups) as (redis_server, broker):
        async for outcome in run(names, groups, redis_server, broker, logs, plan, typer.echo):
            outcomes.append(outcome)
            typer.echo(report.as_table([outcome]) + "\n")
    return outcomes


def main(
    attack: Annotated[list[str] | None, typer.Option(help="Only these; by default all.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each attack lasts at least.")] = 20.0,
    control: Annotated[float, typer.Option(help="How long each control run lasts; 0: none.")] = 20.0,
    left_after: Annotated[float, typer.Option(help="Seconds until nothing may be left in Redis.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Chooses what attackers choose.")] = 1,
    note: Annotated[str, typer.Option(help="A text for the JSON, such as the version.")] = "",
    file: Annotated[Path | None, typer.Option("--json", help="Write the outcomes there.")] = None,
    logs: Annotated[Path | None, typer.Option(help="Folder for the processes' logs; by default a new one.")] = None,
) -> None:
    """Makes attacks one after another, and exits with 1 if one did more than it may."""
    names = attack or list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        raise typer.BadParameter(f"no attack {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    folder = logs or Path(tempfile.mkdtemp(prefix="plenary-hostile-"))
    folder.mkdir(parents=True, exist_ok=True)
    typer.echo(f"logs: {folder}")
    try:
        outcomes = asyncio.run(attacks(names, Plan(seconds, control, left_after, seed), folder))
    except Unavailable as reason:
        typer.echo(f"skipped: {reason}")
        sys.exit(SKIPPED)
    typer.echo(report.as_table(outcomes))
    if file:
        file.write_text(report.as_json(outcomes, note=note))
    sys.exit(0 if all(outcome.passed or outcome.skipped for outcome in outcomes) else 1)


if __name__ == "__main__":
    typer.run(main)
