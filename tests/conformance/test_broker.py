"""The broker port: one suite over the memory and the RabbitMQ adapter."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
from yarl import URL

from shared.broker import Broker, BrokerGone, Delivery, Refused, Subscription, Unroutable
from shared.broker.amqp import AmqpBroker, Mismatch
from shared.broker.memory import MemoryBroker, MemoryHub
from tests.support.proxy import Proxy
from tests.support.servers import Server

PARTITIONS = 4
WITHIN = 20.0
"""Deadline of every wait: generous, since only a failing test reaches it."""


class World(ABC):
    """Brokers on one system, and what can happen to them."""

    def __init__(self) -> None:
        self.brokers: list[Broker] = []

    async def broker(self) -> Any:
        broker = self._make()
        self.brokers.append(broker)
        await asyncio.wait_for(broker.connect(), WITHIN)
        return broker

    @abstractmethod
    def _make(self) -> Broker: ...

    @abstractmethod
    async def cut(self, broker: Broker) -> None:
        """The broker's connections break; it cannot come back before `heal`."""

    @abstractmethod
    async def heal(self, broker: Broker) -> None: ...

    async def end(self) -> None:
        for broker in self.brokers:
            await asyncio.wait_for(broker.close(), WITHIN)


class MemoryWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.hub = MemoryHub(PARTITIONS)

    def _make(self) -> MemoryBroker:
        return MemoryBroker(self.hub)

    async def cut(self, broker: Any) -> None:
        self.hub.drop(broker, heal=False)

    async def heal(self, broker: Any) -> None:
        self.hub.restore(broker)


class AmqpWorld(World):
    """Every broker has a proxy of its own before RabbitMQ."""

    def __init__(self, url: str, queue_type: Literal["classic", "quorum"]) -> None:
        super().__init__()
        self._url = URL(url)
        self._queue_type = queue_type
        self._proxies: dict[Broker, Proxy] = {}
        self._next: Proxy

    async def broker(self) -> Any:
        self._next = Proxy(str(self._url.host), self._url.port or 5672)
        await self._next.start()
        return await super().broker()

    def _make(self) -> AmqpBroker:
        url = self._url.with_host("127.0.0.1").with_port(self._next.port)
        broker = AmqpBroker(str(url), partitions=PARTITIONS, queue_type=self._queue_type, name="test")
        self._proxies[broker] = self._next
        return broker

    async def cut(self, broker: Broker) -> None:
        self._proxies[broker].refuse()
        self._proxies[broker].cut()

    async def heal(self, broker: Broker) -> None:
        await self._proxies[broker].start()

    async def end(self) -> None:
        await super().end()
        for proxy in self._proxies.values():
            await proxy.stop()


