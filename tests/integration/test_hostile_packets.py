"""No RTP or RTCP packet of a client ends the engine that Plenary builds, whatever the engine was told of it."""

import asyncio
import itertools
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from medianode.toolchain.engine_folder import patches_of, schema_folder
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.started_engine import StartedEngine
from tests.support.installed_engine import create_server_and_router, installed_engine
from tests.support.waiting import PATIENCE, until
from tests.support.webrtc_client import MediaClient

pytestmark = pytest.mark.engine

MEDIA, RTX = 96, 97
MID, RID, REPAIRED_RID, ORIENTATION, WIDE_CC = 1, 2, 3, 8, 5
# With the others libSRTP refuses long headers.
PROFILE: Final = "SRTP_AES128_CM_SHA1_80"
KEY_FRAME: Final = b"\x10\x00\x00\x00\x9d\x01\x2a\x10\x00\x10\x00"
CODECS: Final = [
    {
        "mime_type": "video/VP8",
        "payload_type": MEDIA,
        "clock_rate": 90_000,
        "rtcp_feedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "transport-cc"}],
    },
    {
        "mime_type": "video/rtx",
        "payload_type": RTX,
        "clock_rate": 90_000,
        "parameters": [{"name": "apt", "value": ("Integer32", {"value": MEDIA})}],
        "rtcp_feedback": [],
    },
]
EXTENSIONS: Final = [
    {"uri": "Mid", "id": MID},
    {"uri": "RtpStreamId", "id": RID},
    {"uri": "RepairRtpStreamId", "id": REPAIRED_RID},
    {"uri": "TransportWideCcDraft01", "id": WIDE_CC},
    {"uri": "VideoOrientation", "id": ORIENTATION},
]
ENCODINGS: Final[dict[str, list[dict[str, Any]]]] = {
    "nothing": [{}],
    "RID": [{"rid": "a"}],
    "SSRC": [{"ssrc": 1}],
    "SSRC and RTX": [{"ssrc": 1, "rtx": {"ssrc": 2}}],
    "RID and SSRC": [{"rid": "a", "ssrc": 1}],
    "RID, SSRC and RTX": [{"rid": "a", "ssrc": 1, "rtx": {"ssrc": 2}}],
    "two RIDs": [{"rid": "a"}, {"rid": "b"}],
    "one RID twice": [{"rid": "a"}, {"rid": "a"}],
    "two RIDs and SSRCs": [{"rid": "a", "ssrc": 1}, {"rid": "b", "ssrc": 5555}],
    "two SSRCs and RTX": [{"ssrc": 1, "rtx": {"ssrc": 2}}, {"ssrc": 5555, "rtx": {"ssrc": 0}}],
    "RTX with SSRC 0": [{"rid": "a", "rtx": {"ssrc": 0}}],
}
# Payload type, SSRC, RID. SSRC 0 is what the engine has where it knows none.
PACKETS: Final = list(itertools.product((MEDIA, RTX), (0, 1, 2, 5555), (b"", b"a", b"b")))


