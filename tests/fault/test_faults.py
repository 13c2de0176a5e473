"""Processes and servers die, freeze and are cut off under load; clients receive everything once and in order.

`python -m tests.fault` (`make fault`) does so for longer, and measures.
"""

from pathlib import Path
from typing import get_args

import pytest

from devtools.server_processes import RabbitmqProcess
from devtools.servers import Server
from tests.fault import report
from tests.fault.cluster import QueueType, Shape
from tests.fault.driver import Load, run
from tests.fault.faults import Durations, Kind

pytestmark = [pytest.mark.servers, pytest.mark.fault, pytest.mark.timeout(900)]

LOAD = Load(rooms=6, peers=3)
SHORT = Durations(frozen=2.5, cut=4.0, down=0.5, between=0.3)

OF_THE_QUEUES: list[Kind] = ["worker-kill", "worker-term", "worker-freeze", "rabbitmq-link", "rabbitmq-kill"]
"""The faults for which the type of queue makes a difference."""


@pytest.mark.sample(1, of="seed")
@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
@pytest.mark.parametrize(("queue_type", "kinds"), [("classic", list(get_args(Kind))), ("quorum", OF_THE_QUEUES)])
async def test_faults_lose_duplicate_and_reorder_nothing(
    queue_type: QueueType,
    kinds: list[Kind],
    seed: str,
    killable_redis: Server,
    new_rabbitmq: Server,
    tmp_path: Path,
) -> None:
    shape = Shape(queue_type=queue_type)
    outcome = await run(
        *(killable_redis, new_rabbitmq, tmp_path, seed, kinds), longest=SHORT, shape=shape, load=LOAD, tell=print
    )
    print(report.as_table([outcome]))
    if outcome.failures and isinstance(new_rabbitmq, RabbitmqProcess):
        print(new_rabbitmq.log_tail())
    assert [injection.kind for injection in outcome.injections] == kinds
    assert not outcome.failures, outcome.report()
