"""Our AMQP connection against RabbitMQ itself: losses, limits, TLS, and what aio-pika makes of our messages."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest
import uvloop
from pamqp import commands
from yarl import URL

from devtools.servers import Server
from shared.broker import BrokerUnavailable, addresses
from shared.broker.amqp import AmqpBroker, frames, robust_connection
from shared.broker.amqp.connection import AmqpConnection, ChannelClosedByServer, open_connection
from shared.broker.amqp.queues import QueueDepth, QueueProbe
from tests.support.brokers import PARTITIONS, WITHIN, AmqpHarness, Inbox, consume, publish_all, within
from tests.support.closed_port import closed_port
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.servers


@pytest.fixture
async def connection(amqp_url: str) -> AsyncIterator[AmqpConnection]:
    connection = await opened(amqp_url)
    yield connection
    await connection.close()


async def opened(url: str) -> AmqpConnection:
    (address,) = addresses.parse(url)
    return await open_connection(address, "test", within=WITHIN)


def broker_at(url: str) -> AmqpBroker:
    return AmqpBroker(url, partitions=PARTITIONS, queue_type="classic", name="test")


async def ctl(server: Server, *args: str) -> str:
    if not server.killable:
        pytest.skip("no rabbitmqctl for a server given by its address")
    return await asyncio.to_thread(server.ctl, *args)


# --- heartbeats and losses ------------------------------------------------------------------------------------


async def test_idle_connection_is_kept_by_heartbeats(connection: AmqpConnection) -> None:
    done, _ = await asyncio.wait((connection.closed,), timeout=7)

    assert not done
    await (await connection.open_channel()).close()


async def test_connection_to_a_frozen_rabbitmq_ends_after_three_heartbeats(killable_rabbitmq: Server) -> None:
    connection = await opened(killable_rabbitmq.url)
    channel = await connection.open_channel()
    killable_rabbitmq.pause()
    try:
        with pytest.raises(BrokerUnavailable, match="sent nothing for 6 s"):
            await within(channel.call(commands.Basic.Qos(prefetch_count=1)))
        assert connection.closed.done()
    finally:
        killable_rabbitmq.resume()


async def test_server_that_never_answers_fails_the_handshake_in_time() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        (address,) = addresses.parse(f"amqp://127.0.0.1:{port}")

        with pytest.raises(BrokerUnavailable, match="did not answer within 0 s"):
            await open_connection(address, "test", within=0.2)


async def test_refused_credentials_are_reported(amqp_url: str) -> None:
    with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED") as raised:
        await opened(str(URL(amqp_url).with_user("guest").with_password("wr0ng")))

    assert "wr0ng" not in str(raised.value)


def test_broker_works_on_uvloop(amqp_url: str) -> None:
    async def exchange() -> None:
        broker = broker_at(amqp_url)
        await within(broker.connect())
        inbox = Inbox()
        await consume(broker, inbox)
        await publish_all(broker, [b"x" * 1_000_000, b"y"])
        await inbox.has(2)
        await within(broker.close())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())


async def test_closed_connection_fails_later_calls(connection: AmqpConnection) -> None:
    channel = await connection.open_channel()
    await connection.close()

    with pytest.raises(BrokerUnavailable):
        await channel.call(commands.Basic.Qos(prefetch_count=1))
    with pytest.raises(BrokerUnavailable):
        await connection.open_channel()


# --- several servers ------------------------------------------------------------------------------------------


async def test_next_server_is_tried_when_the_first_is_dead(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def in_given_order(known: Sequence[addresses.Address]) -> list[addresses.Address]:
        tried.extend(address.port for address in known)
        return list(known)

    monkeypatch.setattr(robust_connection, "in_turn", in_given_order)
    url = URL(amqp_url)
    inbox = Inbox()
    with closed_port() as dead:
        broker = broker_at(f"amqp://{url.user}:{url.password}@127.0.0.1:{dead},{url.host}:{url.port}/")

        await within(broker.connect())

    assert tried[:2] == [dead, url.port]
    await consume(broker, inbox)
    await publish_all(broker, [b"x"], key="0")
    await inbox.has(1)
    assert inbox.bodies == [b"x"]
    await broker.close()


async def test_server_that_does_not_answer_costs_three_seconds(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(robust_connection, "in_turn", list)
    url = URL(amqp_url)
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        broker = broker_at(f"amqp://{url.user}:{url.password}@127.0.0.1:{port},{url.host}:{url.port}/")
        began = asyncio.get_running_loop().time()
        await within(broker.connect())
        assert 2.5 < asyncio.get_running_loop().time() - began < 10
        await broker.close()


# --- TLS ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of `localhost` and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class TlsProxy(Proxy):
    """Speaks TLS to the client, and plain TCP to RabbitMQ."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        super().__init__(str(URL(url).host), URL(url).port or 5672)
        self._context = context

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]