class Engine(StartedEngine):
    """An engine with a router and one WebRtcServer, to which packets can also be given without a client."""

    def inject(self, packet: bytes) -> None:
        """Passes a packet to `producer` as if its transport had received it, in order with requests."""
        body = ("Producer_SendNotification", {"data": packet})
        notification = {"handler_id": "producer", "event": "PRODUCER_SEND", "body": body}
        self._writer.sendall(self._schema.encode("FBS.Message.Message", {"data": ("Notification", notification)}))

    def create_transport(self) -> dict[str, Any]:
        options = {
            "base": {"initial_available_outgoing_bitrate": 600_000},
            "listen": ("ListenServer", {"web_rtc_server_id": "server"}),
        }
        body = ("Router_CreateWebRtcTransportRequest", {"transport_id": "transport", "options": options})
        return self.request("ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER", "router", body)

    def produce(self, encodings: Sequence[dict[str, Any]], producer: str = "producer", mid: str = "0") -> None:
        parameters = {
            "mid": mid,
            "codecs": CODECS,
            "encodings": encodings,
            "rtcp": {"cname": "cname"},
            "header_extensions": EXTENSIONS,
        }
        mapping = {
            "codecs": [{"payload_type": pt, "mapped_payload_type": pt} for pt in (MEDIA, RTX)],
            "encodings": [
                {"mapped_ssrc": 9000 + at, **{key: encoding[key] for key in ("rid", "ssrc") if key in encoding}}
                for at, encoding in enumerate(encodings)
            ],
        }
        body = {"producer_id": producer, "kind": "VIDEO", "rtp_parameters": parameters, "rtp_mapping": mapping}
        self.request("TRANSPORT_PRODUCE", "transport", ("Transport_ProduceRequest", body))

    def consume(self) -> None:
        parameters = {
            "mid": "1",
            "codecs": CODECS,
            "encodings": [{"ssrc": 3333, "rtx": {"ssrc": 3334}}],
            "rtcp": {"cname": "cname"},
            "header_extensions": [{"uri": "TransportWideCcDraft01", "id": WIDE_CC}],
        }
        body = {
            "consumer_id": "consumer",
            "producer_id": "producer",
            "kind": "VIDEO",
            "rtp_parameters": parameters,
            "type": "SIMPLE",
            "consumable_rtp_encodings": [{"ssrc": 9000}],
        }
        self.request("TRANSPORT_CONSUME", "transport", ("Transport_ConsumeRequest", body))

    def close_producer(self) -> None:
        body = ("Transport_CloseProducerRequest", {"producer_id": "producer"})
        self.request("TRANSPORT_CLOSE_PRODUCER", "transport", body)

    async def connect(self, protocol: str = "udp") -> MediaClient:
        """Connects a client to `transport`."""
        transport = self.create_transport()
        ice = transport["ice_parameters"]
        fingerprints = {it["algorithm"]: it["value"] for it in transport["dtls_parameters"]["fingerprints"]}
        client = MediaClient(ice["username_fragment"], ice["password"], fingerprints["SHA256"], [PROFILE])
        remote = {"fingerprints": [{"algorithm": "SHA256", "value": client.fingerprint}], "role": "CLIENT"}
        body = ("WebRtcTransport_ConnectRequest", {"dtls_parameters": remote})
        self.request("WEBRTCTRANSPORT_CONNECT", "transport", body)
        [port] = [it["port"] for it in transport["ice_candidates"] if it["protocol"] == protocol.upper()]
        await client.connect("127.0.0.1", port, protocol)
        return client


@pytest.fixture
def engine() -> Iterator[Engine]:
    binary = installed_engine()
    if not patches_of(binary):
        pytest.skip("the engine has no patches: it was not built by medianode.toolchain")
    with Engine(binary, schema_folder(binary)) as started:
        create_server_and_router(started)
        yield started


