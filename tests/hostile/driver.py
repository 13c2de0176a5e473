"""Makes attacks one after another: each beside a control run, with what it did to the victims and left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from devtools.servers import Server
from tests.hostile import server_faults
from tests.hostile.catalogue import ATTACKS, Entry
from tests.hostile.limits import MemoryCgroups
from tests.hostile.processes import AttackerProcess, AttackFailed, discarding
from tests.hostile.stage import Stage, engine_here, page_is_built, staged
from tests.hostile.target import Counts, Target
from tests.hostile.verdict import BACK_WITHIN, Latency, Outcome
from tests.hostile.victims import PROMPT, QUIET_RATE, RATE, Victims, Waiting, probe

LOOKED_FOR: Final = 3 * BACK_WITHIN
"""Seconds after an attack until the driver gives up waiting for the cluster to serve again."""
PROBES: Final = 5
"""Prompt answers in a row after which the cluster serves again."""


class Plan:
    """How long everything lasts: seconds of an attack, of a control run (0: none), and to what is left in Redis."""

    def __init__(self, seconds: float, control: float, left_after: float, seed: int) -> None:
        self.seconds = seconds
        self.control = control
        self.left_after = left_after
        self.seed = seed


async def run(
    names: Sequence[str],
    groups: MemoryCgroups,
    redis_server: Server,
    broker: Server,
    logs: Path,
    plan: Plan,
    tell: Callable[[str], None],
) -> AsyncIterator[Outcome]:
    """Yields the outcome of each attack. The cluster is the same for all, unless one has ended or broken it."""
    engine = engine_here()
    todo = list(names)
    while todo:
        async with AsyncExitStack() as stack:
            here: tuple[Stage, Victims] | None = None
            clean: tuple[Stage, Victims] | None = None
            while todo:
                name = todo.pop(0)
                entry = ATTACKS[name]
                if reason := _not_possible(entry, engine):
                    yield Outcome(name, entry.what, skipped=reason)
                    continue
                if here is None:
                    stage = staged(groups, redis_server, broker, logs, engine=engine)
                    here = clean = await stack.enter_async_context(stage)
                if entry.server and clean is not here:
                    todo.insert(0, name)
                    break
                tell(f"{name}: {entry.what}")
                clean = None
                outcome = await attack(name, *here, plan)
                yield outcome
                if not outcome.passed or entry.server:
                    break  # the next attack meets a cluster in good order


def _not_possible(entry: Entry, engine: str) -> str:
    if entry.engine and engine == "null":
        return "there is no media engine here"
    if entry.page and not page_is_built():
        return "the page is not built (make page)"
    return ""


async def attack(name: str, stage: Stage, victims: Victims, plan: Plan) -> Outcome:
    """Makes one attack and returns what it did."""
    entry = ATTACKS[name]
    seconds = max(plan.seconds, entry.seconds) if plan.control else plan.seconds
    outcome = Outcome(name, entry.what, seconds=seconds, judges_latency=not entry.server)
    outcome.bytes_before = (await asyncio.to_thread(stage.left)).size
    if plan.control and not entry.server:
        async with discarding() as port:
            await asyncio.sleep(1)
            aim = Target(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}", ("127.0.0.1", port), plan.control)
            waiting, counts = await _measured(name, _control(aim, plan.seed), victims, plan.control)
            outcome.control, outcome.control_counts = _latency(waiting), dict(counts)
    memory = stage.memory()
    aim = Target(stage.ws, stage.http, stage.media, seconds, plan.seed)
    try:
        async with _fault(entry, stage):
            checks = asyncio.create_task(_server_checks(entry, stage, victims, seconds))
            try:
                waiting, counts = await _measured(name, aim, victims, seconds, QUIET_RATE if entry.server else RATE)
                outcome.victim, outcome.counts = _latency(waiting), dict(counts)
                outcome.server_checks = await checks
            finally:
                checks.cancel()
        outcome.server_checks |= {what: bool(holds(counts)) for what, holds in entry.must.items()}
    except AttackFailed as failed:
        outcome.failed = str(failed)
    # a machine that is busy with something else is not the attack's fault
    prompt = max(PROMPT, outcome.control.p99 if outcome.control is not None else 0.0)
    outcome.back_after = await _until_back(stage, prompt)
    if entry.server:
        outcome.server_checks["what was asked meanwhile is answered"] = await victims.answered()
    memory.end()
    outcome.memory_before, outcome.memory_peaks = memory.before, memory.peaks
    outcome.died = await asyncio.to_thread(stage.died)
    if not outcome.died:
        await _until_nothing_is_left(stage, outcome, plan.left_after)
    return outcome


def _control(aim: Target, seed: int) -> Target:
    return Target(aim.ws, aim.http, aim.media, aim.seconds, seed, control=True)


async def _measured(
    name: str, aim: Target, victims: Victims, seconds: float, rate: float = RATE
) -> tuple[Waiting, Counts]:
    """Attacks while the victims ask; returns how long they waited, and what the attacker did."""
    attacker = AttackerProcess(name, aim)
    try:
        await attacker.prepare()
        await attacker.begin()
        waiting, counts = await asyncio.gather(victims.measure(seconds, rate), attacker.ended())
    finally:
        await attacker.close()
    return waiting, counts


def _latency(waiting: Waiting) -> Latency:
    return Latency(len(waiting.seconds), waiting.p50, waiting.p99, waiting.refused, waiting.unserved)


@asynccontextmanager
async def _fault(entry: Entry, stage: Stage) -> AsyncIterator[None]:
    match entry.server:
        case "redis":
            context: Any = server_faults.full_redis(stage)
        case "rabbitmq":
            context = server_faults.blocked_rabbitmq(stage)
        case _:
            context = nullcontext()
    async with context:
        yield


async def _server_checks(entry: Entry, stage: Stage, victims: Victims, seconds: float) -> dict[str, bool]:
    match entry.server:
        case "redis":
            return await server_faults.check_full_redis(stage, victims, seconds)
        case "rabbitmq":
            return await server_faults.check_blocked_rabbitmq(stage, victims, seconds)
        case _:
            return {}


async def _until_back(stage: Stage, prompt: float) -> float | None:
    """Returns the seconds until the gateway was ready and new clients were answered promptly, several in a row."""
    loop = asyncio.get_running_loop()
    began, good = loop.time(), 0
    since = began
    while loop.time() - began < LOOKED_FOR:
        if await stage.ready() and await probe(stage.ws, prompt):
            since = since if good else loop.time()
            good += 1
            if good >= PROBES:
                return since - began
        else:
            good = 0
            await asyncio.sleep(0.2)
    return None


async def _until_nothing_is_left(stage: Stage, outcome: Outcome, seconds: float) -> None:
    """Looks until nothing of the attack is left in Redis, for so long at most."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while True:
        left = await asyncio.to_thread(stage.left)
        outcome.left_keys = [key for key in left.lasting if not key.startswith("plenary:")]
        outcome.left_expiring, outcome.left_bytes = left.expiring, left.size
        if outcome.checks()["nothing left in Redis"] or loop.time() >= ends:
            return
        await asyncio.sleep(min(2.0, seconds))
