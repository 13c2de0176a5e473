"""Sets up and ends calls on one engine, over UDP and TCP, and measures the engine's memory between them."""

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import ClassVar, Final

import msgspec

from medianode.engines.port import Engine
from shared.protocol import media
from shared.protocol.media import RouterRef
from shared.protocol.rtp import DtlsParameters, Fingerprint, PayloadTypeMapping, RtpParameters
from tests.support.webrtc_client import MediaClient

PACKETS: Final = 40
"""RTP packets in a call; those that arrive are counted."""
SENT, MAPPED, RECEIVED = 1111, 2222, 3333
PATIENCE: Final = 30.0
"""Seconds for a step of a call, however busy the machine is."""
PROTOCOLS: Final = ("udp", "tcp")


class CallFailed(Exception):
    """The engine refused a request of a call."""


@dataclass
class Sample:
    """The engine's private memory, in KiB, after so many calls, when none was left."""

    calls: int
    kibibytes: int
    seconds: float


def growth(samples: Sequence[Sample]) -> float:
    """Returns bytes per call: the mean of the last third of the samples minus that of the third before it."""
    third = len(samples) // 3
    before, after = samples[third : 2 * third], samples[-third:]
    calls = mean(it.calls for it in after) - mean(it.calls for it in before)
    return 1024 * (mean(it.kibibytes for it in after) - mean(it.kibibytes for it in before)) / calls


def private_memory(pid: int) -> int:
    """Returns the KiB of memory that only this process has."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no Private_Dirty")


async def soak(
    engine: Engine, protocols: Sequence[str], *, calls_per_sample: int, pause: float = 0.0
) -> AsyncIterator[Sample]:
    """Yields a sample after so many calls, for ever. The calls take turns in their protocols and in how they end.

    `pause` is in seconds, from one call to the next.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    ends = itertools.cycle((close_router, close_transports, close_sockets))
    numbers = itertools.count()
    while True:
        for number in itertools.islice(numbers, calls_per_sample):
            call = Call(engine, number, protocols[number % len(protocols)])
            async with asyncio.timeout(PATIENCE):
                await call.run()
                await next(ends)(call)
            await asyncio.sleep(pause)
        yield Sample(number + 1, private_memory(engine.pid), loop.time() - began)


class Call:
    """A microphone and a listener, each with a transport; and a client that goes away while it connects."""

    make_client: ClassVar[type[MediaClient]] = MediaClient

    def __init__(self, engine: Engine, number: int, protocol: str) -> None:
        self.engine = engine
        self.number = number
        self.router = RouterRef(f"router{number}", 0, "room", "i", 1)
        self.protocol = protocol
        self.clients: list[MediaClient] = []
        self.transports: list[str] = []

    async def run(self) -> None:
        """Returns when RTP has arrived. Raises `CallFailed`, or what `MediaClient.connect` raises."""
        self.engine.create_router(self.router.id)
        speaker = await self.connect("sending")
        listener = await self.connect("receiving")
        types = [PayloadTypeMapping(100, 100)]
        producer, consumer = f"{self.router.id}.producer", f"{self.router.id}.consumer"
        await self.ask(media.Produce(self.router, self.transports[0], producer, "audio", opus(SENT), types, [MAPPED]))
        await self.ask(
            media.Consume(self.router, self.transports[1], consumer, producer, "audio", opus(RECEIVED), [MAPPED])
        )
        for number in range(PACKETS):
            speaker.send_rtp(struct.pack("!BBHII", 0x80, 100, number, 960 * number, SENT) + b"audio")
        for _ in range(PACKETS // 2):  # UDP may lose some
            await listener.rtp.get()
        await self._leave_amid_connecting()

    async def connect(self, name: str) -> MediaClient:
        """Creates a transport of this name and returns a client that is connected to it."""
        client, host, port = await self._create(name)
        fingerprint = Fingerprint("sha-256", client.fingerprint)
        await self.ask(
            media.ConnectTransport(self.router, self.transports[-1], DtlsParameters([fingerprint], "client"))
        )
        await client.connect(host, port, self.protocol)
        return client

    async def _leave_amid_connecting(self) -> None:
        """Connects to a transport that never gets the client's fingerprint, and goes away."""
        client, host, port = await self._create("abandoned")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.connect(host, port, self.protocol)
        client.close()

    async def _create(self, name: str) -> tuple[MediaClient, str, int]:
        transport = f"{self.router.id}.{name}"
        created = await self.ask(media.CreateTransport(self.router, transport))
        assert isinstance(created, media.TransportCreated)
        self.transports.append(transport)
        ice = created.ice_parameters
        client = self.make_client(ice.username_fragment, ice.password, created.dtls_parameters.fingerprints[-1].value)
        self.clients.append(client)
        [candidate] = [it for it in created.ice_candidates if it.protocol == self.protocol]
        return client, candidate.ip, candidate.port

    async def ask(self, request: media.AnyRequest) -> media.AnyResult:
        """Returns the engine's result. Raises `CallFailed`."""
        result: asyncio.Future[media.AnyResult] = asyncio.get_running_loop().create_future()
        self.engine.request(request, result.set_result)
        found = await result
        if isinstance(found, media.Failed):
            raise CallFailed(f"{type(request).__name__}: {found.reason}")
        return found


async def close_router(call: Call) -> None:
    call.engine.order(media.Close(call.router.id, 1, "router"), "")
    for client in call.clients:
        client.close()


async def close_transports(call: Call) -> None:
    for transport in call.transports:
        call.engine.order(media.Close(transport, 1, "transport"), call.router.id)
    await close_router(call)


async def close_sockets(call: Call) -> None:
    """Closes the clients' connections first, as a browser that was killed."""
    for client in call.clients:
        client.close()
    await asyncio.sleep(0.02)
    await close_router(call)


def opus(ssrc: int) -> RtpParameters:
    codec = {"name": "opus", "mimeType": "audio/opus", "payloadType": 100, "clockRate": 48000, "channels": 2}
    return msgspec.convert({"codecs": [codec], "encodings": [{"ssrc": ssrc}], "rtcp": {"cname": "c"}}, RtpParameters)
