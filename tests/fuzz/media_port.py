"""Sends hostile packets to the media port of an engine, as a client with a call of its own and its SRTP keys."""

import asyncio
from collections import Counter
from typing import Any, Final

import msgspec
import pylibsrtp

from medianode.engines.port import Engine
from medianode.toolchain.webrtc_client import ConnectionFailed
from shared.protocol import media
from shared.protocol.rtp import PayloadTypeMapping, RtpParameters
from tests.fuzz.packets import Packets
from tests.soak.calls import PATIENCE, PROTOCOLS, Call, close_router
from tests.support.webrtc_client import MediaClient

PACKETS_PER_CALL: Final = 2000
PACKETS_PER_REQUEST: Final = 100
"""Packets after which the engine must answer a request: it reads packets and requests in one loop."""
EXTENSIONS: Final = [
    {"uri": "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "id": 2},
    {"uri": "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", "id": 3},
    {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 4},
    {"uri": "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", "id": 5},
    {"uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 6},
    {"uri": "urn:3gpp:video-orientation", "id": 8},
]
FEEDBACK: Final = [
    {"type": "nack"},
    {"type": "nack", "parameter": "pli"},
    {"type": "ccm", "parameter": "fir"},
    {"type": "goog-remb"},
    {"type": "transport-cc"},
]
VIDEO_CODECS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "VP8"},
    {"name": "VP9"},
    {"name": "H264", "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f"}},
    {"name": "AV1"},
)
SIMULCAST: Final = ("VP8", "H264")
ONE: Final[list[dict[str, Any]]] = [{"ssrc": 2222, "rtx": {"ssrc": 3333}}]
TWO: Final[list[dict[str, Any]]] = [{"ssrc": 2222, "rtx": {"ssrc": 3333}}, {"ssrc": 2223}]


class FuzzingClient(MediaClient):
    """Goes on when the engine sends what a client would not bear; the engine is what is tested."""

    def _receive(self, packet: bytes) -> None:
        try:
            super()._receive(packet)
        except (ConnectionFailed, pylibsrtp.Error):
            if not self._connected.done():
                raise


class FuzzedCall(Call):
    """Sends an audio stream and a video stream, one of each codec in turn, to a listener."""

    make_client = FuzzingClient

    async def open(self) -> tuple[MediaClient, MediaClient]:
        """Returns the client that sends and the one that receives."""
        self.engine.create_router(self.router.id)
        speaker, listener = await self.connect("sending"), await self.connect("receiving")
        await self._send("audio", audio([{"ssrc": 1111}]), [9100], audio([{"ssrc": 5111}]))
        codec = VIDEO_CODECS[self.number % len(VIDEO_CODECS)]
        encodings = TWO if codec["name"] in SIMULCAST else ONE
        mapped = [9200 + n for n in range(len(encodings))]
        await self._send(
            "video", video(codec, encodings), mapped, video(codec, [{"ssrc": 5222, "rtx": {"ssrc": 5223}}])
        )
        return speaker, listener

    async def _send(self, kind: Any, sent: RtpParameters, mapped: list[int], received: RtpParameters) -> None:
        types = [PayloadTypeMapping(codec.payload_type, codec.payload_type) for codec in sent.codecs]
        sending, receiving = self.transports
        name = f"{self.router.id}.{kind}"
        await self.ask(media.Produce(self.router, sending, name, kind, sent, types, mapped))
        await self.ask(media.Consume(self.router, receiving, f"{name}.consumer", name, kind, received, mapped))


async def fuzz(engine: Engine, seed: int, count: int) -> Counter[str]:
    """Sends so many packets, over UDP and TCP in turn; returns how many of which kind, and what came through.

    Raises `CallFailed` or `TimeoutError` if the engine does not answer any more.
    """
    packets, counts = Packets(seed), Counter[str]()
    for number, first in enumerate(range(0, count, PACKETS_PER_CALL)):
        call = FuzzedCall(engine, number, PROTOCOLS[number % len(PROTOCOLS)])
        async with asyncio.timeout(10 * PATIENCE):
            speaker, listener = await call.open()
            for sent in range(min(PACKETS_PER_CALL, count - first)):
                counts[send(speaker, packets)] += 1
                if sent % PACKETS_PER_REQUEST == 0:
                    await call.ask(media.GetStats(call.router, "transport", call.transports[0], 1))
            await call.ask(media.GetStats(call.router, "transport", call.transports[1], 1))
            counts["received RTP"] += listener.rtp.qsize()
            await close_router(call)
    return counts


def send(client: MediaClient, packets: Packets) -> str:
    """Sends the next packet; returns how."""
    protection, packet, chance_of_change = packets.next()
    try:
        data = packet if protection == "none" else client.protect(packet, rtcp=protection == "rtcp")
    except pylibsrtp.Error:  # not even a header
        protection, data = "none", packet
    if packets.chance(chance_of_change):
        client.send(packets.changed(data))
        return f"changed {'SRTP' if protection == 'rtp' else 'SRTCP' if protection == 'rtcp' else 'other'}"
    client.send(data)
    return {"rtp": "SRTP", "rtcp": "SRTCP", "none": "other"}[protection]


def audio(encodings: list[dict[str, Any]]) -> RtpParameters:
    opus = {"name": "opus", "mimeType": "audio/opus", "payloadType": 100, "clockRate": 48000, "channels": 2}
    return _parameters([opus], encodings)


def video(codec: dict[str, Any], encodings: list[dict[str, Any]]) -> RtpParameters:
    mime_type = f"video/{codec['name']}"
    main = {**codec, "mimeType": mime_type, "payloadType": 101, "clockRate": 90000, "rtcpFeedback": FEEDBACK}
    rtx = {"name": "rtx", "mimeType": "video/rtx", "payloadType": 102, "clockRate": 90000, "parameters": {"apt": 101}}
    return _parameters([main, rtx], encodings)


def _parameters(codecs: list[dict[str, Any]], encodings: list[dict[str, Any]]) -> RtpParameters:
    data = {"codecs": codecs, "headerExtensions": EXTENSIONS, "encodings": encodings, "rtcp": {"cname": "c"}}
    return msgspec.convert(data, RtpParameters)