def one_byte_extensions(*items: tuple[int, bytes]) -> bytes:
    packed = b"".join(bytes([number << 4 | len(value) - 1]) + value for number, value in items)
    return struct.pack("!HH", 0xBEDE, -(-len(packed) // 4)) + packed + bytes(-len(packed) % 4)


def two_byte_extensions(*items: tuple[int, bytes]) -> bytes:
    packed = b"".join(bytes([number, len(value)]) + value for number, value in items)
    return struct.pack("!HH", 0x1000, -(-len(packed) // 4)) + packed + bytes(-len(packed) % 4)


def rtp(number: int, payload_type: int, ssrc: int, extensions: bytes = b"", payload: bytes = KEY_FRAME) -> bytes:
    flags = 0x90 if extensions else 0x80
    return struct.pack("!BBHII", flags, payload_type, number, 3000 * number, ssrc) + extensions + payload


def named(number: int, payload_type: int, ssrc: int, rid: bytes) -> bytes:
    """A packet of the producer with MID 0 that says its RID."""
    items = [(MID, b"0")]
    if rid:
        items.append((RID if payload_type == MEDIA else REPAIRED_RID, rid))
    return rtp(number, payload_type, ssrc, one_byte_extensions(*items))


def congestion_feedback(chunks: Sequence[int], deltas: bytes, count: int) -> bytes:
    body = struct.pack("!IIHHI", 1, 3333, 1, count, 0) + struct.pack(f"!{len(chunks)}H", *chunks) + deltas
    return struct.pack("!BBH", 0x8F, 205, len(body) // 4) + body


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
def test_packets_with_ssrcs_and_rids_in_every_order_are_survived(
    engine: Engine, encodings: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    engine.create_transport()
    chance = random.Random(request.config.option.seed)
    sequences = [*itertools.product(PACKETS, repeat=2), *(chance.choices(PACKETS, k=8) for _ in range(200))]
    for sequence in sequences:
        engine.produce(encodings)
        for number, packet in enumerate(sequence):
            engine.inject(named(number, *packet))
        try:
            engine.close_producer()
        except EngineUnavailable as unavailable:
            pytest.fail(f"{sequence}: {unavailable.reason}")


HOSTILE_RTP: Final = {
    "RID, then SSRC 0 with it": [named(0, MEDIA, 5555, b"a"), named(1, MEDIA, 0, b"a")],
    "RID, then its SSRC": [named(0, MEDIA, 5555, b"a"), named(1, MEDIA, 1, b"a")],
    "extension without a value": [
        rtp(0, MEDIA, 5555, two_byte_extensions((MID, b"0"), (RID, b"a"), (ORIENTATION, b"")))
    ],
}
RECEIVED, LONGEST_RUN = 0x2000, 8191
# 65,538 packets that were received, of which two have a time, and then as many that were not as make the count right
# again modulo 65,536.
CHUNKS: Final = [RECEIVED | 2, *[RECEIVED | LONGEST_RUN] * 8, RECEIVED | 8, *[LONGEST_RUN] * 8, 5]


async def other_packets_arrive(engine: Engine, client: MediaClient) -> None:
    """Sends a packet to another producer, and waits until it is there: the engine has read all that came before."""
    engine.produce([{"ssrc": 4242}], producer="other", mid="other")
    client.send_rtp(rtp(0, MEDIA, 4242))
    await until(lambda: engine.request("PRODUCER_GET_STATS", "other")["stats"] != [])


@pytest.mark.parametrize("packets", HOSTILE_RTP.values(), ids=HOSTILE_RTP)
@pytest.mark.parametrize("encodings", [[{"rid": "a"}], [{"rid": "a", "ssrc": 1}]], ids=["RID", "RID and SSRC"])
async def test_hostile_rtp_of_a_client_is_survived(
    engine: Engine, packets: list[bytes], encodings: list[dict[str, Any]]
) -> None:
    client = await engine.connect()
    try:
        engine.produce(encodings)
        for packet in packets:
            client.send_rtp(packet)
        await other_packets_arrive(engine, client)
    finally:
        client.close()


async def test_hostile_feedback_of_a_client_is_survived(engine: Engine) -> None:
    client = await engine.connect()
    try:
        engine.produce([{"ssrc": 1}])
        engine.consume()
        client.send_rtcp(congestion_feedback(CHUNKS, deltas=b"\1\1", count=65_535))
        await other_packets_arrive(engine, client)
    finally:
        client.close()


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_packet_with_an_extension_of_33_kb_is_survived(engine: Engine, protocol: str) -> None:
    client = await engine.connect(protocol)
    try:
        engine.produce([{"ssrc": 1}])
        client.send_rtp(rtp(0, MEDIA, 1, struct.pack("!HH", 0xABCD, 33_000 // 4) + bytes(33_000)))
        await other_packets_arrive(engine, client)
    finally:
        client.close()


async def test_packet_of_64_kib_that_would_grow_is_survived(engine: Engine) -> None:
    client = await engine.connect("tcp")
    try:
        engine.produce([{"ssrc": 1}])
        client.send_rtp(rtp(0, MEDIA, 1, payload=KEY_FRAME + bytes(65_500)))
        await other_packets_arrive(engine, client)
    finally:
        client.close()


IDLE, WAITING_LIMIT = 600, 500


async def test_tcp_connections_without_ice_are_closed_and_others_stay(engine: Engine) -> None:
    """The oldest are closed when there are too many, the others after 15 s; a client that passed ICE stays."""
    if not any(label.startswith("TCP connections without ICE") for label in patches_of(installed_engine())):
        pytest.skip("the engine was built without this patch")
    client = await engine.connect("tcp")
    port = client.port
    try:
        engine.produce([{"ssrc": 1}])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(IDLE)]
        for at, (_, writer) in enumerate(idle):
            writer.write([b"", b"\0", b"\0\x14" + bytes(20), b"\xff\xff" + bytes(100)][at % 4])
        ended = [asyncio.ensure_future(reader.read()) for reader, _ in idle]
        await asyncio.wait_for(asyncio.gather(*ended[: IDLE - WAITING_LIMIT]), PATIENCE)
        assert not any(each.done() for each in ended[IDLE - WAITING_LIMIT :])
        await asyncio.wait_for(asyncio.gather(*ended), PATIENCE)
        for _, writer in idle:
            writer.close()
        await other_packets_arrive(engine, client)
    finally:
        client.close()
