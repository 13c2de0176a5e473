"""Room workers and a media node in this process, and a fake gateway on the bus, in memory or on real servers."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio import Redis

from medianode.engines.null import NullEngine
from medianode.node import MediaNode
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import Store
from roomworker.storage.store import RedisStore
from roomworker.worker import RoomWorker
from shared.broker import Broker
from shared.cluster.memory_cluster import MemoryCluster
from shared.cluster.port import Cluster
from shared.cluster.redis_cluster import RedisCluster
from shared.cluster.registry import Membership
from shared.protocol import bus, client
from shared.protocol.bus import partition_of
from shared.settings import NodeSettings, WorkerSettings
from tests.support.brokers import PARTITIONS, WITHIN, BrokerHarness
from tests.support.waiting import source, until

CONNECTIONS = 20
"""The largest number of connections of one role to Redis: work for many rooms at once must not need more."""
REPEAT_AFTER = 0.25
"""Seconds without news after which a gateway sends again what is not reported applied."""


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels the tasks until they have ended: redis-py can lose a cancellation."""
    living = set(tasks)
    while living:
        for task in living:
            task.cancel()
        _, living = await asyncio.wait(living, timeout=0.1)


class FakeSession:
    """One client's session behind a `FakeGateway`."""

    def __init__(self, gateway: "FakeGateway", room: str, peer: str, connection: int) -> None:
        self.gateway = gateway
        self.room = room
        self.peer = peer
        self.connection = connection
        self.id = f"{gateway.id}.{connection}"
        self.n = 0
        self.ids = 0
        self.kept: list[bus.SessionItem] = [bus.Connect(room, self.id, connection, peer, connection)]
        self.written: list[bus.Message] = []
        self.early: dict[int, bus.Message] = {}
        self.sent_again = False
        self.asked_after = -1
        self.wants_replay = False
        self.closed: int | None = None

    # --- towards the worker -----------------------------------------------------------------------------------

    def _put(self, item: bus.SessionItem) -> None:
        self.kept.append(item)
        self.gateway.publish(self.room, [item])

    def connect(self) -> None:
        self.gateway.publish(self.room, self.kept)

    def send(self, method: str, **data: Any) -> int:
        self.n += 1
        self.ids += 1
        body = json.dumps({"method": method, **data}).encode()
        self._put(bus.Input(self.room, self.id, self.connection, self.n, client.REQUEST, self.ids, body))
        return self.ids

    def notify(self, method: str, **data: Any) -> None:
        self.n += 1
        body = json.dumps({"method": method, "notification": True, **data}).encode()
        self._put(bus.Input(self.room, self.id, self.connection, self.n, client.NOTIFICATION, None, body))

    def disconnect(self) -> None:
        self.n += 1
        self._put(bus.Disconnect(self.room, self.id, self.connection, self.n))

    def repeat(self) -> None:
        if self.kept:
            self.gateway.publish(self.room, self.kept)

    # --- from the worker --------------------------------------------------------------------------------------

    def take(self, message: bus.Message, out: int) -> None:
        if out <= len(self.written):
            return
        self.early[out] = message
        while (following := self.early.pop(len(self.written) + 1, None)) is not None:
            self.written.append(following)
            if following.close:
                self.closed = following.close

    def applied(self, report: bus.Applied) -> None:
        self.wants_replay = False
        if report.n < 0:
            self.again()
            return
        self.kept = [item for item in self.kept if not isinstance(item, bus.Connect) and item.n > report.n]
        if report.again:
            self.again()
        if report.out > len(self.written) and self.asked_after != len(self.written):
            self.asked_after = len(self.written)
            self.gateway.publish(self.room, [bus.Replay(self.room, self.id, self.connection, self.asked_after)])

    def again(self) -> None:
        """Repeats what is not applied, at most once a tick: every item behind a gap asks for the same."""
        if not self.sent_again:
            self.sent_again = True
            self.repeat()

    def tick(self) -> None:
        self.sent_again, self.asked_after = False, -1
        self.repeat()
        if self.wants_replay:
            self.ask_replay()

    def ask_replay(self) -> None:
        """Asks for a replay, again each tick until there is an answer: the link may still be down."""
        self.wants_replay = True
        self.gateway.publish(self.room, [bus.Replay(self.room, self.id, self.connection, len(self.written))])

    # --- what a test looks at ---------------------------------------------------------------------------------

    @property
    def frames(self) -> list[Any]:
        return [json.loads(message.body) for message in self.written if not message.close]

    @property
    def answers(self) -> dict[int, Any]:
        """Fails the test if a request was answered twice."""
        answers: dict[int, Any] = {}
        for frame in self.frames:
            if frame.get("response"):
                assert frame["id"] not in answers, "answered twice"
                answers[frame["id"]] = frame
        return answers

    def notifications(self, method: str) -> list[Any]:
        notifications = [frame["data"] for frame in self.frames if frame.get("notification")]
        return [data for data in notifications if data["method"] == method]

    async def answer(self, id_: int) -> Any:
        await self.gateway.until(lambda: id_ in self.answers)
        return self.answers[id_]

    async def ask(self, method: str, **data: Any) -> Any:
        answer = await self.answer(self.send(method, **data))
        assert answer.get("ok"), answer
        return answer["data"]

    async def done(self) -> None:
        """Waits until all inputs are applied and all outputs have arrived."""
        await self.gateway.until(lambda: not self.kept and not self.early)


