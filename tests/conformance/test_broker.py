"""The broker port: one suite over the memory and the RabbitMQ adapter."""

import asyncio

import pytest

from shared.broker import Delivery, PublishRejected, Unroutable
from shared.broker.memory import MemoryBroker, MemoryHub
from tests.support.brokers import (
    BrokerHarness,
    Inbox,
    consume,
    consume_exclusive,
    nothing_more,
    numbered,
    publish_all,
    within,
)


async def test_messages_arrive_in_the_order_of_the_publish_calls(harness: BrokerHarness) -> None:
    publisher, consumer = await harness.broker(), await harness.broker()
    inbox = Inbox()
    await consume(consumer, inbox)

    await publish_all(publisher, numbered(500))

    await inbox.has(500)
    assert inbox.bodies == numbered(500)


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_bodies_of_any_size_arrive_whole(harness: BrokerHarness, size: int) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox)
    body = bytes(range(256)) * (size // 256 + 1)

    await publish_all(broker, [body[:size], b"next"])

    await inbox.has(2)
    assert inbox.bodies == [body[:size], b"next"]


async def test_a_message_is_never_delivered_or_confirmed_inside_the_call(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox)

    confirmed = broker.publish("rooms", "0", b"x")

    assert not inbox.bodies
    assert not confirmed.done()
    await within(confirmed)
    await inbox.has(1)


async def test_partitions_do_not_share_messages(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    zero, one = Inbox(), Inbox()
    await consume(broker, zero, partition=0)
    await consume(broker, one, partition=1)

    await publish_all(broker, [b"to 0"], key="0")
    await publish_all(broker, [b"to 1"], key="1")

    await zero.has(1)
    await one.has(1)
    assert (zero.bodies, one.bodies) == ([b"to 0"], [b"to 1"])


async def test_only_the_first_subscriber_is_active(harness: BrokerHarness) -> None:
    broker, first, second = await harness.broker(), await harness.broker(), await harness.broker()
    active, waiting = Inbox(), Inbox()
    await consume(first, active)
    await consume(second, waiting)

    await publish_all(broker, numbered(20))

    await active.has(20)
    await nothing_more(second, waiting)
    assert not waiting.bodies


async def test_closed_subscription_hands_over_in_order_and_redelivers(
    harness: BrokerHarness,
) -> None:
    broker, first, second = await harness.broker(), await harness.broker(), await harness.broker()
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


async def test_resubscribed_consumer_waits_behind_the_others(harness: BrokerHarness) -> None:
    broker, first, second = await harness.broker(), await harness.broker(), await harness.broker()
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


async def test_prefetch_bounds_what_is_unacked(harness: BrokerHarness) -> None:
    broker = await harness.broker()
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


async def test_acks_out_of_order_and_twice_count_once_each(harness: BrokerHarness) -> None:
    broker, next_broker = await harness.broker(), await harness.broker()
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


async def test_an_ack_after_its_channel_closed_is_harmless(harness: BrokerHarness) -> None:
    broker = await harness.broker()
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


async def test_closed_broker_receives_nothing(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    closed, after = Inbox(), Inbox()
    subscription = await consume(broker, closed)
    await within(subscription.close())
    await within(subscription.close())

    await consume(broker, after)
    await publish_all(broker, numbered(5))

    await after.has(5)
    assert not closed.bodies
    assert closed.lost == 0


async def test_exclusive_queue_gets_what_its_binding_matches(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    mine, others = Inbox(), Inbox()
    await consume_exclusive(broker, mine, binding="gw1.#")
    await consume_exclusive(broker, others, binding="gw10.#")

    for key in ("gw1.a", "gw10.a", "gw1.a.b", "gw1"):
        await within(broker.publish("notify", key, key.encode(), mandatory=True))

    await mine.has(3)
    await others.has(1)
    assert (mine.bodies, others.bodies) == ([b"gw1.a", b"gw1.a.b", b"gw1"], [b"gw10.a"])


async def test_media_keys_match_exactly(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    node = Inbox()
    await consume_exclusive(broker, node, "media", "node-1")

    await within(broker.publish("media", "node-1", b"x", mandatory=True))

    await node.has(1)
    with pytest.raises(Unroutable):
        await within(broker.publish("media", "node-1.x", b"x", mandatory=True))


async def test_only_the_mandatory_message_without_a_queue_is_unroutable(
    harness: BrokerHarness,
) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    await consume_exclusive(broker, inbox)

    outcomes = await within(
        asyncio.gather(
            broker.publish("notify", "gw1.a", b"1", mandatory=True),
            broker.publish("notify", "gone.a", b"2", mandatory=True),
            broker.publish("notify", "gone.a", b"3"),
            broker.publish("notify", "gw1.a", b"4", mandatory=True),
            return_exceptions=True,
        )
    )

    assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), type(None)]
    await inbox.has(2)
    assert inbox.bodies == [b"1", b"4"]


async def test_exclusive_queue_is_deleted_with_its_broker(harness: BrokerHarness) -> None:
    broker, leaving = await harness.broker(), await harness.broker()
    await consume_exclusive(leaving, Inbox())
    await within(broker.publish("notify", "gw1.a", b"", mandatory=True))

    await within(leaving.close())

    with pytest.raises(Unroutable):
        await within(broker.publish("notify", "gw1.a", b"", mandatory=True))


async def test_exclusive_queue_is_deleted_with_its_subscription(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    subscription = await consume_exclusive(broker, Inbox())

    await within(subscription.close())

    with pytest.raises(Unroutable):
        await within(broker.publish("notify", "gw1.a", b"", mandatory=True))


async def test_an_expired_message_is_not_delivered(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox(ack=False)
    await consume(broker, inbox, prefetch=1)
    await publish_all(broker, [b"holds the window"])
    await inbox.has(1)
    await within(broker.publish("rooms", "0", b"expires unless taken at once", ttl=0))
    await within(broker.publish("rooms", "0", b"long", ttl=600))

    inbox.deliveries[0].ack()

    await inbox.has(2)
    assert inbox.bodies == [b"holds the window", b"long"]


async def test_acks_given_before_close_count(harness: BrokerHarness) -> None:
    broker, leaving = await harness.broker(), await harness.broker()
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


async def test_messages_of_a_receiver_that_raises_are_redelivered(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()
    failures = iter([ValueError("a bug"), ValueError("again")])

    def receive(delivery: Delivery) -> None:
        if delivery.body == b"1" and (failure := next(failures, None)) is not None:
            inbox.take_body(delivery.body)
            raise failure
        inbox.take(delivery)

    await within(broker.subscribe_partition(0, receive, prefetch=2, on_lost=inbox.on_lost))
    await publish_all(broker, numbered(6))

    await inbox.has(8)
    assert inbox.bodies == [b"0", b"1", b"1", *numbered(5, start=1)]
    assert [delivery.redelivered for delivery in inbox.deliveries[:2]] == [False, True]
    assert inbox.lost == 2
    assert broker.stats().receiver_failures == 2
    await publish_all(broker, [b"later"])
    await inbox.has(9)


async def test_receiver_that_raises_after_its_ack_does_not_stop_deliveries(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()

    def receive(delivery: Delivery) -> None:
        inbox.take(delivery)
        if delivery.body == b"1":
            raise ValueError("a bug")

    await within(broker.subscribe_partition(0, receive, prefetch=8, on_lost=inbox.on_lost))
    await publish_all(broker, numbered(3))

    await inbox.has(3)
    assert inbox.bodies == numbered(3)
    assert inbox.lost == 1


async def test_receiver_that_always_raises_is_called_after_growing_pauses(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()

    def receive(delivery: Delivery) -> None:
        inbox.take_body(delivery.body)
        raise ValueError("a bug")

    subscription = await within(broker.subscribe_partition(0, receive, prefetch=8, on_lost=inbox.on_lost))
    began = asyncio.get_running_loop().time()
    await publish_all(broker, [b"x"])

    await inbox.has(4)
    assert asyncio.get_running_loop().time() - began > 0.05 + 0.1 + 0.2
    await within(subscription.close())
    rest = Inbox()
    await consume(broker, rest)
    await rest.has(1)


async def test_next_consumer_takes_over_from_a_receiver_that_raises(harness: BrokerHarness) -> None:
    broker, second = await harness.broker(), await harness.broker()
    failing, taking = Inbox(), Inbox()

    def receive(delivery: Delivery) -> None:
        failing.take_body(delivery.body)
        raise ValueError("a bug")

    await within(broker.subscribe_partition(0, receive, prefetch=8, on_lost=failing.on_lost))
    await consume(second, taking)
    await publish_all(second, numbered(3))

    await taking.has(3)
    assert (failing.bodies, taking.bodies) == ([b"0"], numbered(3))


async def test_receiver_of_an_exclusive_queue_that_raises_loses_one_message(harness: BrokerHarness) -> None:
    broker = await harness.broker()
    inbox = Inbox()

    def receive(body: bytes) -> None:
        inbox.take_body(body)
        if body == b"0":
            raise ValueError("a bug")

    notices = {"on_lost": inbox.on_lost, "on_restored": inbox.on_restored}
    await within(broker.subscribe_exclusive("notify", "gw1.#", receive, **notices))
    for body in numbered(2):
        await within(broker.publish("notify", "gw1.a", body, mandatory=True))

    await inbox.has(2)
    assert (inbox.bodies, inbox.lost) == (numbered(2), 0)
    assert broker.stats().receiver_failures == 1


async def test_full_memory_queue_rejects_publishes() -> None:
    broker = MemoryBroker(MemoryHub(1, queue_limit=2))
    await broker.connect()

    outcomes = await asyncio.gather(*(broker.publish("rooms", "0", b"") for _ in range(3)), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), PublishRejected]
    await broker.close()
