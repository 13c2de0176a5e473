"""Processes and servers die, freeze and are cut off under load; whoever is connected gets everything, once, in order.

`python -m tests.fault` does more of it, for longer, and measures.
"""

from pathlib import Path

import pytest

from tests.fault.driver import Load, run
from tests.fault.faults import Kind
from tests.fault.world import Shape
from tests.support.servers import Server

pytestmark = pytest.mark.servers

LOAD = Load(rooms=6, peers=3)


@pytest.mark.parametrize(
    "kinds",
    [
        ["worker-kill"],
    ],
    ids=" ".join,
)
async def test_nothing_is_lost_doubled_or_reordered(
    killable_redis: Server, killable_rabbitmq: Server, tmp_path: Path, kinds: list[Kind]
) -> None:
    outcome = await run(killable_redis, killable_rabbitmq, tmp_path, "1", kinds, shape=Shape(), load=LOAD, tell=print)
    assert not outcome.wrong, outcome.report()