@pytest.fixture
async def tls_proxy(
    amqp_url: str, certificate: tuple[Path, Path], request: pytest.FixtureRequest
) -> AsyncIterator[TlsProxy]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate[0]))
    context.load_cert_chain(*certificate)
    if getattr(request, "param", "") == "client certificate":
        context.verify_mode = ssl.CERT_REQUIRED
    proxy = TlsProxy(amqp_url, context)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def test_certificate_of_a_given_authority_is_accepted(
    tls_proxy: TlsProxy, certificate: tuple[Path, Path]
) -> None:
    broker = broker_at(f"amqps://guest:guest@localhost:{tls_proxy.port}/?cafile={certificate[0]}")
    await within(broker.connect())
    inbox = Inbox()
    await consume(broker, inbox)

    await publish_all(broker, [b"x" * 1_000_000])

    await inbox.has(1)
    assert inbox.bodies == [b"x" * 1_000_000]
    await broker.close()


async def test_unknown_certificate_is_refused_unless_verify_is_0(tls_proxy: TlsProxy) -> None:
    url = f"amqps://guest:guest@localhost:{tls_proxy.port}/"
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await opened(url)

    await (await opened(f"{url}?verify=0")).close()


@pytest.mark.parametrize("tls_proxy", ["client certificate"], indirect=True)
async def test_client_certificate_is_presented(tls_proxy: TlsProxy, certificate: tuple[Path, Path]) -> None:
    url = f"amqps://guest:guest@localhost:{tls_proxy.port}/?cafile={certificate[0]}"
    with pytest.raises(BrokerUnavailable):
        await opened(url)

    await (await opened(f"{url}&certfile={certificate[0]}&keyfile={certificate[1]}")).close()


# --- channels -------------------------------------------------------------------------------------------------


async def test_channel_closed_by_rabbitmq_leaves_the_others_open(connection: AmqpConnection) -> None:
    channel, other = await connection.open_channel(), await connection.open_channel()
    closed: list[Exception] = []
    channel.on_closed = closed.append

    with pytest.raises(ChannelClosedByServer, match="NOT_FOUND") as raised:
        await channel.call(commands.Queue.Declare(queue="no such queue", passive=True))

    assert raised.value.code == 404
    assert closed == [raised.value]
    assert not channel.is_open
    await other.call(commands.Basic.Qos(prefetch_count=1))
    assert (await connection.open_channel()).number == channel.number


async def test_calls_are_answered_in_their_order(connection: AmqpConnection) -> None:
    channel = await connection.open_channel()
    names = ["one", "two", "three"]

    async def declare(name: str) -> Any:
        return await channel.call(commands.Queue.Declare(queue=name, exclusive=True))

    answers = await within(asyncio.gather(*map(declare, names)))
    assert [answer.queue for answer in answers] == names


async def test_cancelled_call_does_not_take_the_next_answer(connection: AmqpConnection) -> None:
    channel = await connection.open_channel()
    call = asyncio.create_task(channel.call(commands.Queue.Declare(queue="one", exclusive=True)))
    await asyncio.sleep(0)
    call.cancel()

    assert (await within(channel.call(commands.Queue.Declare(queue="two", exclusive=True)))).queue == "two"
    assert call.cancelled()


async def test_frame_beyond_the_agreed_size_is_refused_by_rabbitmq(connection: AmqpConnection) -> None:
    channel = await connection.open_channel()
    size = connection.frame_max
    connection.writer.write(frames.publish(channel.number, "", "x", b"x" * (size + 1), frame_max=2 * size))

    failure = await within(connection.closed)

    assert "501" in str(failure)


# --- messages -------------------------------------------------------------------------------------------------


async def test_returned_message_fails_before_it_is_confirmed(connection: AmqpConnection) -> None:
    channel = await connection.open_channel()
    seen: list[tuple[Any, ...]] = []
    confirmed = asyncio.Event()
    channel.on_return = lambda *it: seen.append(it)

    def on_confirm(*it: Any) -> None:
        seen.append(it)
        confirmed.set()

    channel.on_confirm = on_confirm
    await channel.call(commands.Confirm.Select())
    connection.writer.write(
        frames.publish(channel.number, "", "nowhere", b"x", mandatory_id="41", frame_max=connection.frame_max)
    )
    await within(confirmed.wait())

    assert seen == [("41", " nowhere: NO_ROUTE"), (1, False, False)]


