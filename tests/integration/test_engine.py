"""The real engine behind the port: what it answers, and what happens when it is killed."""

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from medianode.engine_pool import EnginePool
from medianode.engines.mediasoup import process
from medianode.engines.mediasoup.engine import MediasoupEngine, MediasoupSettings
from medianode.engines.mediasoup.flatbuffers_codec import load_schema
from medianode.engines.mediasoup.translation import listen_info
from medianode.engines.port import Engine, EngineFailed
from medianode.node import MediaNode, engine_factory
from medianode.object_registry import ObjectRegistry
from medianode.toolchain.engine_folder import schema_folder
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.memory_cluster import MemoryCluster
from shared.protocol import bus, media
from shared.protocol.media import Close, Failed, Pause, Resume
from shared.protocol.rtp import DtlsParameters, Fingerprint, PayloadTypeMapping, RtpParameters
from shared.settings import NodeSettings
from tests.support.installed_engine import installed_engine

pytestmark = pytest.mark.engine

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)
REMOTE = DtlsParameters([Fingerprint("sha-256", ":".join(["AB"] * 32))], "client")

VIDEO = {
    "codecs": [
        {
            "name": "VP8",
            "mimeType": "video/VP8",
            "payloadType": 96,
            "clockRate": 90000,
            "rtcpFeedback": [{"type": "goog-remb"}, {"type": "nack"}, {"type": "nack", "parameter": "pli"}],
        },
        {"name": "rtx", "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000, "parameters": {"apt": 96}},
    ],
    "headerExtensions": [{"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 4}],
    "rtcp": {"cname": "cname", "reducedSize": True},
}
CHROME: list[dict[str, Any]] = [
    {"ssrc": 11, "rtx": {"ssrc": 12}},
    {"ssrc": 21, "rtx": {"ssrc": 22}},
    {"ssrc": 31, "rtx": {"ssrc": 32}},
]
FIREFOX = [{"encodingId": "low"}, {"encodingId": "medium"}, {"encodingId": "high"}]
TYPES = [PayloadTypeMapping(96, 101), PayloadTypeMapping(97, 102)]
MAPPED = [9001, 9002, 9003]


def rtp(encodings: list[Any], **more: Any) -> RtpParameters:
    return msgspec.convert({**VIDEO, "encodings": encodings, **more}, RtpParameters)


def produce(producer: str, encodings: list[Any], mapped: list[int], mid: str) -> media.Produce:
    return media.Produce(ROUTER, "sending", producer, "video", rtp(encodings, muxId=mid), TYPES, mapped)


def consume(consumer: str, producer: str, mapped: list[int], **more: Any) -> media.Consume:
    told = rtp([{"ssrc": 51, "rtx": {"ssrc": 52}}])
    codecs = [msgspec.structs.replace(c, payload_type=c.payload_type + 5) for c in told.codecs]
    codecs[1] = msgspec.structs.replace(codecs[1], parameters={"apt": 101})
    told = msgspec.structs.replace(told, codecs=codecs)
    return media.Consume(ROUTER, "receiving", consumer, producer, "video", told, mapped, **more)


def create(transport: str, remote: DtlsParameters | None = None) -> media.CreateTransport:
    return media.CreateTransport(ROUTER, transport, dtls_parameters=remote)


def settings(**more: Any) -> MediasoupSettings:
    binary = installed_engine()
    values = {"announced_ip": "", "port": 0, "rtc_min_port": 40000, "rtc_max_port": 49999, "initial_bitrate": 10**6}
    schema = load_schema(schema_folder(binary))
    return MediasoupSettings(binary=binary, schema=schema, listen_ip="127.0.0.1", **{**values, **more})


class Room:
    """One engine of a pool, asked through the node's memory of objects."""

    def __init__(self, options: MediasoupSettings, size: int = 1) -> None:
        self.objects = ObjectRegistry()
        self.engines: asyncio.Queue[MediasoupEngine] = asyncio.Queue()
        self.lost: asyncio.Queue[tuple[list[media.RouterRef], str]] = asyncio.Queue()
        self.pool = EnginePool(
            lambda _: MediasoupEngine(options),
            size,
            on_event=lambda _: None,
            on_started=self._up,
            on_ended=self._down,
        )

    def _up(self, engine: Engine) -> None:
        assert isinstance(engine, MediasoupEngine)
        self.objects.add_engine(engine)
        self.engines.put_nowait(engine)

    def _down(self, engine: Engine, reason: str) -> None:
        self.lost.put_nowait((self.objects.remove_engine(engine, reason), reason))

    def ask(self, request: media.AnyRequest) -> asyncio.Future[media.AnyResult]:
        result: asyncio.Future[media.AnyResult] = asyncio.get_running_loop().create_future()
        self.objects.request(request, result.set_result)
        return result

    async def call(self) -> None:
        """A sender and a receiver, a simulcast producer and its consumer."""
        for request in (
            create("sending", REMOTE),
            create("receiving"),
            produce("producer", CHROME, MAPPED, "0"),
            consume("consumer", "producer", MAPPED),
        ):
            assert not isinstance(result := await self.ask(request), Failed), result


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room(settings(announced_ip="192.0.2.7"))
    async with asyncio.TaskGroup() as group:
        keepers = [
            group.create_task(room.pool.supervise(index, d)) for index, d in enumerate(await room.pool.start())
        ]
        yield room
        for keeper in keepers:
            keeper.cancel()
    await room.pool.close()


async def test_a_receiving_transport_is_created_then_connected(room: Room) -> None:
    created = await room.ask(create("receiving"))
    assert isinstance(created, media.TransportCreated)
    assert created.ice_parameters.ice_lite
    assert created.dtls_parameters.role == "auto"
    assert created.dtls_parameters.fingerprints[-1].algorithm == "sha-256"
    assert {c.protocol for c in created.ice_candidates} == {"udp", "tcp"}
    assert {c.ip for c in created.ice_candidates} == {"192.0.2.7"}
    assert [c.tcp_type for c in created.ice_candidates if c.protocol == "tcp"] == ["passive"]
    connect = media.ConnectTransport(ROUTER, "receiving", REMOTE)
    assert await room.ask(connect) == media.TransportConnected("server")
    assert await room.ask(connect) == media.TransportConnected("server"), "the engine itself refuses the second"
    assert await room.ask(create("receiving")) == created


async def test_a_sending_transport_is_connected_at_once(room: Room) -> None:
    created = await room.ask(create("sending", REMOTE))
    assert isinstance(created, media.TransportCreated)
    assert created.dtls_parameters.role == "server"


async def test_all_transports_share_the_engines_ports(room: Room) -> None:
    ports = set()
    for name in ("one", "two", "three"):
        created = await room.ask(create(name))
        assert isinstance(created, media.TransportCreated)
        ports |= {(c.protocol, c.port) for c in created.ice_candidates}
    assert len(ports) == 2


async def test_a_transport_that_cannot_be_connected_is_not_created(room: Room) -> None:
    bad = DtlsParameters([Fingerprint("md5", "00")], "client")
    failed = await room.ask(create("sending", bad))
    assert isinstance(failed, Failed)
    assert failed.code == 400
    assert isinstance(await room.ask(create("sending", REMOTE)), media.TransportCreated)


async def test_ice_restart_makes_new_parameters_once_a_generation(room: Room) -> None:
    created = await room.ask(create("sending", REMOTE))
    first = await room.ask(media.RestartIce(ROUTER, "sending", 1))
    assert isinstance(created, media.TransportCreated)
    assert isinstance(first, media.IceRestarted)
    assert first.ice_parameters != created.ice_parameters
    assert await room.ask(media.RestartIce(ROUTER, "sending", 1)) == first
    assert await room.ask(media.RestartIce(ROUTER, "sending", 2)) != first


@pytest.mark.parametrize("encodings", [CHROME, FIREFOX])
async def test_simulcast_is_produced_and_consumed(room: Room, encodings: list[Any]) -> None:
    await room.ask(create("sending", REMOTE))
    await room.ask(create("receiving"))
    assert await room.ask(produce("producer", encodings, MAPPED, "0")) == media.Produced()
    consumed = await room.ask(consume("consumer", "producer", MAPPED, preferred_profile="low"))
    assert consumed == media.Consumed("none")
    assert await room.ask(consume("consumer", "producer", MAPPED)) == consumed


async def test_a_single_stream_is_produced_and_consumed(room: Room) -> None:
    await room.ask(create("sending", REMOTE))
    await room.ask(create("receiving"))
    assert await room.ask(produce("producer", CHROME[:1], MAPPED[:1], "0")) == media.Produced()
    assert await room.ask(consume("consumer", "producer", MAPPED[:1], paused=True)) == media.Consumed("default")


async def test_the_engine_survives_what_hostile_clients_send(room: Room) -> None:
    await room.ask(create("sending", REMOTE))
    red = {"name": "red", "mimeType": "video/red", "payloadType": 99, "clockRate": 90000}
    hostile = rtp(CHROME[:1], codecs=[*VIDEO["codecs"], red])
    result = await room.ask(media.Produce(ROUTER, "sending", "p", "video", hostile, TYPES, [9001]))
    assert isinstance(result, Failed)
    assert result.code == 400
    assert await room.ask(produce("p", CHROME, MAPPED, "0")) == media.Produced()


async def test_two_producers_of_one_stream_conflict(room: Room) -> None:
    await room.call()
    result = await room.ask(produce("other", CHROME, [9101, 9102, 9103], "1"))
    assert isinstance(result, Failed)
    assert result.code == 409


async def test_second_producer_with_other_ssrcs_and_no_mux_id_is_accepted(room: Room) -> None:
    """As the room worker updates a producer that cannot be updated in place."""
    await room.call()
    others = [{"ssrc": encoding["ssrc"] + 100} for encoding in CHROME]
    taken = await room.ask(produce("successor", others, [9101, 9102, 9103], "0"))
    assert isinstance(taken, Failed)
    assert "MID already exists" in taken.reason

    assert isinstance(await room.ask(produce("another", others, [9101, 9102, 9103], "")), media.Produced)


async def test_stats_have_the_fields_of_protocol_v2(room: Room) -> None:
    await room.call()
    result = await room.ask(media.GetStats(ROUTER, "transport", "sending", 7))
    assert isinstance(result, media.Stats)
    (entry,) = result.stats
    assert (entry["type"], entry["id"], entry["iceConnectionState"]) == ("transport", 7, "new")
    assert await room.ask(media.GetStats(ROUTER, "producer", "producer", 7, 8)) == media.Stats([])
    result = await room.ask(media.GetStats(ROUTER, "consumer", "consumer", 7, 8))
    assert isinstance(result, media.Stats)
    (entry,) = result.stats
    assert (entry["type"], entry["mediaType"], entry["transportId"], entry["ssrc"]) == (
        "outbound-rtp",
        "video",
        8,
        51,
    )


async def paused_and_preferred(engine: MediasoupEngine, consumer: str) -> tuple[bool, bool, int]:
    dump = (await engine.ask("CONSUMER_DUMP", consumer)).data["data"]
    return dump["base"]["paused"], dump["base"]["producer_paused"], dump["preferred_spatial_layer"]


async def test_orders_take_effect_in_the_engine(room: Room) -> None:
    await room.call()
    engine = room.engines.get_nowait()
    room.objects.order(Pause("producer", 1, "producer"))
    room.objects.order(Pause("consumer", 1, "consumer"))
    room.objects.order(media.SetPreferredProfile("consumer", 2, "medium"))
    room.objects.order(media.RequestKeyFrame("consumer", 2))
    room.objects.order(media.SetMaxIncomingBitrate("sending", 1, 500_000))
    assert await paused_and_preferred(engine, "consumer") == (True, True, 1)
    stats = await room.ask(media.GetStats(ROUTER, "transport", "sending", 7))
    assert isinstance(stats, media.Stats)
    assert stats.stats[0]["localAvailableSendBw"]["maxBitrate"] == 500_000
    room.objects.order(Resume("producer", 2, "producer"))
    room.objects.order(Resume("consumer", 3, "consumer"))
    room.objects.order(media.SetPreferredProfile("consumer", 3, "default"))
    assert await paused_and_preferred(engine, "consumer") == (False, False, 2)


async def test_closed_objects_are_closed_in_the_engine(room: Room) -> None:
    await room.call()
    engine = room.engines.get_nowait()
    room.objects.order(Close("consumer", 1, "consumer"))
    assert (await engine.ask("TRANSPORT_DUMP", "receiving")).data["base"]["consumer_ids"] == []
    room.objects.order(Close("producer", 1, "producer"))
    assert (await engine.ask("TRANSPORT_DUMP", "sending")).data["base"]["producer_ids"] == []
    room.objects.order(Close("sending", 1, "transport"))
    assert (await engine.ask("ROUTER_DUMP", "router")).data["transport_ids"] == ["receiving"]
    room.objects.order(Close("router", 1, "router"))
    assert (await engine.ask("WORKER_DUMP")).data["router_ids"] == []


async def test_a_killed_engine_loses_its_routers_and_a_new_one_works(room: Room) -> None:
    await room.call()
    engine = room.engines.get_nowait()
    os.kill(engine.pid, signal.SIGSTOP)
    pending = room.ask(media.GetStats(ROUTER, "transport", "sending", 7))
    os.kill(engine.pid, signal.SIGKILL)
    lost, reason = await room.lost.get()
    assert lost == [ROUTER]
    assert "signal 9" in reason
    assert await pending == Failed(503, "the engine ended by signal 9")
    refused = await room.ask(create("another"))
    assert isinstance(refused, Failed)
    assert refused.code == 503
    fresh = await room.engines.get()
    assert fresh.pid != engine.pid
    placed_anew = media.RouterRef("router of epoch 2", 0, "room", "incarnation", 2)
    assert isinstance(await room.ask(media.CreateTransport(placed_anew, "t")), media.TransportCreated)


async def test_a_stuck_engine_is_ended(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_SECONDS", 0.01)
    await room.call()
    engine = room.engines.get_nowait()
    os.kill(engine.pid, signal.SIGSTOP)
    answer = room.ask(media.GetStats(ROUTER, "transport", "sending", 7))
    assert await room.lost.get() == ([ROUTER], "ended by signal 9")
    assert await answer == Failed(503, "the engine ended by signal 9")


async def test_engine_on_a_taken_port_fails_with_the_reason(room: Room) -> None:
    created = await room.ask(create("t"))
    assert isinstance(created, media.TransportCreated)
    engine = MediasoupEngine(settings(port=created.ice_candidates[0].port))
    with pytest.raises(EngineFailed, match="no media port"):
        await engine.start(lambda _: None, lambda _: None)


async def test_a_node_serves_over_a_broker() -> None:
    """The whole node: commands through a broker, answers to the worker, the end told to the room."""
    chosen = NodeSettings(engines=1, engine_path=str(settings().binary), announced_ip="192.0.2.7")
    hub = MemoryHub(partitions=1)
    worker = MemoryBroker(hub)
    broker = MemoryBroker(hub)
    await worker.connect()
    await broker.connect()
    node = MediaNode(chosen, broker, MemoryCluster(), await engine_factory(chosen))
    results: asyncio.Queue[bytes] = asyncio.Queue()
    inputs: asyncio.Queue[bytes] = asyncio.Queue()
    await node.start()
    await worker.subscribe_exclusive(
        "media", "worker", results.put_nowait, on_lost=lambda: None, on_restored=lambda: None
    )
    await worker.subscribe_partition(
        0, lambda delivery: inputs.put_nowait(delivery.body), prefetch=10, on_lost=lambda: None
    )
    command = media.Command(7, create("sending", REMOTE))
    await worker.publish("media", node.id, media.encode(media.Commands("worker", [command])), mandatory=True)
    (answer,) = media.decode_results(await results.get()).answers
    assert answer.n == 7
    assert isinstance(answer.result, media.TransportCreated)

    await node.close()
    origin, items = bus.split_batch(await inputs.get())
    (event,) = map(bus.decode_item, items)
    assert origin == node.id
    assert isinstance(event, bus.MediaEvent)
    assert isinstance(media.decode_event(event.event), media.RouterClosed)
    await worker.close()
    await broker.close()


async def test_a_closed_engine_answers_nothing_and_does_not_die() -> None:
    engine = MediasoupEngine(settings())
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    await engine.close()
    results: list[media.AnyResult] = []
    engine.request(create("t"), results.append)
    assert results == [Failed(503, "the engine has ended")]
    assert deaths == []
    with pytest.raises(ProcessLookupError):
        os.kill(engine.pid, 0)


# --- with media -----------------------------------------------------------------------------------------------


async def plain_transport(engine: MediasoupEngine, transport: str, *, comedia: bool) -> int:
    """Creates a transport of plain RTP instead of a browser's; returns its port."""
    options = {"base": {}, "listen_info": listen_info("UDP", "127.0.0.1"), "rtcp_mux": True, "comedia": comedia}
    data = {"transport_id": transport, "options": options}
    created = await engine.ask("ROUTER_CREATE_PLAINTRANSPORT", "router", data)
    assert not created.error, created
    return int(created.data["tuple"]["local_port"])


async def connect_plain(engine: MediasoupEngine, transport: str, port: int) -> None:
    connected = await engine.ask("PLAINTRANSPORT_CONNECT", transport, {"ip": "127.0.0.1", "port": port})
    assert not connected.error, connected


class Camera(asyncio.DatagramProtocol):
    """Sends VP8 key frames of three simulcast streams as plain RTP until it is stopped."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._frame = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._send()

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        self._frame += 1
        for encoding in CHROME:
            header = struct.pack("!BBHII", 0x80, 0x80 | 96, self._frame, self._frame * 3000, encoding["ssrc"])
            # Descriptor with start bit, picture id, temporal layer 0; then a key frame's first bytes.
            descriptor = bytes([0x90, 0xE0, self._frame & 0x7F, self._frame & 0xFF, 0x00])
            self._transport.sendto(header + descriptor + bytes(10) + bytes(200), self._address)
        asyncio.get_running_loop().call_later(0.01, self._send)


async def test_profiles_follow_the_layers_that_are_sent() -> None:
    """Simulcast, as the mapping describes it to the engine, is really taken apart and sent on."""
    engine = MediasoupEngine(settings())
    events: asyncio.Queue[media.AnyEvent] = asyncio.Queue()
    await engine.start(events.put_nowait, lambda _: None)

    async def done(request: media.AnyRequest) -> media.AnyResult:
        result: asyncio.Future[media.AnyResult] = asyncio.get_running_loop().create_future()
        engine.request(request, result.set_result)
        return await result

    async def profile_of(consumer: str) -> str:
        while True:
            event = await events.get()
            if isinstance(event, media.ProfileChanged) and event.object == consumer:
                return event.profile

    engine.create_router("router")
    port = await plain_transport(engine, "sending", comedia=True)
    await plain_transport(engine, "receiving", comedia=False)
    await connect_plain(engine, "receiving", 9)
    assert await done(produce("producer", CHROME, MAPPED, "0")) == media.Produced()
    assert await done(consume("low", "producer", MAPPED, preferred_profile="low")) == media.Consumed("none")
    camera, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Camera(port), local_addr=("127.0.0.1", 0)
    )
    async with asyncio.timeout(20):
        assert await profile_of("low") == "low"
        for preferred, expected in (("default", "high"), ("medium", "medium")):
            request = consume(preferred, "producer", MAPPED, preferred_profile=preferred)
            assert await done(request) == media.Consumed("none")
            assert await profile_of(preferred) == expected
    stats = await done(media.GetStats(ROUTER, "consumer", "low", 7, 8))
    assert isinstance(stats, media.Stats)
    inbound, outbound = stats.stats
    assert (inbound["type"], inbound["ssrc"], outbound["type"]) == ("inbound-rtp", 11, "outbound-rtp")
    assert outbound["inboundRtpId"] == inbound["id"]
    camera.close()
    await engine.close()