class FakeGateway:
    def __init__(self, broker: Broker, cluster: Cluster, name: str) -> None:
        self.id = name
        self.broker = broker
        self.sessions: dict[str, FakeSession] = {}
        self._membership = Membership(cluster, "gateways", name, {})
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.broker.subscribe_exclusive(
            "notify", f"{self.id}.#", self.receive, on_lost=lambda: None, on_restored=self.repeat
        )
        await self._membership.beat()
        self._tasks = [asyncio.create_task(self._beats()), asyncio.create_task(self._repeats())]

    async def die(self) -> None:
        """Stops without telling anybody, as a killed process does."""
        await end(self._tasks)

    def connect(self, room: str, peer: str) -> FakeSession:
        session = FakeSession(self, room, peer, len(self.sessions) + 1)
        self.sessions[session.id] = session
        session.connect()
        return session

    def publish(self, room: str, items: list[Any]) -> None:
        """Publishes the items. Reports tell whether they arrived."""
        body = bus.encode_batch(self.id, [bus.encode_item(item) for item in items], time.time())
        self.broker.publish("rooms", str(partition_of(room, PARTITIONS)), body)

    def receive(self, body: bytes) -> None:
        batch = bus.decode_to_gateway(body)
        for message in batch.messages:
            for recipient in message.to:
                session = self.sessions[recipient.session]
                if recipient.out:
                    session.take(message, recipient.out)
                else:
                    session.closed = message.close
        for report in batch.applied:
            self.sessions[report.session].applied(report)

    def repeat(self) -> None:
        for session in self.sessions.values():
            session.repeat()
            session.ask_replay()

    async def until(self, condition: Callable[[], Any]) -> None:
        await until(condition, source(condition), within=WITHIN)

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self._membership.beat()

    async def _repeats(self) -> None:
        """The gateway's timer, not a test's."""
        while True:
            await asyncio.sleep(REPEAT_AFTER)
            for session in self.sessions.values():
                session.tick()


class RoomWorkerHarness:
    """Starts roles, each with a link of its own. Without `redis_url` cluster and store are in memory."""

    def __init__(self, brokers: BrokerHarness, redis_url: str | None = None) -> None:
        self.brokers = brokers
        self._redis_url = redis_url
        self._redises: list[Redis] = []
        self._memory = MemoryCluster()
        self._memory_store = MemoryStore(self._memory)
        self.cluster, self.store = self._link()
        self.workers: list[RoomWorker] = []
        self.links: dict[RoomWorker, Broker] = {}
        self.nodes: list[MediaNode] = []
        self.gateways: list[FakeGateway] = []

    def _link(self) -> tuple[Cluster, Store]:
        if self._redis_url is None:
            return self._memory, self._memory_store
        redis = Redis.from_url(self._redis_url, protocol=2, max_connections=CONNECTIONS)
        self._redises.append(redis)
        return RedisCluster(redis), RedisStore(redis)

    async def worker(self, name: str = "worker", **settings: Any) -> RoomWorker:
        broker = await self.brokers.broker()
        made = WorkerSettings(partitions=PARTITIONS, name=name, **settings)
        worker = RoomWorker(made, broker, *self._link())
        self.links[worker] = broker
        await asyncio.wait_for(worker.start(), WITHIN)
        self.workers.append(worker)
        return worker

    async def node(self) -> MediaNode:
        settings = NodeSettings(engine="null", announced_ip="127.0.0.1", name="node")
        broker = await self.brokers.broker()
        node = MediaNode(settings, broker, self._link()[0], lambda _: NullEngine("127.0.0.1"))
        await asyncio.wait_for(node.start(), WITHIN)
        self.nodes.append(node)
        return node

    async def gateway(self) -> FakeGateway:
        gateway = FakeGateway(await self.brokers.broker(), self._link()[0], f"gateway{len(self.gateways) + 1}-x")
        await gateway.start()
        self.gateways.append(gateway)
        return gateway

    async def kill(self, worker: RoomWorker) -> None:
        """Breaks the worker's link for good and cancels its tasks."""
        await self.brokers.cut(self.links[worker])
        self.workers.remove(worker)
        await worker.tasks.cancel()

    async def end(self) -> None:
        for gateway in self.gateways:
            await gateway.die()
        for close in (*(worker.close for worker in self.workers), *(node.close for node in self.nodes)):
            await asyncio.wait_for(close(), WITHIN)
        await self.brokers.close()
        for redis in self._redises:
            await redis.aclose()