async def test_aio_pika_and_this_client_read_each_others_messages(amqp_url: str) -> None:
    broker = broker_at(amqp_url)
    await within(broker.connect())
    theirs = await aio_pika.connect(amqp_url)
    channel = await theirs.channel()
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind("notify", "judge.#")

    await within(broker.publish("notify", "judge.1", b"x" * 300_000, mandatory=True, ttl=60))
    message = await within(queue.get(timeout=WITHIN))
    assert message is not None
    assert (message.body, message.routing_key) == (b"x" * 300_000, "judge.1")
    assert (message.delivery_mode, message.message_id) == (aio_pika.DeliveryMode.NOT_PERSISTENT, "1")

    inbox = Inbox()
    await consume(broker, inbox)
    exchange = await channel.get_exchange("rooms")
    headers = aio_pika.Message(b"y" * 300_000, headers={"h": [1, {"two": "three"}]}, content_type="text/plain")
    await exchange.publish(headers, "0")
    await inbox.has(1)
    assert inbox.bodies == [b"y" * 300_000]

    await theirs.close()
    await broker.close()


# --- alarms and refusals --------------------------------------------------------------------------------------


async def test_blocked_connection_reports_it_and_stays_open(amqp_url: str, rabbitmq_server: Server) -> None:
    broker = broker_at(amqp_url)
    await within(broker.connect())
    await ctl(rabbitmq_server, "set_vm_memory_high_watermark", "0.000001")
    try:
        pending = broker.publish("rooms", "0", b"x")
        await until(lambda: broker.stats().blocked)
    finally:
        await ctl(rabbitmq_server, "set_vm_memory_high_watermark", "0.4")
    await within(pending)
    await until(lambda: not broker.stats().blocked)
    assert broker.stats().lost == 0
    await broker.close()


async def test_failing_redeclaration_is_reported_until_it_succeeds(amqp_url: str) -> None:
    """Partition 3's queue is deleted, and cannot be declared again because another queue does not fit."""
    harness = AmqpHarness(amqp_url, "classic")
    broker = await harness.broker()
    inbox = Inbox()
    await consume(broker, inbox, partition=3)
    judge = await aio_pika.connect(amqp_url)
    channel = await judge.channel()
    await channel.queue_delete("rooms.1")
    await channel.declare_queue("rooms.1", durable=True)

    await channel.queue_delete("rooms.3")
    await inbox.until(lambda it: it.lost == 1)
    await until(lambda: "queue_type=classic" in broker.trouble and broker.stats().subscription_failures >= 2)
    assert broker.connected
    assert "declaring it again failed" in broker.trouble

    await channel.queue_delete("rooms.1")
    await until(lambda: not broker.trouble)
    await publish_all(broker, [b"x"], key="3")
    await inbox.has(1)
    await judge.close()
    await harness.close()


async def test_queue_probe_counts_messages_and_consumers(amqp_url: str, rabbitmq_server: Server) -> None:
    broker = broker_at(amqp_url)
    await within(broker.connect())
    await consume(broker, Inbox(), partition=2)
    await publish_all(broker, [b"1", b"2"], key="1")
    probe = QueueProbe(amqp_url)

    depths = await probe.depths(PARTITIONS + 2, within=WITHIN)
    again = await probe.depths(1, within=WITHIN)
    await probe.close()
    await broker.close()

    assert depths == {
        0: QueueDepth(0, 0),
        1: QueueDepth(2, 0),
        2: QueueDepth(0, 1),
        3: QueueDepth(0, 0),
    }
    assert again == {0: QueueDepth(0, 0)}


async def test_queue_probe_without_a_server_raises_and_hides_the_password() -> None:
    with closed_port() as dead, pytest.raises(BrokerUnavailable) as raised:
        await QueueProbe(f"amqp://guest:s3cret@127.0.0.1:{dead}/").depths(1, within=WITHIN)
    assert "s3cret" not in str(raised.value)


async def test_channel_without_confirm_select_gets_no_confirms(connection: AmqpConnection) -> None:
    """The user of a channel chooses whether it has confirms, not the connection."""
    channel = await connection.open_channel()
    connection.writer.write(frames.publish(channel.number, "", "nowhere", b"x", frame_max=connection.frame_max))
    confirms: list[Any] = []
    channel.on_confirm = lambda *it: confirms.append(it)

    await channel.call(commands.Basic.Qos(prefetch_count=1))

    assert not confirms
