"""The broker port when its connection is lost or closed: one suite over both adapters."""

import asyncio

import pytest

from shared.broker import BrokerGone
from tests.support.brokers import (
    Inbox,
    World,
    consume,
    nothing_more,
    numbered,
    own,
    publish_all,
    publish_until_taken,
    within,
)


async def test_a_lost_connection_fails_what_is_unconfirmed_and_what_follows(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await own(broker, inbox)
    unconfirmed = broker.publish("rooms", "0", b"x")

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
    pending = broker.publish("rooms", "0", b"x" * 100_000)

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


async def test_what_a_link_does_and_loses_is_counted(world: World) -> None:
    broker = await world.broker()
    inbox = Inbox()
    await own(broker, inbox)
    opened = broker.stats().connections
    assert opened >= 1
    await publish_all(broker, numbered(5))
    assert (broker.stats().published, broker.stats().unconfirmed, broker.stats().lost) == (5, 0, 0)

    await world.cut(broker)
    await inbox.until(lambda it: it.lost == 1)
    await world.heal(broker)
    await inbox.until(lambda it: it.restored == 1)
    await publish_until_taken(broker, b"x")

    assert broker.stats().lost >= 1
    assert broker.stats().connections - broker.stats().lost == opened
