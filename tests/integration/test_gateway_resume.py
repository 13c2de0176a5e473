"""Resumable sessions over two gateways with real sockets, a broker in the process and a room worker that echoes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from fakeredis import FakeAsyncRedis
from picows import WSMsgType

from gateway.protocol import handshake
from gateway.protocol.resumable_session import RESUMPTION_TIMEOUT
from gateway.server import Gateway
from loadtest.client.protoo import Ended, ProtooClient, Refusal
from shared import errors
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.protocol import bus
from shared.settings import GatewaySettings
from tests.support.gateways import Client, EchoWorker, FaultyBroker
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@dataclass
class Setup:
    gateways: list[Gateway]
    brokers: list[FaultyBroker]
    worker: EchoWorker
    clients: list[ProtooClient] = field(default_factory=list)

    def urls(self, *order: int) -> list[str]:
        return [f"ws://127.0.0.1:{self.gateways[at].port}" for at in order]

    async def client(self, *order: int, peer: str = "alice") -> ProtooClient:
        """A client that connects to these gateways in turn."""
        urls = self.urls(*(order or (0, 1)))
        client = await ProtooClient(urls[0], "room", peer, urls=urls).open()
        self.clients.append(client)
        return client

    def session(self, number: int = 1) -> str:
        return f"{self.gateways[0].id}.{number}"

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.worker.until(condition)

    def told(self, kind: type) -> list[Any]:
        return [item for item in self.worker.items if isinstance(item, kind)]

    async def echo(self, client: ProtooClient, data: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            assert await client.request(data) == data


@pytest.fixture
async def setup(request: pytest.FixtureRequest) -> AsyncIterator[Setup]:
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "page": "none", "message_rate": 0}
    options |= getattr(request, "param", {})
    queues, redis = MemoryHub(), FakeAsyncRedis()
    brokers = [FaultyBroker(queues), FaultyBroker(queues)]
    workers_broker = MemoryBroker(queues)
    for broker in (*brokers, workers_broker):
        await broker.connect()
    worker = EchoWorker(workers_broker)
    await worker.start(32)
    gateways = [
        Gateway(GatewaySettings(name=f"gw{at}", **options), broker, RedisCluster(redis))
        for at, broker in enumerate(brokers)
    ]
    for gateway in gateways:
        await gateway.start()
    setup = Setup(gateways, brokers, worker)
    yield setup
    for client in setup.clients:
        await client.abort()
    for gateway in gateways:
        await gateway.close()
    await redis.aclose()


def settings(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setup", [options], indirect=True, ids=[""])


def in_order(client: ProtooClient) -> None:
    assert (client.ledger.duplicates, client.ledger.gaps) == (0, 0)


# --- a connection -------------------------------------------------------------------------------------------


async def test_the_worker_gets_the_secrets_hash_and_the_client_the_token(setup: Setup) -> None:
    client = await setup.client()
    (connect,) = setup.told(bus.Connect)
    wanted = handshake.parse(f"roomId=r&peerName=p&resumable=1&resume={client.ledger.token}&ack=0&attempt=1")
    assert wanted is not None
    assert wanted.resume is not None
    assert (wanted.resume.session, wanted.resume.token) == (setup.session(), connect.token)
    assert client.ledger.grace_seconds == 15


async def test_the_first_frame_is_session_and_later_ones_are_numbered(setup: Setup) -> None:
    client = await Client.at(f"{setup.urls(0)[0]}/?roomId=r&peerName=p&resumable=1")
    greeting = await client.receive()
    assert (greeting["method"], greeting["data"]["resumed"]) == ("session", False)
    assert "seq" not in greeting
    client.send('{"request":true,"id":5,"method":"m","data":"x","cseq":1}')
    assert await client.receive() == {"seq": 1, "ack": 0, "response": True, "id": 5, "ok": True, "data": "x"}
    client.send('{"request":true,"id":6,"method":"m","data":"x"}')
    complaint = await client.receive()
    assert (complaint["method"], complaint["data"]) == ("error", {"errorCode": 400, "errorReason": "cseq: missing"})
    client.send('{"notification":true,"method":"session"}')
    assert (await client.receive())["data"] == {"ack": 1}
    client.send('{"request":true,"id":7,"method":"m","data":"y","cseq":2}')
    assert (await client.receive())["data"] == "y"


@settings(frame_limit=2000)
async def test_rejected_frames_keep_their_numbers(setup: Setup) -> None:
    client = await setup.client()
    answers = [client.ask(data) for data in ("fine", "x" * 3000, json.loads("[" * 65 + "]" * 65), "fine")]
    client.send({"response": True, "id": 3, "ok": True})
    client.send({"notification": True, "method": ""})
    client.send({"request": True, "method": "no id"})
    await setup.echo(client, "still here")
    codes = [answer.exception().code if answer.exception() else 0 for answer in answers]  # type: ignore[union-attr]
    assert codes == [0, 413, 400, 0]
    assert setup.worker.numbers(setup.session()) == list(range(9))


@settings(message_rate=0.001, message_burst=2, grace_seconds=1)
async def test_rate_limited_frames_keep_their_numbers(setup: Setup) -> None:
    client = await setup.client()
    answers = [client.ask(1) for _ in range(4)]
    for answer in answers[:2]:
        assert await answer == 1
    for answer in answers[2:]:
        with pytest.raises(Refusal, match="429"):
            await answer


async def test_unreadable_frames_are_answered_and_block_no_later_frame(setup: Setup) -> None:
    client = await Client.at(f"{setup.urls(0)[0]}/?roomId=r&peerName=p&resumable=1")
    await client.receive()
    client.send(b"")
    client.send(b"\x00", WSMsgType.BINARY)
    for _ in range(2):
        assert (await client.receive())["data"]["errorCode"] == 400
    client.send('{"request":true,"id":1,"method":"m","data":"x","cseq":3}')
    assert (await client.receive())["data"] == "x"
    client.send("{")
    await client.receive()
    client.send('{"request":true,"id":1,"method":"m","data":"x","cseq":4}')
    assert await client.until_closed() == (errors.MISNUMBERED.code, errors.MISNUMBERED.reason)
    await setup.until(lambda: not setup.worker.known)


async def test_a_gap_in_cseq_closes_the_connection_with_4002(setup: Setup) -> None:
    client = await Client.at(f"{setup.urls(0)[0]}/?roomId=r&peerName=p&resumable=1")
    await client.receive()
    client.send('{"request":true,"id":1,"method":"m","cseq":2}')
    assert await client.until_closed() == (errors.GAP.code, errors.GAP.reason)
    await setup.until(lambda: bool(setup.told(bus.ConnectionLost)))
    assert not setup.told(bus.ConnectionLost)[0].final


async def test_large_frames_of_a_resumable_session_pass_unchanged(setup: Setup) -> None:
    client = await setup.client()
    for size in (8100, 8180, 8192, 9000, 200_000):
        await setup.echo(client, "x" * size)
    in_order(client)


async def test_inputs_of_a_client_that_only_notifies_are_acknowledged(setup: Setup) -> None:
    client = await setup.client()
    for _ in range(100):
        client.notify("x")
    await until(lambda: client.ledger.unacknowledged < 32)


# --- resuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (0,)], ids=["elsewhere", "here"])
async def test_a_cut_client_resumes_without_loss_or_repetition(setup: Setup, order: tuple[int, ...]) -> None:
    client = await setup.client(*order)
    answers = []
    for number in range(10):
        answers += [client.ask(f"{number}.{more}") for more in range(20)]
        if number % 2:
            client.drop_connection()
        await setup.worker.send(setup.session(), b'{"notification":true,"method":"m","data":%d}' % number)
        await setup.echo(client, number)
    assert [await answer for answer in answers] == [f"{n}.{more}" for n in range(10) for more in range(20)]
    assert [await client.notifications.get() for _ in range(10)] == [("m", number) for number in range(10)]
    assert client.counts.resumed == 5
    in_order(client)
    assert len(setup.worker.known) == 1


async def test_outputs_sent_during_a_disconnection_are_replayed(setup: Setup) -> None:
    client = await setup.client(0, 1)
    await setup.echo(client, 1)
    setup.brokers[1].forgetful = True
    client.drop_connection()
    await setup.until(lambda: bool(setup.told(bus.ConnectionLost)))
    for number in range(5):
        await setup.worker.send(setup.session(), b'{"notification":true,"method":"m","data":%d}' % number)
    answer = client.ask("sent while away")
    await until(lambda: setup.gateways[1].hub.connections)
    setup.brokers[1].forgetful = False
    await until(lambda: setup.brokers[1].published)
    for _ in range(4):
        await setup.gateways[1].hub.sweep()
    assert [(await client.notifications.get())[1] for _ in range(5)] == list(range(5))
    assert await answer == "sent while away"
    in_order(client)


async def test_a_connection_taken_over_is_closed_and_its_record_removed(setup: Setup) -> None:
    client = await setup.client(0, 1)
    await setup.echo(client, 1)
    fields = f"roomId=room&peerName=alice&resumable=1&resume={client.ledger.token}&ack=1&attempt=1"
    thief = await Client.at(f"{setup.urls(1)[0]}/?{fields}")
    assert (await thief.receive())["data"] == {"resumed": True, "in": 1, "graceSeconds": 15}
    async with asyncio.timeout(PATIENCE):
        assert (await client.ended).code == errors.RELEASED.code
    await until(lambda: not setup.gateways[0].hub.connections)
    thief.send('{"request":true,"id":9,"method":"m","data":"mine","cseq":2}')
    assert (await thief.receive())["data"] == "mine"


async def test_a_client_of_a_gateway_wrongly_declared_dead_resumes(setup: Setup) -> None:
    client = await setup.client(0, 1)
    await setup.echo(client, 1)
    known = setup.worker.known[setup.session()]
    link = bus.Link(known.connection, setup.session(), "released")
    known.connection = 0
    body = bus.encode_to_gateway(bus.ToGateway([], [], [], [link]))
    await setup.worker.broker.publish("notify", f"{setup.gateways[0].id}.1", body)
    answer = client.ask("still here")
    async with asyncio.timeout(PATIENCE):
        assert await answer == "still here"
    assert client.counts.resumed == 1
    in_order(client)


@pytest.mark.parametrize("wrong", ["token", "session", "ack"])
async def test_an_impossible_resumption_is_refused(setup: Setup, wrong: str) -> None:
    client = await setup.client()
    await setup.echo(client, 1)
    token, ack = client.ledger.token, "0"
    if wrong == "token":
        token = handshake.token(setup.session(), "0" * 32)
    elif wrong == "session":
        token = handshake.token("gw0-00000000.1", "0" * 32)
    else:
        ack = "99"
    fields = f"roomId=room&peerName=alice&resumable=1&resume={token}&ack={ack}&attempt=1"
    other = await Client.at(f"{setup.urls(1)[0]}/?{fields}")
    assert (await other.receive())["data"] == {"resumed": False}
    assert await other.until_closed() == (errors.SESSION_UNKNOWN.code, errors.SESSION_UNKNOWN.reason)
    await until(lambda: not setup.gateways[1].hub.connections)


async def test_an_invalid_resumption_is_closed_as_a_bad_request(setup: Setup) -> None:
    fields = "roomId=room&peerName=alice&resumable=1&resume=nonsense&ack=0&attempt=1"
    client = await Client.at(f"{setup.urls(0)[0]}/?{fields}")
    assert await client.until_closed() == (errors.BAD_REQUEST.code, errors.BAD_REQUEST.reason)


async def test_an_unanswered_resumption_is_closed_with_1013(setup: Setup) -> None:
    client = await setup.client(0)
    setup.brokers[1].forgetful = True
    fields = f"roomId=room&peerName=alice&resumable=1&resume={client.ledger.token}&ack=0&attempt=1"
    other = await Client.at(f"{setup.urls(1)[0]}/?{fields}")
    await until(lambda: setup.gateways[1].hub.connections)
    for _ in range(RESUMPTION_TIMEOUT + 1):
        await setup.gateways[1].hub.sweep()
    assert await other.until_closed() == (errors.UNAVAILABLE.code, errors.UNAVAILABLE.reason)


# --- ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([("x" * (1024 * 1024 + 1), WSMsgType.TEXT)], errors.TOO_BIG.code),  # picows closes by itself
        ([("x", WSMsgType.CONTINUATION)], errors.PROTOCOL.code),
        ([(b"\xff", WSMsgType.TEXT)], errors.INVALID_TEXT.code),
    ],
    ids=["too big", "no WebSocket", "no UTF-8"],
)
async def test_a_repeatable_protocol_error_ends_the_session(
    setup: Setup, frames: list[tuple[str | bytes, WSMsgType]], code: int
) -> None:
    client = await Client.at(f"{setup.urls(0)[0]}/?roomId=r&peerName=p&resumable=1")
    await client.receive()
    for body, kind in frames:
        client.send(body, kind)
    assert (await client.until_closed())[0] == code
    await setup.until(lambda: not setup.worker.known)
    assert [lost.final for lost in setup.told(bus.ConnectionLost)] == [True]
    assert setup.gateways[0].counters.closes == {code: 1}


async def test_a_close_by_the_client_is_reported_as_final(setup: Setup) -> None:
    client = await setup.client()
    client.notify("last words")
    await client.close()
    await setup.until(lambda: not setup.worker.known)
    assert [lost.final for lost in setup.told(bus.ConnectionLost)] == [True]
    assert setup.worker.numbers(setup.session()) == [0, 1]
    await until(lambda: not setup.gateways[0].hub.connections)


async def test_clients_of_a_draining_gateway_resume_elsewhere_without_loss(setup: Setup) -> None:
    clients = [await setup.client(0, 1, peer=f"peer{number}") for number in range(20)]
    answers = [client.ask(number) for client in clients for number in range(20)]
    await setup.gateways[0].drain()
    assert not setup.gateways[0].hub.connections
    answers += [client.ask(number) for client in clients for number in range(20)]
    assert [await answer for answer in answers] == [*range(20)] * 40
    for client in clients:
        assert client.counts.resumed >= 1
        in_order(client)


async def test_a_client_of_a_killed_gateway_resumes_at_another(setup: Setup) -> None:
    client = await setup.client(0, 1)
    answers = [client.ask(number) for number in range(50)]
    await setup.gateways[0].close()
    answers += [client.ask(number) for number in range(50, 100)]
    assert [await answer for answer in answers] == list(range(100))
    in_order(client)


async def test_a_room_that_closes_the_connection_ends_the_session(setup: Setup) -> None:
    client = await setup.client()
    await setup.worker.send(setup.session(), b"room closed", errors.ROOM_CLOSED.code)
    async with asyncio.timeout(PATIENCE):
        ended = await client.ended
    assert (ended.code, ended.reason) == (4000, "room closed")
    with pytest.raises(Ended):
        await client.request(1)