@pytest.fixture(
    params=[
        "memory",
        pytest.param("classic", marks=pytest.mark.servers),
        pytest.param("quorum", marks=pytest.mark.servers),
    ]
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        world = AmqpWorld(request.getfixturevalue("amqp_url"), request.param)
    yield world
    await world.end()


class Inbox:
    """What a subscription received; waits for conditions on it."""

    def __init__(self, *, ack: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self.bodies: list[bytes] = []
        self.lost = 0
        self.restored = 0
        self._ack = ack
        self._changed = asyncio.Event()

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.take_body(delivery.body)
        if self._ack:
            delivery.ack()

    def take_body(self, body: bytes) -> None:
        self.bodies.append(body)
        self._changed.set()

    def on_lost(self) -> None:
        self.lost += 1
        self._changed.set()

    def on_restored(self) -> None:
        self.restored += 1
        self._changed.set()

    async def until(self, condition: Callable[["Inbox"], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def has(self, count: int) -> None:
        await self.until(lambda inbox: len(inbox.bodies) >= count)


async def consume(broker: Broker, inbox: Inbox, *, partition: int = 0, prefetch: int = 64) -> Subscription:
    return await within(broker.subscribe_partition(partition, inbox.take, prefetch=prefetch, on_lost=inbox.on_lost))


async def own(
    broker: Broker, inbox: Inbox, exchange: Literal["notify", "media"] = "notify", binding: str = "gw1.#"
) -> Subscription:
    return await within(
        broker.subscribe_own(exchange, binding, inbox.take_body, on_lost=inbox.on_lost, on_restored=inbox.on_restored)
    )


async def within(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, WITHIN)


async def publish_all(broker: Broker, bodies: list[bytes], *, key: str = "0") -> None:
    await within(asyncio.gather(*(broker.send("rooms", key, body) for body in bodies)))


async def nothing_more(broker: Broker, inbox: Inbox, partition: int = 3) -> None:
    """Whatever RabbitMQ had for the inbox before this call has arrived: another message made the way after it."""
    after = Inbox()
    subscription = await consume(broker, after, partition=partition)
    await within(broker.publish("rooms", str(partition), b"after"))
    await after.has(1)
    await within(subscription.close())


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


async def test_messages_arrive_in_the_order_of_the_calls_without_awaiting_between(world: World) -> None:
    publisher, consumer = await world.broker(), await world.broker()
    inbox = Inbox()
    await consume(consumer, inbox)

    await publish_all(publisher, numbered(500))

    await inbox.has(500)
    assert inbox.bodies == numbered(500)


async def test_tasks_that_publish_keep_their_order_too(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    async with asyncio.TaskGroup() as tasks:
        for body in numbered(20):
            tasks.create_task(broker.publish("rooms", "0", body))

    await inbox.has(20)
    assert inbox.bodies == numbered(20)


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_bodies_of_any_size_arrive_whole(world: World, size: int) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)
    body = bytes(range(256)) * (size // 256 + 1)

    await publish_all(broker, [body[:size], b"next"])

    await inbox.has(2)
    assert inbox.bodies == [body[:size], b"next"]


async def test_a_message_is_never_delivered_or_confirmed_inside_the_call(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    confirmed = broker.send("rooms", "0", b"x")

    assert not inbox.bodies
    assert not confirmed.done()
    await within(confirmed)
    await inbox.has(1)


async def test_partitions_are_apart(world: World) -> None:
    broker = await world.broker()
    zero, one = Inbox(), Inbox()
    await consume(broker, zero, partition=0)
    await consume(broker, one, partition=1)

    await publish_all(broker, [b"to 0"], key="0")
    await publish_all(broker, [b"to 1"], key="1")

    await zero.has(1)
    await one.has(1)
    assert (zero.bodies, one.bodies) == ([b"to 0"], [b"to 1"])


async def test_only_the_first_subscriber_is_active(world: World) -> None:
    broker, first, second = await world.broker(), await world.broker(), await world.broker()
    active, waiting = Inbox(), Inbox()
    await consume(first, active)
    await consume(second, waiting)

    await publish_all(broker, numbered(20))

    await active.has(20)
    await nothing_more(second, waiting)
    assert not waiting.bodies


async def test_closing_the_active_subscription_hands_over_in_order_with_unacked_redelivered(world: World) -> None:
    broker, first, second = await world.broker(), await world.broker(), await world.broker()
    leaving, taking = Inbox(ack=False), Inbox()
    subscription = await consume(first, leaving, prefetch=5)
    await consume(second, taking)
    await publish_all(broker, numbered(20))
    await leaving.has(5)
    for delivery in leaving.deliveries[:2]:
        delivery.ack()
    await leaving.has(7)

    await within(subscription.close())

    await taking.has(18)
    assert taking.bodies == numbered(18, start=2)
    assert [delivery.redelivered for delivery in taking.deliveries] == [True] * 5 + [False] * 13
    assert not any(delivery.redelivered for delivery in leaving.deliveries)


async def test_one_that_gave_up_and_subscribed_again_waits_its_turn(world: World) -> None:
    broker, first, second = await world.broker(), await world.broker(), await world.broker()
    before, after, other = Inbox(), Inbox(), Inbox()
    subscription = await consume(first, before)
    second_subscription = await consume(second, other)
    await within(subscription.close())
    await consume(first, after)

    await publish_all(broker, [b"one"])
    await other.has(1)
    await within(second_subscription.close())
    await publish_all(broker, [b"two"])
    await after.has(1)

    assert (before.bodies, other.bodies, after.bodies) == ([], [b"one"], [b"two"])


async def test_prefetch_bounds_what_is_unacked(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox(ack=False)
    await consume(broker, inbox, prefetch=3)
    await publish_all(broker, numbered(10))
    await inbox.has(3)
    await nothing_more(broker, inbox)
    assert inbox.bodies == numbered(3)

    inbox.deliveries[1].ack()

    await inbox.has(4)
    await nothing_more(broker, inbox)
    assert inbox.bodies == numbered(4)


async def test_acks_out_of_order_and_twice_count_once_each(world: World) -> None:
    broker, next_broker = await world.broker(), await world.broker()
    inbox, rest = Inbox(ack=False), Inbox()
    subscription = await consume(broker, inbox, prefetch=8)
    await publish_all(broker, numbered(8))
    await inbox.has(8)

    for number in (7, 2, 2, 0, 5):
        inbox.deliveries[number].ack()
    await nothing_more(broker, inbox)
    for number in (1, 5, 4):
        inbox.deliveries[number].ack()
    await within(subscription.close())
    await consume(next_broker, rest)

    await rest.has(2)
    assert rest.bodies == [b"3", b"6"]
    assert inbox.lost == 0


async def test_an_ack_after_its_channel_closed_is_harmless(world: World) -> None:
    broker = await world.broker()
    before, after = Inbox(ack=False), Inbox(ack=False)
    subscription = await consume(broker, before)
    await publish_all(broker, numbered(3))
    await before.has(3)
    await within(subscription.close())
    await consume(broker, after)
    await after.has(3)

    for delivery in before.deliveries:
        delivery.ack()
    await publish_all(broker, [b"new"])

    await after.has(4)
    assert after.bodies == [*numbered(3), b"new"]
    assert after.lost == 0


async def test_nothing_is_received_after_close(world: World) -> None:
    broker = await world.broker()
    closed, after = Inbox(), Inbox()
    subscription = await consume(broker, closed)
    await within(subscription.close())
    await within(subscription.close())

    await consume(broker, after)
    await publish_all(broker, numbered(5))

    await after.has(5)
    assert not closed.bodies
    assert closed.lost == 0


async def test_an_own_queue_gets_what_its_binding_matches(world: World) -> None:
    broker = await world.broker()
    mine, others = Inbox(), Inbox()
    await own(broker, mine, binding="gw1.#")
    await own(broker, others, binding="gw10.#")

    for key in ("gw1.a", "gw10.a", "gw1.a.b", "gw1"):
        await within(broker.publish("notify", key, key.encode(), mandatory=True))

    await mine.has(3)
    await others.has(1)
    assert (mine.bodies, others.bodies) == ([b"gw1.a", b"gw1.a.b", b"gw1"], [b"gw10.a"])


async def test_media_keys_match_exactly(world: World) -> None:
    broker = await world.broker()
    node = Inbox()
    await own(broker, node, "media", "node-1")

    await within(broker.publish("media", "node-1", b"x", mandatory=True))

    await node.has(1)
    with pytest.raises(Unroutable):
        await within(broker.publish("media", "node-1.x", b"x", mandatory=True))


async def test_a_mandatory_message_without_a_queue_is_unroutable_and_its_neighbours_are_not(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await own(broker, inbox)

    outcomes = await within(
        asyncio.gather(
            broker.send("notify", "gw1.a", b"1", mandatory=True),
            broker.send("notify", "gone.a", b"2", mandatory=True),
            broker.send("notify", "gone.a", b"3"),
            broker.send("notify", "gw1.a", b"4", mandatory=True),
            return_exceptions=True,
        )
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), type(None)]
    await inbox.has(2)
    assert inbox.bodies == [b"1", b"4"]


async def test_an_own_queue_goes_with_its_broker(world: World) -> None:
    broker, leaving = await world.broker(), await world.broker()
    await own(leaving, Inbox())
    await within(broker.publish("notify", "gw1.a", b"", mandatory=True))

    await within(leaving.close())

    with pytest.raises(Unroutable):
        await within(broker.publish("notify", "gw1.a", b"", mandatory=True))


async def test_an_own_queue_goes_with_its_subscription(world: World) -> None:
    broker = await world.broker()
    subscription = await own(broker, Inbox())

    await within(subscription.close())

    with pytest.raises(Unroutable):
        await within(broker.publish("notify", "gw1.a", b"", mandatory=True))


async def test_an_expired_message_is_not_delivered(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox(ack=False)
    await consume(broker, inbox, prefetch=1)
    await publish_all(broker, [b"holds the window"])
    await inbox.has(1)
    await within(broker.publish("rooms", "0", b"expires unless taken at once", ttl=0))
    await within(broker.publish("rooms", "0", b"long", ttl=600))

    inbox.deliveries[0].ack()

    await inbox.has(2)
    assert inbox.bodies == [b"holds the window", b"long"]


async def test_a_lost_connection_fails_what_is_unconfirmed_and_what_follows(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await own(broker, inbox)
    unconfirmed = broker.send("rooms", "0", b"x")

    await world.cut(broker)

    with pytest.raises(BrokerGone):
        await within(unconfirmed)
    await inbox.until(lambda it: it.lost == 1)
    assert not broker.connected
    with pytest.raises(BrokerGone):
        await within(broker.publish("rooms", "0", b"x"))


async def test_a_lost_partition_channel_delivers_again_after_the_return(world: World) -> None:
    publisher, broker = await world.broker(), await world.broker()
    inbox = Inbox(ack=False)
    await consume(broker, inbox)
    await publish_all(publisher, numbered(3))
    await inbox.has(3)
    inbox.deliveries[0].ack()
    await nothing_more(broker, inbox)

    await world.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    for delivery in inbox.deliveries:
        delivery.ack()
    await publish_all(publisher, [b"3"])
    await world.heal(broker)

    await inbox.has(6)
    assert inbox.bodies[3:] == [b"1", b"2", b"3"]
    # Nor need "3" be new: RabbitMQ may have sent it to the connection that it did not yet know was dead.
    assert [delivery.redelivered for delivery in inbox.deliveries[3:5]] == [True, True]
    for delivery in inbox.deliveries:
        delivery.ack()
    await publish_all(publisher, [b"4"])
    await inbox.has(7)
    assert inbox.lost == 1


async def test_after_a_loss_the_next_in_line_takes_over(world: World) -> None:
    publisher, first, second = await world.broker(), await world.broker(), await world.broker()
    lost, taking = Inbox(ack=False), Inbox()
    await consume(first, lost)
    await consume(second, taking)
    await publish_all(publisher, numbered(3))
    await lost.has(3)

    await world.cut(first)

    await taking.has(3)
    assert taking.bodies == numbered(3)
    assert all(delivery.redelivered for delivery in taking.deliveries)


async def test_an_own_queue_is_made_anew_after_the_return(world: World) -> None:
    publisher, broker = await world.broker(), await world.broker()
    inbox = Inbox()
    await own(broker, inbox)

    await world.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    assert inbox.restored == 0
    await world.heal(broker)
    await inbox.until(lambda it: it.restored == 1)
    await within(publisher.publish("notify", "gw1.a", b"again", mandatory=True))

    await inbox.has(1)
    assert inbox.bodies == [b"again"]
    assert inbox.lost == 1


async def test_a_broker_that_is_back_publishes_again(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    for number in range(3):
        await world.cut(broker)
        await inbox.until(lambda it, losses=number + 1: it.lost == losses)
        await world.heal(broker)
        body = b"%d" % number
        await publish_until_taken(broker, body)
        await inbox.until(lambda it, body=body: body in it.bodies)


async def test_subscribing_while_the_link_is_down_waits_for_it(world: World) -> None:
    broker, publisher = await world.broker(), await world.broker()
    inbox, witness = Inbox(), Inbox()
    await own(broker, witness)
    await world.cut(broker)
    await witness.until(lambda it: it.lost == 1)

    subscribing = asyncio.ensure_future(consume(broker, inbox))
    await publish_all(publisher, [b"x"])
    assert not subscribing.done()
    await world.heal(broker)

    await within(subscribing)
    await inbox.has(1)


async def test_close_leaves_no_task_and_no_publish_pending(world: World) -> None:
    before = asyncio.all_tasks()
    broker = await world.broker()
    await consume(broker, Inbox())
    await own(broker, Inbox())
    pending = broker.send("rooms", "0", b"x" * 100_000)

    await within(broker.close())

    assert pending.done()
    with pytest.raises(BrokerGone):
        await within(broker.publish("rooms", "0", b"x"))
    assert not broker.connected
    assert not [task for task in asyncio.all_tasks() - before if task.get_name() != "proxy"]


async def test_close_while_the_link_is_down_leaves_no_task(world: World) -> None:
    before = asyncio.all_tasks()
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)
    await world.cut(broker)
    await inbox.until(lambda it: it.lost == 1)

    await within(broker.close())

    assert not [task for task in asyncio.all_tasks() - before if task.get_name() != "proxy"]


async def publish_until_taken(broker: Broker, body: bytes) -> None:
    """As every publisher does: keeps the message and repeats it."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await broker.publish("rooms", "0", body)
            except (BrokerGone, Refused):
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)


async def test_acks_given_before_close_count(world: World) -> None:
    broker, leaving = await world.broker(), await world.broker()
    inbox, rest = Inbox(ack=False), Inbox()
    await consume(leaving, inbox)
    await publish_all(broker, numbered(3))
    await inbox.has(3)

    inbox.deliveries[0].ack()
    inbox.deliveries[1].ack()
    await within(leaving.close())
    await consume(broker, rest)

    await rest.has(1)
    assert rest.bodies == [b"2"]


async def test_a_receiver_that_fails_does_not_stop_the_rest(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()

    def receive(delivery: Delivery) -> None:
        inbox.take(delivery)
        if delivery.body == b"1":
            raise ValueError("a bug")

    await within(broker.subscribe_partition(0, receive, prefetch=8, on_lost=inbox.on_lost))
    await publish_all(broker, numbered(3))

    await inbox.has(3)
    assert inbox.lost == 0


# Facts of RabbitMQ itself, and of this adapter alone.


async def test_a_full_memory_queue_refuses() -> None:
    broker = MemoryBroker(MemoryHub(1, queue_limit=2))
    await broker.connect()

    outcomes = await asyncio.gather(*(broker.send("rooms", "0", b"") for _ in range(3)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), Refused]
    await broker.close()


@pytest.mark.servers
async def test_one_queue_a_partition_and_one_binding_an_own_queue(amqp_url: str, rabbitmq_server: Server) -> None:
    world = AmqpWorld(amqp_url, "classic")
    broker = await world.broker()
    await own(broker, Inbox(), binding="gw1.#")
    await own(broker, Inbox(), "media", "node-1")

    rows = ctl_rows(rabbitmq_server, "list_bindings", "source_name", "routing_key", "destination_name")
    bindings = [row for row in rows if len(row) == 3 and row[0]]
    queues = ctl_rows(rabbitmq_server, "list_queues", "name", "durable", "exclusive")
    exchanges = ctl_rows(rabbitmq_server, "list_exchanges", "name", "type", "durable")
    await world.end()

    rooms = sorted(row[1:] for row in bindings if row[0] == "rooms")
    assert rooms == [[str(number), f"rooms.{number}"] for number in range(PARTITIONS)]
    own_bindings = {row[2]: row[:2] for row in bindings if row[0] != "rooms"}
    assert sorted(own_bindings.values()) == [["media", "node-1"], ["notify", "gw1.#"]]
    assert len(bindings) == PARTITIONS + 2
    assert sorted(row[1:] for row in queues) == [["false", "true"]] * 2 + [["true", "false"]] * PARTITIONS
    for exchange in (["rooms", "direct", "true"], ["notify", "topic", "true"], ["media", "direct", "true"]):
        assert exchange in exchanges


def ctl_rows(server: Server, *args: str) -> list[list[str]]:
    if not server.killable:
        pytest.skip("no rabbitmqctl for a server given by its address")
    return [line.split("\t") for line in server.ctl(args[0], "--no-table-headers", *args[1:]).splitlines()]


@pytest.mark.servers
async def test_another_queue_type_than_the_clusters_is_a_clear_error(amqp_url: str) -> None:
    classic, quorum = AmqpWorld(amqp_url, "classic"), AmqpWorld(amqp_url, "quorum")
    await classic.broker()

    with pytest.raises(Mismatch, match=r"queue_type=quorum.*x-queue-type"):
        await quorum.broker()

    await quorum.end()
    await classic.end()


@pytest.mark.servers
async def test_messages_wait_for_consumers_through_a_broken_channel(amqp_url: str, rabbitmq_server: Server) -> None:
    """RabbitMQ cancels a consumer when its queue goes: the queue is declared and consumed again."""
    world = AmqpWorld(amqp_url, "classic")
    broker = await world.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    if not rabbitmq_server.killable:
        pytest.skip("no rabbitmqctl for a server given by its address")
    await asyncio.to_thread(rabbitmq_server.ctl, "delete_queue", "rooms.0")
    await inbox.until(lambda it: it.lost >= 1)
    async with asyncio.timeout(WITHIN):
        while not inbox.bodies:
            await broker.publish("rooms", "0", b"x")

    await world.end()


@pytest.mark.servers
async def test_connect_waits_for_a_rabbitmq_that_is_not_there_yet(amqp_url: str) -> None:
    url = URL(amqp_url)
    proxy = Proxy(str(url.host), url.port or 5672)
    await proxy.start()
    proxy.refuse()
    broker = AmqpBroker(str(url.with_port(proxy.port)), partitions=PARTITIONS, queue_type="classic", name="test")

    connecting = asyncio.ensure_future(broker.connect())
    await within(proxy.until_refused(4))
    assert not connecting.done()
    await proxy.start()

    await within(connecting)
    assert broker.connected
    await broker.close()
    await proxy.stop()


@pytest.mark.servers
async def test_a_killed_rabbitmq_comes_back_with_every_subscription(killable_rabbitmq: Server) -> None:
    broker = AmqpBroker(killable_rabbitmq.url, partitions=PARTITIONS, queue_type="classic", name="test")
    await within(broker.connect())
    inbox, notified = Inbox(), Inbox()
    await consume(broker, inbox)
    await own(broker, notified)
    unconfirmed = broker.send("rooms", "0", b"first")
    await inbox.has(1)
    await within(asyncio.gather(unconfirmed, return_exceptions=True))

    await asyncio.to_thread(killable_rabbitmq.restart)

    await notified.until(lambda it: it.restored == 1)
    await publish_until_taken(broker, b"second")
    await inbox.until(lambda it: b"second" in it.bodies)
    assert (inbox.lost, notified.lost) == (1, 1)
    await broker.close()
