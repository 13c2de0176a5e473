"""Room workers and gateways start and stop under load: every peer is served, and partitions stay balanced."""

import asyncio
from pathlib import Path

import pytest

from devtools.cluster import Cluster, address
from tests.support.peer import Peer, Refusal
from tests.support.proxy import Proxy
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import until

pytestmark = pytest.mark.servers
UNLIMITED = ["--message-rate", "0"]
ROOMS = 10
UNKNOWN = {"method": "restartTransport", "id": 4711}
"""Answered with few bytes, so that a client that asks it often is not dropped for reading too slowly."""
LONG_GRACE = ["--grace-seconds", "60"]


class Talker:
    """Asks and talks until it is told to stop; `gaps` has the seconds that each answer took."""

    def __init__(self, peer: ResumablePeer) -> None:
        self.peer = peer
        self.said = 0
        self.gaps: list[float] = []
        self.stopping = False

    async def talk(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            began = loop.time()
            self.peer.say(self.said)
            self.said += 1
            assert "rtpCapabilities" in await self.peer.request("queryRoom")
            self.gaps.append(loop.time() - began)
            await asyncio.sleep(0.05)

    def longest(self) -> float:
        """Returns the longest gap since the last call."""
        gaps, self.gaps = self.gaps, []
        return max(gaps, default=0.0)


async def test_restarting_all_processes_in_turn_loses_no_message(
    redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    cluster = Cluster(
        redis_url, amqp_url, tmp_path, gateway_options=[*UNLIMITED, *LONG_GRACE], worker_options=LONG_GRACE
    )
    async with cluster.running_async(workers=3):
        # A gateway that is restarted has another port: clients keep to the address of a proxy before it.
        proxies = {name: Proxy(*address(cluster.roles[name])) for name in ("gateway1", "gateway2")}
        for proxy in proxies.values():
            await proxy.start()
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in proxies.values()]
        talkers: list[Talker] = []
        for n in range(ROOMS):
            alice = await ResumablePeer.at(urls, f"room{n}", "alice")
            bob = await ResumablePeer.at(urls[::-1], f"room{n}", "bob")
            for peer in (alice, bob):
                await peer.join()
            await alice.notified("newPeer", name="bob")
            talkers += [Talker(alice), Talker(bob)]
        await until(lambda: cluster.balanced)
        tasks = [asyncio.create_task(talker.talk()) for talker in talkers]

        async def report(what: str) -> None:
            """Returns once every peer is answered and the partitions are balanced."""
            began = asyncio.get_running_loop().time()
            await until(lambda: cluster.balanced)
            seconds = asyncio.get_running_loop().time() - began
            counts = [len(talker.gaps) for talker in talkers]
            await until(lambda: all(len(t.gaps) > n + 3 for t, n in zip(talkers, counts, strict=True)))
            longest = sorted(talker.longest() for talker in talkers)
            print(
                f"{what}: longest answer {longest[-1]:.2f} s, of half the peers {longest[len(longest) // 2]:.2f} s,",
                end=" ",
            )
            print(f"balanced after {seconds:.1f} s", {name: len(active) for name, active in cluster.shares().items()})

        await asyncio.sleep(2)
        await report("nothing happens")
        for name in ("worker1", "worker2", "worker3"):
            assert await asyncio.to_thread(cluster.roles[name].stop) == 0
            await report(f"{name} left")
            await asyncio.to_thread(cluster.roomworker, f"{name}b")
            await until(lambda: len(cluster.shares()) == 3 and all(cluster.shares().values()))
            await report(f"{name}b joined")
        for name, proxy in proxies.items():
            proxy.refuse()
            assert await asyncio.to_thread(cluster.roles[name].stop) == 0
            await report(f"{name} left")
            await asyncio.to_thread(cluster.gateway, name)
            proxy.redirect(*address(cluster.roles[name]))
            await proxy.start()
            await report(f"{name} is back")
        cluster.roles["worker1b"].kill()
        await until(lambda: cluster.balanced)
        await report("worker1b was killed")

        for talker in talkers:
            talker.stopping = True
        await asyncio.gather(*tasks)
        for one, other in zip(talkers[::2], talkers[1::2], strict=True):
            for listener, speaker in ((one, other), (other, one)):
                await listener.peer.hears(speaker.said)
                assert listener.peer.messages == list(range(speaker.said))
                assert listener.peer.notifications == []
                listener.peer.check()
        assert all(talker.peer.protoo.counts.resumed >= 1 for talker in talkers)
        print(f"{sum(talker.said for talker in talkers)} requests and as many messages")
        for proxy in proxies.values():
            await proxy.stop()


async def test_very_busy_peer_does_not_starve_its_partition(redis_url: str, amqp_url: str, tmp_path: Path) -> None:
    flood = 60_000
    cluster = Cluster(redis_url, amqp_url, tmp_path, 1, gateway_options=UNLIMITED)
    async with cluster.running_async(workers=1):
        urls = [cluster.roles[name].url for name in ("gateway1", "gateway2")]
        busy = await Peer.connect(urls[0], "salon", "busy")
        quiet = [await Peer.connect(url, room, "quiet") for url, room in ((urls[0], "elsewhere"), (urls[1], "far"))]
        for peer in (busy, *quiet):
            await peer.join()
        # The others ask at once: a slow machine would read all of the flood's answers before it does anything else.
        asked = [busy.client.request(UNKNOWN) for _ in range(flood)]
        loop = asyncio.get_running_loop()
        trips = []

        async def ask(peer: Peer) -> None:
            for _ in range(2):
                began = loop.time()
                assert "rtpCapabilities" in await peer.request("queryRoom")
                trips.append(round(loop.time() - began, 3))

        await asyncio.gather(*map(ask, quiet))
        answered = len(busy.client.frames)
        print(f"{answered} of {flood} were answered before 2 of each of the others, which took {trips} s")
        assert answered < flood
        for id_ in asked:
            await refused(busy, id_)


async def refused(peer: Peer, id_: int) -> None:
    with pytest.raises(Refusal):
        await peer.answer(id_)
