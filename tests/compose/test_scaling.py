"""Gateways and room workers come and go under load, as `docker-compose up --scale` lets them."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from devtools.cluster import ROOT
from tests.compose.stack import SETTLED_WITHIN, Stack, until_settled
from tests.fault import checks
from tests.fault.cluster import FaultCluster
from tests.fault.driver import Load, Participants
from tests.fault.participant import Failure

LOAD = Load(rooms=8, peers=3)
LOADTEST = ("--profile", "flaky", "--rooms", "30", "--peers", "4", "--ramp", "15", "--duration", "900")
"""Until it is told to end. Its peers' connections break all the time, so those of new gateways are soon used."""
ENDS_WITHIN = 180.0


async def test_messages_arrive_once_in_order_while_the_cluster_is_scaled(
    cluster: Stack,
) -> None:
    # Given a crowd of resumable clients behind HAProxy, on one gateway and one room worker
    await start(cluster)
    crowd = Participants(as_fault_cluster(cluster), LOAD, seed="scaling")
    try:
        crowd.start()
        assert await crowd.all_joined(), cluster.logs()

        # When gateways are added, and lost connections spread the clients over all of them
        await asyncio.to_thread(cluster.scale, gateways=4, workers=1)
        await until_settled("4 gateways", lambda: len(cluster.members("gateways")) == 4)
        for participant in crowd.participants:
            if participant.session is not None:
                participant.session.drop_connection()
        await until_settled("clients at each gateway", lambda: all(connections(cluster)))

        # ... a room worker is added, and removed again
        await asyncio.to_thread(cluster.scale, gateways=4, workers=2)
        await until_settled("2 workers share", lambda: len(partitions(cluster)) == 2 and all(partitions(cluster)))

        # ... and gateways are removed with clients on them
        resumed = resumptions(crowd)
        await asyncio.to_thread(cluster.scale, gateways=2, workers=2)
        await asyncio.to_thread(cluster.scale, gateways=2, workers=1)
        await until_settled("2 gateways", lambda: len(cluster.members("gateways")) == 2)
        assert await crowd.until(all_connected(crowd), SETTLED_WITHIN)

        # Then the clients of those that went have resumed their sessions elsewhere
        assert resumptions(crowd) > resumed

        # ... and everything that was asked and said has arrived once and in order, and no session has ended
        failures = await find_failures(cluster, crowd)
        assert not failures, "\n".join(f"{it.kind}: {it.text}" for it in failures) + "\n" + cluster.logs()

        # ... and each process that was told to stop ended in time by itself
        await all_went_in_time(cluster)
        tell(crowd)
    finally:
        await crowd.abort()


async def test_load_test_passes_while_the_cluster_is_scaled(cluster: Stack, tmp_path: Path) -> None:
    # Given virtual peers in calls, behind HAProxy, on one gateway, one room worker and real media engines
    await start(cluster)
    async with loadtest(cluster, tmp_path) as report:
        await until_settled("everybody is connected", lambda: sum(connections(cluster)) >= 100)

        # When gateways and room workers are added, and each has its share
        await asyncio.to_thread(cluster.scale, gateways=4, workers=2)
        await until_settled(
            "clients at 4 gateways", lambda: len(connections(cluster)) == 4 and min(connections(cluster)) > 10
        )
        await until_settled("2 workers share", lambda: len(partitions(cluster)) == 2 and all(partitions(cluster)))

        # ... and removed
        await asyncio.to_thread(cluster.scale, gateways=2, workers=1)
        await until_settled("2 gateways", lambda: len(cluster.members("gateways")) == 2)
        await until_settled("everybody is connected again", lambda: sum(connections(cluster)) >= 100)

    # Then every answer and notification came once and in order, and nobody's session ended
    assert report["passed"], (report["failures"], report["examples"])
    assert report["failed"] == 0
    assert report["steps"]["resume"]["count"] > 100
    for method in ("join", "createProducer", "enableConsumer", "message", "leave"):
        assert report["methods"][method]["count"] > 0, method

    # ... and each process that was told to stop ended in time by itself
    await all_went_in_time(cluster)


async def start(cluster: Stack) -> None:
    await asyncio.to_thread(cluster.scale, gateways=1, workers=1)
    await until_settled("the cluster serves", lambda: cluster.get("/readyz")[0] == 200 and cluster.members("nodes"))
    await until_settled("everybody is well", lambda: not cluster.unhealthy())


async def all_went_in_time(cluster: Stack) -> None:
    """Waits until two gateways and a room worker have ended in order, and checks that nothing else has ended."""
    await until_settled("3 have ended", lambda: len(cluster.ended()) == 3)
    ended = sorted((it.service, it.code) for it in cluster.ended())
    assert ended == [("gateway", 0), ("gateway", 0), ("roomworker", 0)]


@asynccontextmanager
async def loadtest(cluster: Stack, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """`plenary loadtest` while inside; afterwards its report is there."""
    report: dict[str, Any] = {}
    url, file = cluster.gateways[0].url, folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plenary", "loadtest", "--url", url, "--json", str(file), *LOADTEST), cwd=ROOT
    )
    try:
        yield report
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(ENDS_WITHIN):
            await process.wait()
        report.update(json.loads(file.read_text()))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def as_fault_cluster(cluster: Stack) -> FaultCluster:
    """A stack has all that a crowd and its checks ask of the fault tests' clusters."""
    return cast("FaultCluster", cluster)


async def find_failures(cluster: Stack, crowd: Participants) -> list[Failure]:
    """Returns all failures, once every request is answered and all participants have left."""
    people = crowd.participants
    answered = await crowd.finish()
    assert answered, f"{crowd.in_flight} requests are not answered"
    await asyncio.gather(*(it.barrier() for it in people))
    for room in crowd.rooms:
        room.check_complete()
    failures = await checks.views(as_fault_cluster(cluster), people)
    await asyncio.gather(*(it.leave_for_good() for it in people))
    failures += await checks.check_nothing_left(as_fault_cluster(cluster))
    return failures + crowd.log.failures


def all_connected(crowd: Participants) -> Callable[[], bool]:
    """Not all at any moment: some leave and come, as people do."""
    sessions = [it.session for it in crowd.participants if it.session is not None]
    return lambda: all(session.connected or session.ended.done() for session in sessions)


def connections(cluster: Stack) -> list[int]:
    return [info["connections"] for info in cluster.members("gateways").values()]


def partitions(cluster: Stack) -> list[list[int]]:
    return [info["active"] for info in cluster.members("workers").values()]


def resumptions(crowd: Participants) -> int:
    resumed = crowd.log.current.steps.get("resume")
    return resumed.count if resumed is not None else 0


def tell(crowd: Participants) -> None:
    measured = crowd.log.current
    figures = {
        "answers": measured.answers,
        "notifications": sum(histogram.count for histogram in measured.fanout.values()),
        "resumptions": resumptions(crowd),
        "attempts without a session": measured.counts["attempts without a session"],
    }
    print(figures)
