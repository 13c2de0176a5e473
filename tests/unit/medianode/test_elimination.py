"""A room whose packets end every engine is found among hundreds: a real node, with engines that die as it says."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from medianode import delayed_placements, engine_pool
from medianode.engines.port import Done, OnDeath, OnEvent
from medianode.node import MediaNode
from roomworker.core import engine_deaths
from roomworker.core.engine_deaths import GUILTY_ALONE
from roomworker.core.model import EngineDeaths
from shared.broker import Delivery
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.errors import Unavailable
from shared.protocol import bus, media
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceParameters
from shared.settings import NodeSettings

CREATED = media.TransportCreated(IceParameters("u", "p", True), [], DtlsParameters([Fingerprint("sha-256", "A")]))
KILLS_AFTER = 0.05
"""Seconds from the placement of a guilty room to the death of its engine."""
CLIENT_PAUSE = 0.1
"""Seconds after which the client of a room that lost its transport makes another one, at most."""


class FragileEngine:
    """Answers at once, and dies soon after a guilty room was placed on it."""

    pid = 0

    def __init__(self, guilty: set[str]) -> None:
        self._guilty = guilty
        self._dead = False

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        self._on_death = on_death

    def create_router(self, router: str) -> None:
        if router.partition("/")[0] in self._guilty:
            asyncio.get_running_loop().call_later(KILLS_AFTER, self.die)

    def die(self) -> None:
        if not self._dead:
            self._dead = True
            self._on_death("ended by signal 6")

    def request(self, request: media.AnyRequest, done: Done) -> None:
        done(media.Failed(503, "dead") if self._dead else CREATED)

    def order(self, order: media.AnyOrder, parent: str) -> None:
        pass

    async def close(self) -> None:
        self._dead = True


class Room:
    """A room of one client, which makes its transport again whenever it is closed, until media is refused."""

    def __init__(self, name: str, simulation: "Simulation") -> None:
        self.name = name
        self.simulation = simulation
        self.deaths: EngineDeaths | None = None
        self.epoch = 0
        self.moves = -1
        self.forgets = False
        self.state = "unplaced"
        self._attempts = 0
        self._told = 0

    def place(self) -> None:
        """Asks for a transport, unless media is refused."""
        now = self.simulation.now
        if self.state == "unplaced":
            try:
                engine_deaths.check_media_allowed(self.deaths, now)
            except Unavailable:
                self.state = "refused"
                return
            self.epoch += 1
            self._told = engine_deaths.count(self.deaths, now)
            self._attempts = 0
            self.state = "asking"
        self._attempts += 1
        router = media.RouterRef(f"{self.name}/{self.epoch}", 0, self.name, "i", self.epoch, self._told)
        transport = f"{router.id}/{self._attempts}"
        self.simulation.ask(self, media.CreateTransport(router, transport))

    def answered(self, epoch: int, result: media.AnyResult) -> None:
        if epoch != self.epoch or self.state != "asking":
            return
        if isinstance(result, media.Failed):
            asyncio.get_running_loop().call_later(CLIENT_PAUSE * self._attempts, self._retry, epoch)
        else:
            self.state = "placed"
            self.moves += 1

    def _retry(self, epoch: int) -> None:
        if epoch == self.epoch and self.state == "asking":
            self.place()

    def closed(self, epoch: int, event: media.RouterClosed) -> None:
        if epoch == self.epoch and self.state in ("asking", "placed"):
            if event.engine_died:
                alone = event.other_suspects == 0
                deaths = engine_deaths.record(self.deaths, self.simulation.now, alone=alone)
                self.deaths = None if self.forgets else deaths
            self.state = "unplaced"
            asyncio.get_running_loop().call_later(random.uniform(0, CLIENT_PAUSE), self.place)


class Simulation:
    """The rooms of one partition, and a node with so many engines."""

    def __init__(self, engines: int) -> None:
        self.guilty: set[str] = set()
        self.rooms: dict[str, Room] = {}
        hub = MemoryHub(partitions=1)
        self._worker, self._broker = MemoryBroker(hub), MemoryBroker(hub)
        settings = NodeSettings(engines=engines, announced_ip="127.0.0.1", name="node")
        self.node = MediaNode(settings, self._broker, MemoryCluster(), lambda _: FragileEngine(self.guilty))
        self._asked: list[tuple[Room, int]] = []
        self._commands: list[media.Command] = []

    @property
    def now(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000) + 10**9

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[None]":
        await self._worker.connect()
        await self._broker.connect()
        await self.node.start()
        await self._worker.subscribe_exclusive(
            "media", "worker", self._results, on_lost=lambda: None, on_restored=lambda: None
        )
        await self._worker.subscribe_partition(0, self._delivered, prefetch=10, on_lost=lambda: None)
        try:
            yield
        finally:
            await self.node.close()
            await self._worker.close()
            await self._broker.close()

    def add(self, prefix: str, count: int) -> list[Room]:
        added = [Room(f"{prefix}{n}", self) for n in range(count)]
        self.rooms |= {room.name: room for room in added}
        for room in added:
            room.place()
        return added

    def ask(self, room: Room, request: media.CreateTransport) -> None:
        if not self._commands:
            asyncio.get_running_loop().call_soon(self._send)
        self._asked.append((room, room.epoch))
        self._commands.append(media.Command(len(self._asked), request))

    def order(self, order: media.AnyOrder) -> None:
        self._commands.append(media.Command(0, order))
        self._send()

    def _send(self) -> None:
        commands, self._commands = self._commands, []
        self._worker.publish("media", self.node.id, media.encode(media.Commands("worker", commands)), mandatory=True)

    def _results(self, body: bytes) -> None:
        for answer in media.decode_results(body).answers:
            room, epoch = self._asked[answer.n - 1]
            room.answered(epoch, answer.result)

    def _delivered(self, delivery: Delivery) -> None:
        _, items = bus.split_batch(delivery.body)
        for item in map(bus.decode_item, items):
            if isinstance(item, bus.MediaEvent) and isinstance(
                event := media.decode_event(item.event), media.RouterClosed
            ):
                self.rooms[item.room].closed(item.epoch, event)
        delivery.ack()

    async def until_settled(self) -> None:
        """Waits until every guilty room is refused and all others are placed."""
        async with asyncio.timeout(90):
            while any(room.state != self._wanted_state(room) for room in self.rooms.values()):
                await asyncio.sleep(0.05)

    def _wanted_state(self, room: Room) -> str:
        return "refused" if room.name in self.guilty else "placed"

    def moves(self) -> list[int]:
        """Returns how often each innocent room was placed again."""
        return [room.moves for room in self.rooms.values() if room.name not in self.guilty]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("engines", "rooms"), [(1, 500), (2, 1000)])
async def test_guilty_room_among_500_on_its_engine_is_found_by_halving(engines: int, rooms: int) -> None:
    simulation = Simulation(engines)
    async with simulation.running():
        simulation.add("room", rooms)
        await simulation.until_settled()
        simulation.guilty.add("guilty0")
        simulation.add("guilty", 1)
        await simulation.until_settled()

        halvings = math.ceil(math.log2(500))
        assert 3 <= simulation.node.engine_deaths <= halvings + GUILTY_ALONE + 3
        moves = simulation.moves()
        assert sum(moves) / len(moves) < halvings, "a room is spared by about half of the deaths"
        assert simulation.node.suspects <= len(moves)


@pytest.mark.timeout(120)
async def test_two_guilty_rooms_are_found_and_no_other() -> None:
    simulation = Simulation(2)
    async with simulation.running():
        simulation.add("room", 100)
        await simulation.until_settled()
        simulation.guilty |= {"guilty0", "guilty1"}
        simulation.add("guilty", 2)
        await simulation.until_settled()


@pytest.fixture
async def single(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulation]:
    """A node with one engine, which stays away for long once it has died, and a placed room."""
    monkeypatch.setattr(engine_pool, "FIRST_PAUSE_SECONDS", 60.0)
    simulation = Simulation(1)
    async with simulation.running():
        simulation.add("room", 1)
        await simulation.until_settled()
        yield simulation


def engine_dies(simulation: Simulation) -> None:
    ((engine, _),) = simulation.node.engines.values()
    assert isinstance(engine, FragileEngine)
    engine.die()


async def test_suspect_room_is_placed_after_a_second_if_no_second_engine_comes(single: Simulation) -> None:
    engine_dies(single)
    began = single.now
    assert single.node.engines_wanted == 2, "the spare engine starts before the first client comes back"
    await asyncio.sleep(CLIENT_PAUSE)
    (clean,) = single.add("clean", 1)
    while clean.state != "placed":
        await asyncio.sleep(0.01)
    assert single.now - began < 900, "only rooms with deaths wait"
    assert single.rooms["room0"].state == "asking"
    await single.until_settled()
    assert 900 < single.now - began < 5000
    assert set(single.node.engines) == {1}


async def test_spare_engine_gets_no_room_and_makes_no_node_look_less_loaded(single: Simulation) -> None:
    single.add("room beside ", 3)
    await single.until_settled()
    assert single.node.info()["load"] == 4
    single.node._pool.want_spare()
    while len(single.node.engines) < 2:
        await asyncio.sleep(0.01)
    assert single.node.info()["load"] == 4
    single.add("late ", 1)
    await single.until_settled()
    assert {index: counts.routers for index, (_, counts) in single.node.engines.items()} == {0: 5, 1: 0}


async def test_death_of_an_engine_without_rooms_makes_no_spare_engine() -> None:
    simulation = Simulation(1)
    async with simulation.running():
        engine_dies(simulation)
        assert simulation.node.engines_wanted == 1


async def test_suspect_from_another_node_is_placed_once_the_spare_engine_runs(
    single: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_placements, "LONGEST_DELAY_SECONDS", 600.0)
    suspect = Room("suspect", single)
    suspect.deaths = engine_deaths.record(None, single.now, alone=False)
    single.rooms["suspect"] = suspect
    suspect.place()
    await single.until_settled()
    assert set(single.node.engines) == {0, 1}
    assert {index: counts.routers for index, (_, counts) in single.node.engines.items()} == {0: 1, 1: 1}


async def test_room_that_left_while_it_waits_gets_no_router(single: Simulation) -> None:
    engine_dies(single)
    room = single.rooms["room0"]
    while room.state != "asking":
        await asyncio.sleep(0.01)
    single.order(media.Close(f"room0/{room.epoch}", 1, "router"))
    single.rooms.clear()
    while single.node._delayed:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert single.node._objects.routers() == []


async def test_rooms_of_an_older_room_worker_are_placed_as_before() -> None:
    """No deaths are told, so nothing is delayed and nobody is a suspect."""
    simulation = Simulation(2)
    async with simulation.running():
        rooms = simulation.add("room", 10)
        await simulation.until_settled()
        for room in rooms:
            room.forgets = True
        simulation.guilty.add("guilty0")
        (guilty,) = simulation.add("guilty", 1)
        guilty.forgets = True
        async with asyncio.timeout(30):
            while simulation.node.engine_deaths < 5:
                await asyncio.sleep(0.05)
        assert simulation.node.suspects == 0
        simulation.guilty.clear()
        await simulation.until_settled()
