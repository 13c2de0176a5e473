"""The client in Python against the real engine: it connects over UDP and TCP, and SRTP passes both ways."""

import asyncio
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from medianode.toolchain.engine_folder import schema_folder
from medianode.toolchain.handshake import check_handshake
from medianode.toolchain.started_engine import StartedEngine
from medianode.toolchain.webrtc_client import SRTP_PROFILES, ConnectionFailed
from tests.support.installed_engine import create_server_and_router, installed_engine
from tests.support.webrtc_client import MediaClient

pytestmark = pytest.mark.engine

OPUS = {"mime_type": "audio/opus", "payload_type": 100, "clock_rate": 48000, "channels": 2, "rtcp_feedback": []}
SENT, MAPPED, RECEIVED = 1111, 2222, 3333


@pytest.fixture
def engine() -> Iterator[StartedEngine]:
    binary = installed_engine()
    with StartedEngine(binary, schema_folder(binary)) as started:
        create_server_and_router(started)
        yield started


def create_transport(engine: StartedEngine) -> dict[str, Any]:
    options = {"base": {}, "listen": ("ListenServer", {"web_rtc_server_id": "server"})}
    body = ("Router_CreateWebRtcTransportRequest", {"transport_id": "transport", "options": options})
    return engine.request("ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER", "router", body)


def client_of(transport: dict[str, Any], profile: str, fingerprint: str = "") -> MediaClient:
    ice = transport["ice_parameters"]
    [of_engine] = [it["value"] for it in transport["dtls_parameters"]["fingerprints"] if it["algorithm"] == "SHA256"]
    return MediaClient(ice["username_fragment"], ice["password"], fingerprint or of_engine, [profile])


async def connect(engine: StartedEngine, protocol: str, profile: str, fingerprint: str = "") -> MediaClient:
    transport = create_transport(engine)
    client = client_of(transport, profile, fingerprint)
    remote = {"fingerprints": [{"algorithm": "SHA256", "value": client.fingerprint}], "role": "CLIENT"}
    body = ("WebRtcTransport_ConnectRequest", {"dtls_parameters": remote})
    engine.request("WEBRTCTRANSPORT_CONNECT", "transport", body)
    [port] = [it["port"] for it in transport["ice_candidates"] if it["protocol"] == protocol.upper()]
    await client.connect("127.0.0.1", port, protocol)
    engine.wait_for("WEBRTCTRANSPORT_DTLS_STATE_CHANGE", "transport", dtls_state="CONNECTED")
    return client


def rtp_parameters(ssrc: int) -> dict[str, Any]:
    return {
        "mid": "0",
        "codecs": [OPUS],
        "encodings": [{"ssrc": ssrc}],
        "rtcp": {"cname": "cname"},
        "header_extensions": [],
    }


def produce_and_consume(engine: StartedEngine) -> None:
    mapping = {
        "codecs": [{"payload_type": 100, "mapped_payload_type": 100}],
        "encodings": [{"ssrc": SENT, "mapped_ssrc": MAPPED}],
    }
    produced = {
        "producer_id": "producer",
        "kind": "AUDIO",
        "rtp_parameters": rtp_parameters(SENT),
        "rtp_mapping": mapping,
    }
    engine.request("TRANSPORT_PRODUCE", "transport", ("Transport_ProduceRequest", produced))
    consumed = {
        "consumer_id": "consumer",
        "producer_id": "producer",
        "kind": "AUDIO",
        "rtp_parameters": rtp_parameters(RECEIVED),
        "type": "SIMPLE",
        "consumable_rtp_encodings": [{"ssrc": MAPPED}],
    }
    engine.request("TRANSPORT_CONSUME", "transport", ("Transport_ConsumeRequest", consumed))


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("profile", SRTP_PROFILES)
async def test_srtp_passes_both_ways(engine: StartedEngine, protocol: str, profile: str) -> None:
    client = await connect(engine, protocol, profile)
    try:
        assert client.keys
        assert client.keys.profile == profile
        produce_and_consume(engine)
        async with asyncio.timeout(10):
            for number in range(50):
                payload = f"packet {number}".encode()
                client.send_rtp(struct.pack("!BBHII", 0x80, 100, number, 960 * number, SENT) + payload)
                received = await client.rtp.get()
                assert received.endswith(payload)
                assert struct.unpack_from("!I", received, 8) == (RECEIVED,)
            report = await client.rtcp.get()
        assert 192 <= report[1] <= 223
    finally:
        client.close()


async def test_client_refuses_an_engine_with_another_certificate(engine: StartedEngine) -> None:
    with pytest.raises(ConnectionFailed, match="fingerprint"):
        await connect(engine, "udp", SRTP_PROFILES[0], fingerprint="00:11")


def test_engine_passes_the_check_at_the_end_of_a_build(engine: StartedEngine) -> None:
    binary = installed_engine()
    check_handshake(binary, schema_folder(binary))
