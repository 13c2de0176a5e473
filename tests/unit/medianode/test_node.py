"""The node's shell, with a broker in the test's hands and an engine that answers at once or when told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
import redis.exceptions
from fakeredis import FakeAsyncRedis
from structlog.testing import capture_logs

from medianode import node
from medianode.engines.null import NullEngine
from medianode.engines.port import Engine, EngineFailed
from medianode.node import TOO_MUCH, MediaNode
from shared.broker import Broker, Delivery, Exchange, Notice, Subscription
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.registry import Observer
from shared.protocol import bus, media
from shared.protocol.media import Answer, Command, Commands
from shared.settings import NodeSettings


class HeldBroker:
    """Keeps what is published, and confirms at once."""

    def __init__(self) -> None:
        self.published: asyncio.Queue[tuple[Exchange, str, bytes]] = asyncio.Queue()
        self.receive: Callable[[bytes], None] = lambda _: None
        self.binding = ""
        self.restored: Notice = lambda: None
        self.connected = True
        self.subscribed = asyncio.Event()

    async def connect(self) -> None: ...

    def publish(
        self, exchange: Exchange, key: str, body: bytes, *, mandatory: bool = False, ttl: float | None = None
    ) -> "asyncio.Future[None]":
        self.published.put_nowait((exchange, key, body))
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirmed.set_result(None)
        return confirmed

    async def subscribe_exclusive(
        self,
        exchange: Exchange,
        binding: str,
        receive: Callable[[bytes], None],
        *,
        on_lost: Notice,
        on_restored: Notice,
    ) -> Subscription:
        assert exchange == "media"
        self.binding, self.receive, self.restored = binding, receive, on_restored
        self.subscribed.set()
        return self

    async def subscribe_partition(
        self, partition: int, receive: Callable[[Delivery], None], *, prefetch: int, on_lost: Notice
    ) -> Subscription:
        raise AssertionError("a media node takes no partition")

    async def close(self) -> None: ...

    async def command(self, *bodies: media.AnyRequest | media.AnyOrder, reply_to: str = "worker") -> None:
        """Delivers commands; the node has carried them out when this returns."""
        numbered = [Command(n, body) for n, body in enumerate(bodies, start=1)]
        self.receive(media.encode(Commands(reply_to, numbered)))
        await asyncio.sleep(0)

    async def results(self) -> tuple[str, media.Results]:
        exchange, key, body = await self.published.get()
        assert exchange == "media"
        return key, media.decode_results(body)

    async def events(self) -> list[bus.MediaEvent]:
        exchange, key, body = await self.published.get()
        assert (exchange, key) == ("rooms", "3")
        _, items = bus.split_batch(body)
        events = [bus.decode_item(item) for item in items]
        assert all(isinstance(event, bus.MediaEvent) for event in events)
        return events


@pytest.fixture
def broker() -> HeldBroker:
    return HeldBroker()


@pytest.fixture
def store() -> FakeAsyncRedis:
    return FakeAsyncRedis()


def node_with(engine: Engine, broker: HeldBroker, store: Any, **settings: Any) -> MediaNode:
    chosen = NodeSettings(name="node", engine="null", announced_ip="192.0.2.7", **settings)
    return MediaNode(chosen, cast("Broker", broker), RedisCluster(store), lambda _: engine)


@pytest.fixture
async def null_node(broker: HeldBroker, store: Any) -> AsyncIterator[MediaNode]:
    node = node_with(NullEngine("192.0.2.7"), broker, store)
    await node.start()
    yield node
    await node.close()


@pytest.fixture
async def held_node(broker: HeldBroker, store: Any, engine: Any) -> AsyncIterator[MediaNode]:
    node = node_with(engine, broker, store)
    await node.start()
    yield node
    await node.close()


def decoded(event: bus.MediaEvent) -> media.AnyEvent:
    return media.decode_event(event.event)


async def test_commands_are_answered_in_one_batch(null_node: MediaNode, broker: HeldBroker, requests: Any) -> None:
    await broker.command(requests.create(), requests.produce(), requests.consume())
    key, results = await broker.results()
    assert key == "worker"
    assert results.node == null_node.id == broker.binding
    assert [answer.n for answer in results.answers] == [1, 2, 3]
    assert isinstance(results.answers[0].result, media.TransportCreated)
    assert results.answers[2] == Answer(3, media.Consumed("default"))


async def test_each_worker_gets_its_own_answers(null_node: MediaNode, broker: HeldBroker, requests: Any) -> None:
    await broker.command(requests.create(), reply_to="one")
    await broker.command(requests.create(), reply_to="two")
    (one, first), (two, second) = await broker.results(), await broker.results()
    assert {one, two} == {"one", "two"}
    assert first.answers == second.answers


async def test_order_between_requests_keeps_its_place(
    held_node: MediaNode, broker: HeldBroker, engine: Any, requests: Any
) -> None:
    await broker.command(requests.create(), media.Close("transport", 1, "transport"), requests.produce())
    assert [type(request) for request, _ in engine.requests] == [media.CreateTransport]
    assert len(engine.orders) == 1
    _, results = await broker.results()
    assert isinstance(results.answers[0].result, media.Failed), "nothing is produced on a closed transport"


async def test_unreadable_commands_are_logged_and_not_answered(
    null_node: MediaNode, broker: HeldBroker, requests: Any
) -> None:
    with capture_logs() as lines:
        broker.receive(b"{")
        await broker.command(requests.create())
        _, results = await broker.results()
    assert [line["event"] for line in lines] == ["commands.unreadable"]
    assert [type(answer.result) for answer in results.answers] == [media.TransportCreated]
    assert broker.published.empty()
    assert null_node.counts.commands_in.count == 1


async def test_events_go_to_the_rooms_partition_numbered(
    held_node: MediaNode, broker: HeldBroker, engine: Any, requests: Any
) -> None:
    await broker.command(requests.create())
    engine.on_event(media.IceStateChanged("transport", "connected"))
    engine.on_event(media.IceStateChanged("unknown", "connected"))
    engine.on_event(media.DtlsStateChanged("transport", "connected"))
    first, second = await broker.events()
    assert (first.n, second.n) == (1, 2)
    assert (first.room, first.incarnation, first.epoch, first.node) == ("room", "i", 1, held_node.id)
    assert decoded(first) == media.IceStateChanged("transport", "connected")


async def test_dead_engine_closes_its_routers_and_is_started_again(
    held_node: MediaNode, broker: HeldBroker, engine: Any, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def start(*_: object) -> None:
        started.set()

    monkeypatch.setattr(engine, "start", start)
    await broker.command(requests.create())
    engine.on_death("killed")
    (event,) = await broker.events()
    assert decoded(event) == media.RouterClosed("router", "killed", engine_died=True)
    await started.wait()


async def test_registry_knows_the_node_until_it_leaves(broker: HeldBroker, store: Any, requests: Any) -> None:
    node = node_with(NullEngine("192.0.2.7"), broker, store)
    await node.start()
    observer = Observer(RedisCluster(store), "nodes")
    await observer.read(0)
    entry = observer.alive[node.id]
    assert (entry["engine"], entry["engines"]) == ("null", 1)
    assert entry["announced_ip"] == "192.0.2.7"
    await broker.command(requests.create(), requests.produce())
    assert dict(node.info()) | {"routers": 1, "transports": 1, "producers": 1, "load": 2.0} == dict(node.info())
    await node.close()
    await observer.read(0)
    assert not observer.alive


async def test_closing_node_notifies_its_rooms(broker: HeldBroker, store: Any, engine: Any, requests: Any) -> None:
    node = node_with(engine, broker, store)
    await node.start()
    await broker.command(requests.create())
    await node.close()
    (event,) = await broker.events()
    assert isinstance(decoded(event), media.RouterClosed)


async def test_node_without_redis_keeps_serving(
    broker: HeldBroker, store: Any, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def refusing(command: str) -> Callable[..., Awaitable[None]]:
        async def refuse(*_: object) -> None:
            refused.append(command)
            raise redis.exceptions.ConnectionError

        return refuse

    for command in ("hset", "hdel"):
        monkeypatch.setattr(store, command, refusing(command))
    node = node_with(NullEngine("192.0.2.7"), broker, store)
    await node.start()
    await broker.command(requests.create())
    _, results = await broker.results()
    assert [type(answer.result) for answer in results.answers] == [media.TransportCreated]
    await node.close()
    (event,) = await broker.events()
    assert decoded(event) == media.RouterClosed("router", "the media node shuts down")
    assert {"hset", "hdel"} <= set(refused)


async def test_node_that_lost_its_queue_reports_its_routers(
    null_node: MediaNode, broker: HeldBroker, requests: Any
) -> None:
    await broker.command(requests.create())
    await broker.results()
    broker.restored()
    exchange, key, body = await broker.published.get()
    assert (exchange, key) == ("rooms", "3")
    (item,) = (bus.decode_item(item) for item in bus.split_batch(body)[1])
    assert item == bus.NodeReport(null_node.id, [bus.HeldRouter("room", "i", 1, "router")], lost=True)


async def test_routers_are_reported_regularly_even_if_there_are_none(
    null_node: MediaNode, broker: HeldBroker, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medianode.node.NODE_BEAT_EVERY", 0.0)
    await broker.command(requests.create())
    await broker.results()

    async def routers() -> list[str]:
        _, _, body = await broker.published.get()
        (report,) = (bus.decode_item(item) for item in bus.split_batch(body)[1])
        assert isinstance(report, bus.NodeReport)
        assert not report.lost
        return [held.router for held in report.routers]

    assert await routers() == await routers() == ["router"]
    await broker.command(media.Close("router", 1, "router"))
    while await routers():
        pass


async def test_emptied_redis_closes_the_routers_that_were_there_before(
    null_node: MediaNode, broker: HeldBroker, store: Any, requests: Any, other_room: Any
) -> None:
    """A room may be made anew before its node has noticed."""
    await null_node._check_epoch()
    await broker.command(requests.create())
    await null_node._check_epoch()
    await store.flushall()
    await broker.command(other_room.create("other transport"))

    await null_node._check_epoch()

    assert [router.id for router in null_node._objects.routers()] == [other_room.router.id]


async def test_each_node_has_its_own_id(broker: HeldBroker, store: Any) -> None:
    assert len({node_with(NullEngine(""), broker, store).id for _ in range(3)}) == 3


async def test_engine_that_does_not_start_raises_to_the_caller(broker: HeldBroker, store: Any, engine: Any) -> None:
    async def start(*_: object) -> None:
        raise EngineFailed("port taken")

    engine.start = start
    node = node_with(engine, broker, store)
    with pytest.raises(EngineFailed, match="port taken"):
        await node.start()


async def test_requests_beyond_the_limit_are_refused_and_orders_never(
    held_node: MediaNode, broker: HeldBroker, engine: Any, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "COMMANDS_LIMIT", 1)
    await broker.command(requests.create("one"), requests.create("two"), media.Close("one", 1, "transport"))
    assert [request.transport for request, _ in engine.requests] == ["one"]
    assert len(engine.orders) == 1
    _, results = await broker.results()
    assert [answer.n for answer in results.answers if answer.result == media.Failed(503, TOO_MUCH)] == [2]


async def test_command_that_fails_makes_rooms_repeat_theirs(
    null_node: MediaNode, broker: HeldBroker, requests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.command(requests.create())
    await broker.results()

    def defect(*_: object) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(null_node._objects, "request", defect)
    with capture_logs() as lines:
        await broker.command(requests.produce())
    assert [(line["event"], line["command"]) for line in lines] == [("command.failed", "Produce")]
    _, _, body = await broker.published.get()
    (report,) = map(bus.decode_item, bus.split_batch(body)[1])
    assert isinstance(report, bus.NodeReport)
    assert report.lost
