"""A client's RIDs and SSRCs, in every order, do not end an engine: not even one without Plenary's patches.

mediasoup-worker aborts when packets of one encoding arrive once with its RID and once with the SSRC that it was told.
"""

import asyncio
import itertools
import random
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec
import pytest

from medianode.engines.mediasoup import updatable_producer
from medianode.engines.mediasoup.engine import MediasoupEngine
from shared.protocol import media
from shared.protocol.rtp import PayloadTypeMapping, RtpParameters
from tests.integration.test_engine import settings
from tests.soak.calls import Call
from tests.support.webrtc_client import MediaClient

pytestmark = pytest.mark.engine

MEDIA, RTX = 96, 97
MAPPED: Final = [9001, 9002]
TYPES: Final = [PayloadTypeMapping(MEDIA, 101), PayloadTypeMapping(RTX, 102)]
EXTENSIONS: Final = [
    {"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 1},
    {"uri": "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "id": 2},
    {"uri": "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", "id": 3},
]
KEY_FRAME: Final = b"\x10\x00\x00\x00\x9d\x01\x2a\x10\x00\x10\x00"
ENCODINGS: Final[dict[str, list[dict[str, Any]]]] = {
    "RID": [{"encodingId": "a"}],
    "SSRC": [{"ssrc": 1}],
    "RID and SSRC": [{"encodingId": "a", "ssrc": 1}],
    "RID, SSRC and RTX": [{"encodingId": "a", "ssrc": 1, "rtx": {"ssrc": 2}}],
    "RID and RTX": [{"encodingId": "a", "rtx": {"ssrc": 2}}],
    "two RIDs": [{"encodingId": "a"}, {"encodingId": "b"}],
    "two RIDs and SSRCs": [{"encodingId": "a", "ssrc": 1}, {"encodingId": "b", "ssrc": 5555}],
    "RID, and another with SSRC": [{"encodingId": "a"}, {"encodingId": "b", "ssrc": 1}],
}
# Payload type, SSRC, RID. SSRC 0 is what the engine takes for an encoding that has none.
PACKETS: Final = list(itertools.product((MEDIA, RTX), (0, 1, 2, 5555), (b"", b"a", b"b")))
SEQUENCES: Final = 60


def parameters(encodings: list[dict[str, Any]]) -> RtpParameters:
    vp8 = {"name": "VP8", "mimeType": "video/VP8", "payloadType": MEDIA, "clockRate": 90000}
    rtx = {
        "name": "rtx",
        "mimeType": "video/rtx",
        "payloadType": RTX,
        "clockRate": 90000,
        "parameters": {"apt": MEDIA},
    }
    data = {"codecs": [vp8, rtx], "headerExtensions": EXTENSIONS, "encodings": encodings, "muxId": "0"}
    return msgspec.convert(data, RtpParameters)


def packet(number: int, payload_type: int, ssrc: int, rid: bytes) -> bytes:
    """Returns a VP8 key frame of the producer with MID 0, with its RID if there is one."""
    items = [(1, b"0"), *([(2 if payload_type == MEDIA else 3, rid)] if rid else [])]
    packed = b"".join(bytes([number << 4 | len(value) - 1]) + value for number, value in items)
    extensions = struct.pack("!HH", 0xBEDE, -(-len(packed) // 4)) + packed + bytes(-len(packed) % 4)
    return struct.pack("!BBHII", 0x90, payload_type, number, 3000 * number, ssrc) + extensions + KEY_FRAME


def sequences(seed: int) -> Iterator[list[tuple[int, int, bytes]]]:
    """Yields the two packets by which unpatched engines die, then longer sequences by chance."""
    for ssrc in (0, 1, 2):
        yield [(MEDIA, 5555, b"a"), (MEDIA, ssrc, b"a")]
        yield [(MEDIA, ssrc, b""), (MEDIA, 5555, b"a")]
    chance = random.Random(seed)
    for _ in range(SEQUENCES):
        yield chance.choices(PACKETS, k=8)


class Sender(Call):
    """A client with one transport, whose producers are made and closed."""

    async def open(self) -> MediaClient:
        self.engine.create_router(self.router.id)
        return await self.connect("sending")

    async def produce(self, name: str, encodings: list[dict[str, Any]], *, updatable: bool = False) -> None:
        mapped = MAPPED[: len(encodings)]
        transport, sent = self.transports[0], parameters(encodings)
        await self.ask(media.Produce(self.router, transport, name, "video", sent, TYPES, mapped, updatable=updatable))

    async def stats(self) -> None:
        """Returns when the engine has read what was sent before. Raises `CallFailed` if it has died."""
        for _ in range(3):
            await self.ask(media.GetStats(self.router, "transport", self.transports[0], 1))


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    engine = MediasoupEngine(settings())
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    sender = Sender(engine, 1, "udp")
    yield sender
    for client in sender.clients:
        client.close()
    await engine.close()
    assert deaths == []


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
async def test_packets_of_a_producer_are_survived_in_every_order(
    sender: Sender, encodings: list[dict[str, Any]], pytestconfig: pytest.Config
) -> None:
    client = await sender.open()
    for number, sequence in enumerate(sequences(pytestconfig.option.seed)):
        name = f"producer{number}"
        await sender.produce(name, encodings)
        for at, fields in enumerate(sequence):
            client.send_rtp(packet(at, *fields))
        await sender.stats()
        sender.engine.order(media.Close(name, 1, "producer"), sender.transports[0])


@pytest.mark.parametrize("encodings", ENCODINGS.values(), ids=ENCODINGS)
async def test_packets_of_an_updated_producer_are_survived(
    sender: Sender,
    encodings: list[dict[str, Any]],
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(updatable_producer, "RETIREMENT_SECONDS", 0.01)
    client = await sender.open()
    others: list[dict[str, Any]] = [{"ssrc": 71 + n} for n in range(len(encodings))]
    await sender.produce("producer", others, updatable=True)
    for generation, sequence in enumerate(itertools.islice(sequences(pytestconfig.option.seed), 12), 1):
        wanted = parameters(encodings if generation % 2 else others)
        await sender.ask(media.UpdateProducer(sender.router, "producer", wanted, TYPES, generation))
        for at, fields in enumerate(sequence):
            client.send_rtp(packet(at, *fields))
        await sender.stats()
        await asyncio.sleep(0.02)
