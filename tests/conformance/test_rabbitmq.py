"""Plenary on a real RabbitMQ: its topology, and its faults."""

import asyncio

import pytest
from yarl import URL

from devtools.servers import Server
from shared.broker.amqp import AmqpBroker, TopologyMismatch
from tests.support.brokers import (
    PARTITIONS,
    AmqpHarness,
    Inbox,
    consume,
    consume_exclusive,
    publish_until_taken,
    within,
)
from tests.support.proxy import Proxy
from tests.support.waiting import until


@pytest.mark.servers
async def test_topology_has_one_queue_per_partition(amqp_url: str, rabbitmq_server: Server) -> None:
    harness = AmqpHarness(amqp_url, "classic")
    broker = await harness.broker()
    await consume_exclusive(broker, Inbox(), binding="gw1.#")
    await consume_exclusive(broker, Inbox(), "media", "node-1")

    # In a thread, so that the broker's heartbeats go on: without them its exclusive queues end.
    async def list_of(*args: str) -> list[list[str]]:
        return await asyncio.to_thread(ctl_rows, rabbitmq_server, *args)

    rows = await list_of("list_bindings", "source_name", "routing_key", "destination_name")
    bindings = [row for row in rows if len(row) == 3 and row[0]]
    queues = await list_of("list_queues", "name", "durable", "exclusive")
    exchanges = await list_of("list_exchanges", "name", "type", "durable")
    await harness.close()

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
async def test_mismatched_queue_type_raises_a_clear_error(amqp_url: str) -> None:
    classic, quorum = AmqpHarness(amqp_url, "classic"), AmqpHarness(amqp_url, "quorum")
    await classic.broker()

    with pytest.raises(TopologyMismatch, match=r"queue_type=quorum.*x-queue-type"):
        await quorum.broker()

    await quorum.close()
    await classic.close()


@pytest.mark.servers
async def test_deleted_queue_is_declared_and_consumed_again(amqp_url: str, rabbitmq_server: Server) -> None:
    """RabbitMQ cancels a consumer when its queue goes: the queue is declared and consumed again."""
    harness = AmqpHarness(amqp_url, "classic")
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    if not rabbitmq_server.killable:
        pytest.skip("no rabbitmqctl for a server given by its address")
    await asyncio.to_thread(rabbitmq_server.ctl, "delete_queue", "rooms.0")
    await inbox.until(lambda it: it.lost >= 1)

    async def delivered() -> bool:
        await broker.publish("rooms", "0", b"x")
        return bool(inbox.bodies)

    await until(delivered)
    await harness.close()


@pytest.mark.servers
async def test_connect_waits_for_an_absent_rabbitmq(amqp_url: str) -> None:
    url = URL(amqp_url)
    proxy = Proxy(str(url.host), url.port or 5672)
    await proxy.start()
    proxy.refuse()
    broker = AmqpBroker(
        str(url.with_host("127.0.0.1").with_port(proxy.port)),
        partitions=PARTITIONS,
        queue_type="classic",
        name="test",
    )

    connecting = asyncio.ensure_future(broker.connect())
    await within(proxy.until_refused(4))
    assert not connecting.done()
    await proxy.start()

    await within(connecting)
    assert broker.connected
    await broker.close()
    await proxy.stop()


@pytest.mark.servers
async def test_subscriptions_return_after_a_killed_rabbitmq(killable_rabbitmq: Server) -> None:
    broker = AmqpBroker(killable_rabbitmq.url, partitions=PARTITIONS, queue_type="classic", name="test")
    await within(broker.connect())
    inbox, notified = Inbox(), Inbox()
    await consume(broker, inbox)
    await consume_exclusive(broker, notified)
    unconfirmed = broker.publish("rooms", "0", b"first")
    await inbox.has(1)
    await within(asyncio.gather(unconfirmed, return_exceptions=True))

    await asyncio.to_thread(killable_rabbitmq.restart)

    await notified.until(lambda it: it.restored == 1)
    await publish_until_taken(broker, b"second")
    await inbox.until(lambda it: b"second" in it.bodies)
    assert (inbox.lost, notified.lost) == (1, 1)
    await broker.close()


@pytest.mark.servers
async def test_acks_arrive_while_publishers_are_blocked(amqp_url: str, rabbitmq_server: Server) -> None:
    """During a memory alarm RabbitMQ reads nothing from publishers: acknowledgements need another connection
    (DELIVERY B3)."""
    broker = AmqpBroker(amqp_url, partitions=PARTITIONS, queue_type="classic", name="test")
    await within(broker.connect())
    inbox = Inbox(ack=False)
    await consume(broker, inbox)

    async def ctl(*args: str) -> list[list[str]]:
        return await asyncio.to_thread(ctl_rows, rabbitmq_server, *args)

    async def unfinished() -> str:
        return next(row[1] for row in await ctl("list_queues", "name", "messages") if row[0] == "rooms.0")

    async def blocked() -> bool:
        publishes.append(broker.publish("rooms", "0", b"x"))
        return ["blocked"] in await ctl("list_connections", "state")

    async def all_delivered() -> bool:
        return await unfinished() == str(len(inbox.deliveries))

    async def all_finished() -> bool:
        return await unfinished() == "0"

    publishes = [broker.publish("rooms", "0", b"x") for _ in range(10)]
    await inbox.has(10)
    await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        await until(blocked)
        await until(all_delivered)
        for delivery in inbox.deliveries:
            delivery.ack()
        await until(all_finished)
        assert not publishes[-1].done()
    finally:
        await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.4")
    await within(asyncio.gather(*publishes))
    await broker.close()


@pytest.mark.servers
async def test_broker_takes_no_messages_while_it_has_an_alarm(amqp_url: str, rabbitmq_server: Server) -> None:
    """The broker publishes nothing itself: it has to find out by a probe."""
    broker = AmqpBroker(amqp_url, partitions=PARTITIONS, queue_type="classic", name="test")
    await within(broker.connect())
    assert (broker.takes_messages, broker.trouble) == (True, "")
    if not rabbitmq_server.killable:
        pytest.skip("no rabbitmqctl for a server given by its address")
    await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        await until(lambda: not broker.takes_messages)
        assert broker.connected
        assert "takes no messages" in broker.trouble
        assert broker.stats().blocked
    finally:
        await asyncio.to_thread(rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.4")
    await until(lambda: broker.takes_messages)
    assert (broker.trouble, broker.stats().published) == ("", 0)
    await within(broker.publish("rooms", "0", b"x"))
    await broker.close()
