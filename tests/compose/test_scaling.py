"""Gateways and room workers come and go under load, as `docker-compose up --scale` lets them."""

import asyncio
from collections.abc import Callable

from tests.compose.stack import SETTLED_WITHIN, Stack, until
from tests.fault import checks
from tests.fault.driver import Crowd, Load
from tests.fault.participant import Participant, Wrong

LOAD = Load(rooms=8, peers=3)


async def test_nothing_is_lost_doubled_or_reordered_while_gateways_and_room_workers_come_and_go(
    cluster: Stack,
) -> None:
    # Given a crowd of resumable clients behind HAProxy, on one gateway and one room worker
    await asyncio.to_thread(cluster.scale, gateways=1, workers=1)
    await until("the cluster serves", lambda: cluster.get("/readyz")[0] == 200 and cluster.members("nodes"))
    await until("everybody is well", lambda: not cluster.unhealthy())
    crowd = Crowd(cluster, LOAD, seed="scaling")
    try:
        crowd.start()
        assert await crowd.all_joined(), cluster.logs()

        # When gateways are added, and lost connections spread the clients over all of them
        await asyncio.to_thread(cluster.scale, gateways=4, workers=1)
        await until("4 gateways", lambda: len(cluster.members("gateways")) == 4)
        for participant in crowd.participants:
            if participant.session is not None:
                participant.session.cut()
        await until("clients at each gateway", lambda: all(connections(cluster)))

        # ... a room worker is added, and removed again
        await asyncio.to_thread(cluster.scale, gateways=4, workers=2)
        await until("2 room workers share", lambda: len(partitions(cluster)) == 2 and all(partitions(cluster)))

        # ... and gateways are removed with clients on them
        resumed = sum(resumptions(it) for it in crowd.participants)
        await asyncio.to_thread(cluster.scale, gateways=2, workers=2)
        await asyncio.to_thread(cluster.scale, gateways=2, workers=1)
        await until("2 gateways", lambda: len(cluster.members("gateways")) == 2)
        assert await crowd.until(all_connected(crowd), SETTLED_WITHIN)

        # Then the clients of those that went have resumed their sessions elsewhere
        assert sum(resumptions(it) for it in crowd.participants) > resumed

        # ... and everything that was asked and said has arrived once and in order, and no session has ended
        wrong = await look(cluster, crowd)
        assert not wrong, "\n".join(f"{it.kind}: {it.text}" for it in wrong) + "\n" + cluster.logs()
        assert not [it for it in crowd.participants if it.lost_sessions]

        # ... and who was told to go went in time by himself
        await until("3 have ended", lambda: len(cluster.ended()) == 3)
        ended = sorted((it.service, it.code) for it in cluster.ended())
        assert ended == [("gateway", 0), ("gateway", 0), ("roomworker", 0)]
        tell(crowd)
    finally:
        await crowd.abandon()


async def look(cluster: Stack, crowd: Crowd) -> list[Wrong]:
    """What is wrong when it is quiet again."""
    people = crowd.participants
    answered = await crowd.finish()
    assert answered, f"{crowd.in_flight} requests are not answered"
    await asyncio.gather(*(it.barrier() for it in people))
    wrong = checks.requests(people) + checks.sequences(people) + checks.messages(people)
    wrong += await checks.views(cluster, people)
    await asyncio.gather(*(it.leave_for_good() for it in people))
    wrong += await checks.emptiness(cluster)
    return wrong + [it for participant in people for it in participant.wrong]


def all_connected(crowd: Crowd) -> Callable[[], bool]:
    """Not all at any moment: some leave and come, as people do."""
    sessions = [it.session for it in crowd.participants if it.session is not None]
    return lambda: all(session.connected or session.ended.done() for session in sessions)


def connections(cluster: Stack) -> list[int]:
    return [info["connections"] for info in cluster.members("gateways").values()]


def partitions(cluster: Stack) -> list[list[int]]:
    return [info["active"] for info in cluster.members("workers").values()]


def resumptions(participant: Participant) -> int:
    return sum(session.counts.resumed for session in participant.sessions)


def tell(crowd: Crowd) -> None:
    people = crowd.participants
    figures = {
        "requests": sum(len(it.asked) for it in people),
        "notifications": sum(it.notifications.total() for it in people),
        "sessions": sum(len(it.sessions) for it in people),
        "resumptions": sum(resumptions(it) for it in people),
        "attempts without a session": sum(it.counts["attempts without a session"] for it in people),
    }
    print(figures)
