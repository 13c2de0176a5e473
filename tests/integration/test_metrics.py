"""Every process of a cluster is asked for its metrics after it has done something, and tells just that."""

import asyncio
import math
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from devtools import servers
from devtools.cluster import Cluster, Role
from tests.support.peer import Peer, Refusal
from tests.support.waiting import until

pytestmark = pytest.mark.servers


class ScrapedMetrics:
    """The metrics of some processes together: samples of the same name and labels are added."""

    def __init__(self, *roles: Role) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for role in roles:
            status, text = get(role, "/metrics")
            assert status == 200
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    key = sample.name, frozenset(sample.labels.items())
                    self.values[key] = self.values.get(key, 0) + sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sample's value; NaN, which equals and exceeds nothing, if there is none."""
        return self.values.get((f"plenary_{name}", frozenset(labels.items())), math.nan)

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """All samples of that name, by these labels."""
        return {
            tuple(dict(found)[label] for label in labels): value
            for (of, found), value in self.values.items()
            if of == f"plenary_{name}"
        }


def get(role: Role, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(role.metrics_url + path, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path, partitions=4, metrics=True, api_key="secret")
    async with cluster.running_async():
        yield cluster


async def test_every_role_exposes_metrics_of_what_it_did(cluster: Cluster) -> None:
    gateways = [cluster.roles["gateway1"], cluster.roles["gateway2"]]
    workers = [cluster.roles["worker1"], cluster.roles["worker2"]]
    node = cluster.roles["node1"]
    await until(lambda: ScrapedMetrics(*workers)("roomworker_partitions_active") == 4, in_thread=True)

    alice = await Peer.connect(gateways[0].url, "salon", "alice")
    bob = await Peer.connect(gateways[1].url, "salon", "bob")
    for peer in (alice, bob):
        await peer.join()
    send, _ = await alice.transports()
    await bob.transports()
    producer = await alice.produce(send)
    for _ in range(5):
        await alice.confirmed("pauseProducer", id=producer)
        await alice.confirmed("resumeProducer", id=producer)
    for bad in (
        alice.request("createTransport", id="one", direction="send"),
        alice.confirmed("pauseProducer", id=4711),
        alice.request("salonToday"),
    ):
        with pytest.raises(Refusal):
            await bad

    scraped = ScrapedMetrics(*workers)
    assert scraped.by("roomworker_requests_total", "method", "code") == {
        ("queryRoom", "200"): 2,
        ("join", "200"): 2,
        ("createTransport", "200"): 4,
        ("updateTransport", "200"): 2,
        ("createProducer", "200"): 1,
        ("pauseProducer", "200"): 5,
        ("resumeProducer", "200"): 5,
        ("createTransport", "400"): 1,
        ("pauseProducer", "404"): 1,
        ("other", "400"): 1,
    }
    assert scraped("roomworker_rooms") == 1
    assert scraped("roomworker_sessions", state="connected") == 2
    assert scraped("roomworker_peers") == 2
    assert scraped("roomworker_transports") == 4
    assert scraped("roomworker_producers") == 1
    assert scraped("roomworker_takeovers_total") >= 4
    assert scraped("roomworker_commits_total", outcome="stale") == 0
    assert scraped("roomworker_commits_total", outcome="ok") >= 10
    assert scraped("roomworker_media_requests_total", kind="createTransport", code="200") == 4
    assert scraped("roomworker_media_requests_total", kind="produce", code="200") == 1
    assert scraped("roomworker_media_request_seconds_count") == 7
    assert scraped("roomworker_dead_letters") == 0
    assert set(scraped.by("roomworker_partition_active", "partition")) == {("0",), ("1",), ("2",), ("3",)}

    scraped = ScrapedMetrics(*gateways)
    assert scraped("gateway_connections", session="plain") == 2
    assert scraped("gateway_accepted_total") == 2
    assert scraped("gateway_frames_received_total") == 24
    assert scraped("gateway_unapplied_inputs") == scraped("gateway_unapplied_bytes") == 0
    assert 1 <= scraped("gateway_request_seconds_count") <= 24
    assert scraped("gateway_notify_seconds_count") >= 1
    assert scraped("broker_up") == 2
    assert scraped("broker_connections_total") >= 4
    assert scraped("redis_connections_total") >= 2

    scraped = ScrapedMetrics(node)
    assert scraped.by("medianode_requests_total", "kind", "code") == {
        ("createTransport", "200"): 4,
        ("connectTransport", "200"): 2,
        ("produce", "200"): 1,
    }
    assert scraped.by("medianode_orders_total", "kind") == {("pause",): 5, ("resume",): 5}
    assert scraped.by("medianode_objects", "kind", "engine") == {
        ("router", "0"): 1,
        ("transport", "0"): 4,
        ("producer", "0"): 1,
        ("consumer", "0"): 0,
    }
    for peer in (alice, bob):
        await peer.close()
    await until(lambda: ScrapedMetrics(*workers)("roomworker_sessions", state="connected") == 0, in_thread=True)
    assert ScrapedMetrics(*gateways)("gateway_connections", session="plain") == 0


async def test_refusals_and_calls_of_the_api_are_counted_by_code(cluster: Cluster) -> None:
    gateway = cluster.roles["gateway1"]
    peer = await Peer.connect(gateway.url, "salon", "alice")
    peer.client.send("no JSON")
    peer.client.send('{"request": true, "id": 77, "method": ""}')
    while "errorCode" not in (frame := await peer.client.receive()):
        assert frame["notification"]

    for key, path, code in (("secret", "/v1/rooms/salon", 200), ("secret", "/v1/rooms/none", 404), ("", "/x", 401)):
        request = urllib.request.Request(gateway.api_url + path, headers={"Authorization": f"Bearer {key}"})
        try:
            status = (await asyncio.to_thread(urllib.request.urlopen, request)).status
        except urllib.error.HTTPError as refused:
            status = refused.code
        assert status == code

    scraped = ScrapedMetrics(gateway)
    assert scraped.by("gateway_rejected_frames_total", "outcome", "code") == {
        ("malformed", "400"): 1,
        ("answered", "400"): 1,
    }
    assert scraped.by("gateway_api_requests_total", "operation", "code") == {
        ("inspectRoom", "200"): 1,
        ("inspectRoom", "404"): 1,
        ("other", "401"): 1,
    }
    await peer.close()


async def test_process_without_redis_or_rabbitmq_lives_and_is_not_ready(
    cluster: Cluster, killable_redis: servers.Server, killable_rabbitmq: servers.Server
) -> None:
    roles = list(cluster.roles.values())

    def all_say(status: int, text: str) -> bool:
        return all((answer := get(role, "/readyz"))[0] == status and text in answer[1] for role in roles)

    await until(lambda: all_say(200, "ready"), in_thread=True)
    killable_redis.kill()
    await until(lambda: all_say(503, "Redis"), in_thread=True)
    assert all(get(role, "/healthz") == (200, "alive\n") for role in roles)
    await asyncio.to_thread(killable_redis.restart)
    await until(lambda: all_say(200, "ready"), in_thread=True)
    killable_rabbitmq.kill()
    await until(lambda: all_say(503, "no connection to the message broker"), in_thread=True)
    scraped = ScrapedMetrics(*roles)
    assert (
        scraped("ready", role="gateway")
        == scraped("ready", role="roomworker")
        == scraped("ready", role="medianode")
        == 0
    )
    assert scraped("broker_connections_lost_total") >= 2 * len(roles)
    await asyncio.to_thread(killable_rabbitmq.restart)
    await until(lambda: all_say(200, "ready"), in_thread=True)
