"""`python -m tests.fault --seeds 20 --seconds 60 --queue-type quorum`: faults for as long as you like."""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

from devtools import servers
from tests.fault import report
from tests.fault.cluster import QueueType, Shape
from tests.fault.driver import Load, Outcome, run
from tests.fault.faults import Kind


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults in each run")
    parser.add_argument("--queue-type", choices=get_args(QueueType), default="classic")
    parser.add_argument("--kinds", default="all", help="fault types, with commas: " + ",".join(get_args(Kind)))
    parser.add_argument("--together", type=int, default=1, help="how many faults at the same time")
    parser.add_argument("--rooms", type=int, default=10)
    parser.add_argument("--peers", type=int, default=3, help="in each room")
    parser.add_argument("--rate", type=float, default=1.7, help="of one peer: things done a second, and as many said")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--logs", type=Path, help="folder for what the processes said; by default not kept")
    return parser.parse_args()


def _one(given: argparse.Namespace, seed: str, kinds: list[Kind], logs: Path) -> Outcome:
    """A run on servers of its own."""
    redis, rabbitmq = servers.redis(), servers.rabbitmq()
    shape = Shape(workers=given.workers, queue_type=given.queue_type)
    load = Load(given.rooms, given.peers, given.rate)
    try:
        redis.start()
        rabbitmq.start()
        return asyncio.run(
            run(
                *(redis, rabbitmq, logs, seed, kinds),
                seconds=given.seconds,
                together=given.together,
                shape=shape,
                load=load,
                tell=_say,
            )
        )
    finally:
        rabbitmq.stop()
        redis.stop()


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or what was started here would stay
    given = _arguments()
    kinds: list[Kind] = list(get_args(Kind)) if given.kinds == "all" else given.kinds.split(",")
    outcomes: list[Outcome] = []
    for seed in map(str, range(given.first_seed, given.first_seed + given.seeds)):
        with tempfile.TemporaryDirectory() as scratch:
            logs = given.logs / seed if given.logs else Path(scratch)
            logs.mkdir(parents=True, exist_ok=True)
            _say(f"seed {seed}, {given.queue_type} queues")
            outcomes.append(_one(given, seed, kinds, logs))
        if outcomes[-1].failures:
            _say(outcomes[-1].report())
        if given.json:
            given.json.write_text(json.dumps(report.as_json(outcomes), indent=1) + "\n")
    _say(report.as_table(outcomes))
    return 1 if any(outcome.failures for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
