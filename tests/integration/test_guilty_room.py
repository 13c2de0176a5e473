"""A room whose engines are killed whenever it is placed loses its media; the room beside it goes on.

Real engine processes, a media node and a room worker, over the broker in memory.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from medianode.node import MediaNode, engine_factory
from shared.settings import NodeSettings
from tests.support.brokers import MemoryHarness
from tests.support.installed_engine import installed_engine
from tests.support.roomworker_harness import FakeSession, RoomWorkerHarness
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


class Call:
    """A room with one peer, which makes a transport again whenever it has none, until media is refused."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.refusal = ""
        self.placements = 0
        self.on_placed: Callable[[], None] = lambda: None
        self._transports = 0

    async def run(self) -> None:
        await self.session.ask("join", peerName=self.session.peer, rtpCapabilities=CAPABILITIES)
        while not self.refusal:
            if await self._create_transport():
                self.on_placed()
                await self.session.gateway.until(self._is_closed)

    def _is_closed(self) -> bool:
        return len(self.session.notifications("transportClosed")) == self.placements

    async def _create_transport(self) -> bool:
        self._transports += 1
        request = self.session.send("createTransport", id=self._transports, direction="send", dtlsParameters=DTLS)
        answer: dict[str, Any] = await self.session.answer(request)
        if answer.get("ok"):
            self.placements += 1
            return True
        assert answer["errorCode"] == 503
        if "its media is refused" in answer["errorReason"]:
            self.refusal = answer["errorReason"]
        else:
            await asyncio.sleep(0.1)
        return False


class Cluster:
    def __init__(self, harness: RoomWorkerHarness, node: MediaNode) -> None:
        self.harness = harness
        self.node = node

    def kill_engine_of(self, room: str) -> None:
        (router,) = (router for router in self.node._objects.routers() if router.room == room)
        os.kill(self.node._objects._entries[router.id].engine.pid, signal.SIGKILL)


@pytest.fixture
async def harness() -> AsyncIterator[RoomWorkerHarness]:
    harness = RoomWorkerHarness(MemoryHarness())
    yield harness
    await harness.end()


@pytest.fixture(params=[1, 2])
async def cluster(request: pytest.FixtureRequest, harness: RoomWorkerHarness) -> Cluster:
    settings = NodeSettings(
        engines=request.param, engine_path=str(installed_engine()), announced_ip="127.0.0.1", listen_ip="127.0.0.1"
    )
    node = MediaNode(settings, await harness.brokers.broker(), harness.cluster, await engine_factory(settings))
    await node.start()
    harness.nodes.append(node)
    await harness.worker()
    return Cluster(harness, node)


async def test_guilty_room_loses_its_media_and_the_other_goes_on(cluster: Cluster) -> None:
    gateway = await cluster.harness.gateway()
    innocent, guilty = Call(gateway.connect("innocent", "bob")), Call(gateway.connect("guilty", "eve"))
    guilty.on_placed = lambda: cluster.kill_engine_of("guilty")
    beside = asyncio.create_task(innocent.run())
    await gateway.until(lambda: innocent.placements == 1)

    await guilty.run()

    assert "3 media engines died under it" in guilty.refusal
    assert cluster.node.engine_deaths == guilty.placements == 3
    await gateway.until(lambda: [router.room for router in cluster.node._objects.routers()] == ["innocent"])
    assert innocent.placements <= 2, "it shared an engine with the guilty room at most once"
    assert not beside.done()

    await guilty.session.ask("queryRoom")
    mallory = gateway.connect("guilty", "mallory")
    await mallory.ask("join", peerName="mallory", rtpCapabilities=CAPABILITIES)
    await gateway.until(lambda: guilty.session.notifications("newPeer"))
    late = await mallory.answer(mallory.send("createTransport", id=1, direction="recv"))
    assert (late["errorCode"], late["errorReason"]) == (503, guilty.refusal)
    beside.cancel()
