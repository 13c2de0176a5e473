"""Publishing what was committed: in order, many at a time, until the broker has it."""

import asyncio
from collections import deque
from typing import Any

import pytest

from roomworker.core.journal import Changes, Outgoing
from roomworker.core.model import Session
from roomworker.counters import Counters
from roomworker.messaging.outbox import Outbox, Receipt
from roomworker.storage.retention import Retention
from shared.broker import BrokerError, BrokerUnavailable, PublishRejected, Unroutable, batcher
from shared.protocol import bus, media
from tests.support.waiting import until

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)


class HeldBroker:
    """A broker that takes messages one by one, when the test says so."""

    def __init__(self) -> None:
        self.calls: deque[tuple[str, str, bytes, asyncio.Future[None]]] = deque()
        self.called = asyncio.Event()

    def publish(self, exchange: str, key: str, body: bytes, **options: Any) -> asyncio.Future[None]:
        assert options == {"mandatory": True}
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls.append((exchange, key, body, future))
        self.called.set()
        return future

    async def next(self, outcome: BrokerError | None = None) -> tuple[str, str, bytes]:
        async with asyncio.timeout(10):
            while not self.calls:
                self.called.clear()
                await self.called.wait()
        exchange, key, body, future = self.calls.popleft()
        if outcome is None:
            future.set_result(None)
        else:
            future.set_exception(outcome)
        return exchange, key, body


@pytest.fixture
def broker() -> HeldBroker:
    return HeldBroker()


@pytest.fixture
def lost() -> list[int]:
    return []


@pytest.fixture
def outbox(broker: HeldBroker, lost: list[int], monkeypatch: pytest.MonkeyPatch) -> Outbox:
    monkeypatch.setattr(batcher, "RETRY_PAUSE", 0)
    return Outbox(broker, "worker", lost.extend, Counters(), Retention(15.0, 0.0))  # type: ignore[arg-type]


def session(n: int, gateway: str = "g") -> Session:
    return Session(id=f"{gateway}.{n}", peer=f"peer{n}", gateway=gateway, connection=n, accepted=1)


def changes(*messages: Outgoing, orders: list[tuple[str, media.AnyOrder]] | None = None) -> Changes:
    return Changes(1, messages=list(messages), orders=orders or [], applied=[])


def bodies(body: bytes) -> list[bytes]:
    return [message.body for message in bus.decode_to_gateway(body).messages]


async def test_message_for_many_sessions_goes_once_to_each_gateway(broker: HeldBroker, outbox: Outbox) -> None:
    to = [(session(1), 5), (session(2), 6), (session(3, "other"), 7)]
    outbox.send_changes(changes(Outgoing(b"hello", to, 4000)), lambda: None)

    sent = dict([(await broker.next())[1:], (await broker.next())[1:]])

    assert set(sent) == {"g.1", "other.3"}
    (message,) = bus.decode_to_gateway(sent["g.1"]).messages
    assert message == bus.Message(b"hello", [bus.Recipient(1, "g.1", 5), bus.Recipient(2, "g.2", 6)], 4000)


async def test_accumulated_messages_are_published_together_in_order(broker: HeldBroker, outbox: Outbox) -> None:
    for n in range(1, 6):
        outbox.send_changes(changes(Outgoing(b"%d" % n, [(session(1), n)])), lambda: None)

    first = bodies((await broker.next())[2])
    outbox.send_changes(changes(Outgoing(b"6", [(session(1), 6)])), lambda: None)
    second = bodies((await broker.next())[2])

    assert first + second == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_a_commit_is_done_when_the_broker_has_all_of_it(broker: HeldBroker, outbox: Outbox) -> None:
    done = asyncio.Event()
    order = media.Close(object="x", v=1, kind="router")
    outbox.send_changes(changes(Outgoing(b"a", [(session(1), 1)]), orders=[("node", order)]), done.set)

    assert not done.is_set()
    await broker.next()
    assert not done.is_set()
    await broker.next()
    async with asyncio.timeout(10):
        await done.wait()


async def test_a_commit_without_anything_to_send_is_done_at_once(outbox: Outbox) -> None:
    done = asyncio.Event()
    outbox.send_changes(changes(), done.set)
    assert done.is_set()


@pytest.mark.parametrize("failure", [BrokerUnavailable("down"), PublishRejected("full")])
async def test_failed_publish_is_repeated_before_later_messages(
    broker: HeldBroker, outbox: Outbox, failure: BrokerError
) -> None:
    outbox.send_changes(changes(Outgoing(b"1", [(session(1), 1)])), lambda: None)
    assert bodies((await broker.next(failure))[2]) == [b"1"]
    outbox.send_changes(changes(Outgoing(b"2", [(session(1), 2)])), lambda: None)

    assert bodies((await broker.next())[2]) == [b"1"]
    assert bodies((await broker.next())[2]) == [b"2"]


async def test_gateway_without_a_queue_delays_nothing(broker: HeldBroker, outbox: Outbox) -> None:
    done = asyncio.Event()
    outbox.send_changes(changes(Outgoing(b"1", [(session(1), 1)])), done.set)

    await broker.next(Unroutable("no queue"))
    async with asyncio.timeout(10):
        await done.wait()

    outbox.send_changes(changes(Outgoing(b"2", [(session(1), 2)])), lambda: None)
    assert bodies((await broker.next())[2]) == [b"2"]


async def test_requests_and_orders_reach_a_node_in_the_order_they_were_made(
    broker: HeldBroker, outbox: Outbox
) -> None:
    request = media.RestartIce(router=ROUTER, transport="t", generation=1)
    order = media.Close(object="t", v=3, kind="transport")
    outbox.send_request("node", 8, request)
    outbox.send_changes(changes(orders=[("node", order)]), lambda: None)

    exchange, key, body = await broker.next()
    commands = media.decode_commands(body)

    assert (exchange, key, commands.reply_to) == ("media", "node", "worker")
    assert [(command.n, command.body) for command in commands.commands] == [(8, request), (0, order)]


async def test_requests_to_a_vanished_node_are_reported_unroutable(
    broker: HeldBroker, outbox: Outbox, lost: list[int]
) -> None:
    outbox.send_request("node", 8, media.RestartIce(router=ROUTER, transport="t", generation=1))
    outbox.send_changes(changes(orders=[("node", media.Close(object="t", v=1, kind="router"))]), lambda: None)

    await broker.next(Unroutable("no queue"))
    await until(lambda: lost)

    assert lost == [8]


async def test_reports_follow_the_messages_they_are_about(broker: HeldBroker, outbox: Outbox) -> None:
    told = Changes(1, messages=[Outgoing(b"1", [(session(1), 1)])], applied=[(session(1), 4, 1)])
    outbox.send_changes(told, lambda: None)

    batch = bus.decode_to_gateway((await broker.next())[2])

    assert [message.body for message in batch.messages] == [b"1"]
    assert batch.applied == [bus.Applied(1, "g.1", 4, 1)]


async def test_close_stops_repeated_publishes(broker: HeldBroker, outbox: Outbox) -> None:
    outbox.send_changes(changes(Outgoing(b"1", [(session(1), 1)])), lambda: None)
    await broker.called.wait()

    outbox.close()
    broker.calls[0][3].set_exception(BrokerUnavailable("closed"))
    await asyncio.sleep(0)

    assert len(broker.calls) == 1, "not tried again"


def test_receipt_is_confirmed_once_after_all_its_parts() -> None:
    done: list[None] = []
    receipt = Receipt(lambda: done.append(None))
    receipt.add()
    receipt.confirm()
    assert not done
    receipt.confirm()
    assert done == [None]
