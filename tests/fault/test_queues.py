"""Messages that are left in a queue are told from the ticks that come and go, and named."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.servers import Server
from shared.broker import Broker
from shared.protocol import bus
from tests.fault import checks, queues
from tests.fault.cluster import FaultCluster, Shape
from tests.support.brokers import AmqpHarness, within

INPUT = bus.Input("salon", "gw.1", 1, 7, "mediasoup-request", 3, b'{"method":"queryRoom"}')


async def looks(*counts: Mapping[str, int]) -> dict[str, str]:
    """Returns the queues that were never empty in these looks, the last of which is repeated."""
    left = list(counts)

    async def count() -> Mapping[str, int]:
        return left.pop(0) if len(left) > 1 else left[0]

    return await queues.never_empty(count, within=0.05, every=0.001)


async def test_queues_that_were_empty_at_different_times_pass() -> None:
    assert await looks({"rooms.0": 1, "rooms.1": 0}, {"rooms.0": 0, "rooms.1": 2}) == {}


async def test_queue_that_is_never_empty_is_found_with_its_counts() -> None:
    found = await looks({"rooms.0": 3, "rooms.1": 1}, {"rooms.0": 1, "rooms.1": 0}, {"rooms.0": 1, "rooms.1": 1})
    assert list(found) == ["rooms.0"]
    assert found["rooms.0"].startswith("1 to 3 messages in ")


@pytest.mark.servers
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_left_message_is_named_by_item_origin_and_age(amqp_url: str, queue_type: str) -> None:
    harness = AmqpHarness(amqp_url, queue_type)  # type: ignore[arg-type]
    broker: Broker = await harness.broker()
    item = bus.encode_item(INPUT)
    await within(broker.publish("rooms", "2", bus.encode_batch("gw-x", [item], time.time() - 40)))
    await harness.close()

    found = await queues.contents(amqp_url, ["rooms.1", "rooms.2"], seconds=0.5)

    assert found["rooms.1"] == []
    (text,) = found["rooms.2"]
    assert text.startswith("Input(room='salon', session='gw.1', connection=1, n=7")
    assert " of gw-x, 40." in text


@pytest.mark.servers
async def test_fresh_ticks_and_reports_are_not_left_but_old_ones_are(amqp_url: str) -> None:
    harness = AmqpHarness(amqp_url, "classic")
    broker: Broker = await harness.broker()
    report = bus.NodeReport("node-x", [], False)
    for origin, items, age in (
        ("fresh", [report], 0.0),
        ("old", [report], queues.FRESH + 1),
        ("mixed", [report, INPUT], 0.0),
    ):
        body = bus.encode_batch(origin, [bus.encode_item(item) for item in items], time.time() - age)
        await within(broker.publish("rooms", "1", body))
    await harness.close()

    found = await queues.contents(amqp_url, ["rooms.1"], seconds=0.5)

    assert [text.partition(" of ")[2].partition(",")[0] for text in found["rooms.1"]] == ["old", "mixed", "mixed"]


@pytest.mark.servers
async def test_message_without_ack_is_named_after_its_worker_is_killed(
    killable_redis: Server, killable_rabbitmq: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker that has stopped, as one that has forgotten an acknowledgement for ever."""
    monkeypatch.setattr(queues, "LOOK_FOR", 1.0)
    shape = Shape(gateways=0, workers=1, nodes=0, partitions=1)
    cluster = FaultCluster(killable_redis, killable_rabbitmq, tmp_path, shape)
    harness = AmqpHarness(killable_rabbitmq.url, "classic", partitions=1)
    try:
        await cluster.start()
        cluster.workers[0].freeze()
        broker: Broker = await harness.broker()
        await within(broker.publish("rooms", "0", bus.encode_batch("gw-x", [bus.encode_item(INPUT)], time.time())))
        (failure,) = await checks.check_nothing_left(cluster, cluster.left_messages)
        assert failure.text.startswith("queues: rooms.0: ")
        assert "Input(room='salon', session='gw.1'" in failure.text
        assert checks.died(cluster) == []
    finally:
        await harness.close()
        await cluster.abort()


def test_message_that_is_no_batch_is_described_by_its_bytes() -> None:
    (text,) = queues.described(b"x", redelivered=True, headers={"x-delivery-count": 2})
    assert text.startswith("unreadable (empty batch): b'x'")
    assert "redelivered, headers {'x-delivery-count': 2}" in text
