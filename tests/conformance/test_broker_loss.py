"""The broker port when its connection is lost or closed: one suite over both adapters."""

import asyncio
from functools import partial

import pytest

from shared.broker import BrokerUnavailable
from tests.support.brokers import (
    BrokerHarness,
    Inbox,
    consume,
    consume_exclusive,
    nothing_more,
    numbered,
    publish_all,
    publish_until_taken,
    within,
)


def _has_lost(times: int, inbox: Inbox) -> bool:
    return inbox.lost == times


def _has_restored(times: int, inbox: Inbox) -> bool:
    return inbox.restored == times


def _has_body(body: bytes, inbox: Inbox) -> bool:
    return body in inbox.bodies


async def test_lost_connection_fails_unconfirmed_and_later_publishes(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume_exclusive(broker, inbox)
    unconfirmed = broker.publish("rooms", "0", b"x")

    await harness.cut(broker)

    with pytest.raises(BrokerUnavailable):
        await within(unconfirmed)
    await inbox.until(lambda it: it.lost == 1)
    assert not broker.connected
    with pytest.raises(BrokerUnavailable):
        await within(broker.publish("rooms", "0", b"x"))


async def test_unacked_messages_are_redelivered_after_a_reconnect(harness: BrokerHarness) -> None:
    publisher, broker = await harness.broker(), await harness.broker()
    inbox = Inbox(ack=False)
    await consume(broker, inbox)
    await publish_all(publisher, numbered(3))
    await inbox.has(3)
    inbox.deliveries[0].ack()
    await nothing_more(broker, inbox)

    await harness.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    for delivery in inbox.deliveries:
        delivery.ack()
    await publish_all(publisher, [b"3"])
    await harness.heal(broker)

    await inbox.has(6)
    assert inbox.bodies[3:] == [b"1", b"2", b"3"]
    # Nor need "3" be new: RabbitMQ may have sent it to the connection that it did not yet know was dead.
    assert [delivery.redelivered for delivery in inbox.deliveries[3:5]] == [True, True]
    for delivery in inbox.deliveries:
        delivery.ack()
    await publish_all(publisher, [b"4"])
    await inbox.has(7)
    assert inbox.lost == 1


async def test_next_consumer_takes_over_after_a_lost_connection(harness: BrokerHarness) -> None:
    publisher, first, second = await harness.broker(), await harness.broker(), await harness.broker()
    lost, taking = Inbox(ack=False), Inbox()
    await consume(first, lost)
    await consume(second, taking)
    await publish_all(publisher, numbered(3))
    await lost.has(3)

    await harness.cut(first)

    await taking.has(3)
    assert taking.bodies == numbered(3)
    assert all(delivery.redelivered for delivery in taking.deliveries)


async def test_exclusive_queue_is_declared_again_after_a_reconnect(harness: BrokerHarness) -> None:
    publisher, broker = await harness.broker(), await harness.broker()
    inbox = Inbox()
    await consume_exclusive(broker, inbox)

    await harness.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    assert inbox.restored == 0
    await harness.heal(broker)
    await inbox.until(lambda it: it.restored == 1)
    await within(publisher.publish("notify", "gw1.a", b"again", mandatory=True))

    await inbox.has(1)
    assert inbox.bodies == [b"again"]
    assert inbox.lost == 1


async def test_reconnected_broker_publishes_again(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    for number in range(3):
        await harness.cut(broker)
        await inbox.until(partial(_has_lost, number + 1))
        await harness.heal(broker)
        body = b"%d" % number
        await publish_until_taken(broker, body)
        await inbox.until(partial(_has_body, body))


async def test_raising_notices_do_not_end_their_subscription(harness: BrokerHarness) -> None:
    publisher, broker = await harness.broker(), await harness.broker()
    inbox = Inbox()

    def on_lost() -> None:
        inbox.on_lost()
        raise ValueError("a bug")

    def on_restored() -> None:
        inbox.on_restored()
        raise ValueError("a bug")

    notices = {"on_lost": on_lost, "on_restored": on_restored}
    await within(broker.subscribe_exclusive("notify", "gw1.#", inbox.take_body, **notices))

    for number in (1, 2):
        await harness.cut(broker)
        await inbox.until(partial(_has_lost, number))
        await harness.heal(broker)
        await inbox.until(partial(_has_restored, number))
        await within(publisher.publish("notify", "gw1.a", b"%d" % number, mandatory=True))
        await inbox.has(number)

    assert inbox.bodies == [b"1", b"2"]
    assert broker.stats().receiver_failures == 4


async def test_subscribing_waits_while_the_connection_is_down(harness: BrokerHarness) -> None:
    broker, publisher = await harness.broker(), await harness.broker()
    inbox, witness = Inbox(), Inbox()
    await consume_exclusive(broker, witness)
    await harness.cut(broker)
    await witness.until(lambda it: it.lost == 1)

    subscribing = asyncio.ensure_future(consume(broker, inbox))
    await publish_all(publisher, [b"x"])
    assert not subscribing.done()
    await harness.heal(broker)

    await within(subscribing)
    await inbox.has(1)


async def test_close_leaves_no_task_and_no_pending_publish(harness: BrokerHarness) -> None:
    before = asyncio.all_tasks()
    broker = await harness.broker()
    await consume(broker, Inbox())
    await consume_exclusive(broker, Inbox())
    pending = broker.publish("rooms", "0", b"x" * 100_000)

    await within(broker.close())

    assert pending.done()
    with pytest.raises(BrokerUnavailable):
        await within(broker.publish("rooms", "0", b"x"))
    assert not broker.connected
    assert not [task for task in asyncio.all_tasks() - before if task.get_name() != "proxy"]


async def test_close_while_disconnected_leaves_no_task(harness: BrokerHarness) -> None:
    before = asyncio.all_tasks()
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox)
    await harness.cut(broker)
    await inbox.until(lambda it: it.lost == 1)

    await within(broker.close())

    assert not [task for task in asyncio.all_tasks() - before if task.get_name() != "proxy"]


async def test_connections_losses_and_publishes_are_counted(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume_exclusive(broker, inbox)
    opened = broker.stats().connections
    assert opened >= 1
    await publish_all(broker, numbered(5))
    assert (broker.stats().published, broker.stats().unconfirmed, broker.stats().lost) == (5, 0, 0)

    await harness.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    await harness.heal(broker)
    await inbox.until(lambda it: it.restored == 1)
    await publish_until_taken(broker, b"x")

    assert broker.stats().lost >= 1
    assert broker.stats().connections - broker.stats().lost == opened
