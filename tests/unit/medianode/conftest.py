"""An engine that does nothing until told, and the requests that rooms usually make."""

from typing import Any

import pytest

from medianode.engines.port import Done, OnDeath, OnEvent
from shared.protocol import media
from shared.protocol.rtp import DtlsParameters, Encoding, Fingerprint, RtpCodec, RtpParameters

OPUS = RtpCodec(name="opus", mime_type="audio/opus", payload_type=100, clock_rate=48000, channels=2)
REMOTE = DtlsParameters([Fingerprint("sha-256", "AA:BB")], "client")


class HeldEngine:
    """Keeps each request until the test answers it."""

    def __init__(self) -> None:
        self.routers: list[str] = []
        self.requests: list[tuple[media.AnyRequest, Done]] = []
        self.orders: list[tuple[media.AnyOrder, str]] = []

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        self.on_event = on_event
        self.on_death = on_death

    async def close(self) -> None:
        pass

    def create_router(self, router: str) -> None:
        self.routers.append(router)

    def request(self, request: media.AnyRequest, done: Done) -> None:
        self.requests.append((request, done))

    def order(self, order: media.AnyOrder, parent: str) -> None:
        self.orders.append((order, parent))

    def answer(self, result: media.AnyResult) -> None:
        """Answers the oldest request that has no answer."""
        _, done = self.requests.pop(0)
        done(result)


class Requests:
    """Requests for one router; ids are what the test says."""

    def __init__(self, router: str = "router") -> None:
        self.router = media.RouterRef(router, partition=3, room="room", incarnation="i", epoch=1)

    def create(self, transport: str = "transport", **more: Any) -> media.CreateTransport:
        return media.CreateTransport(self.router, transport, **more)

    def connect(self, transport: str = "transport") -> media.ConnectTransport:
        return media.ConnectTransport(self.router, transport, REMOTE)

    def restart(self, generation: int, transport: str = "transport") -> media.RestartIce:
        return media.RestartIce(self.router, transport, generation)

    def produce(self, producer: str = "producer", transport: str = "transport", **more: Any) -> media.Produce:
        parameters = RtpParameters(codecs=[OPUS], encodings=[Encoding(ssrc=1111)])
        return media.Produce(self.router, transport, producer, "audio", parameters, [], [2222], **more)

    def update(self, generation: int) -> media.UpdateProducer:
        parameters = RtpParameters(codecs=[OPUS], encodings=[Encoding(ssrc=4444)])
        return media.UpdateProducer(self.router, "producer", parameters, [], generation)

    def consume(
        self, consumer: str = "consumer", producer: str = "producer", transport: str = "transport", **more: Any
    ) -> media.Consume:
        parameters = RtpParameters(codecs=[OPUS], encodings=[Encoding(ssrc=3333)])
        return media.Consume(self.router, transport, consumer, producer, "audio", parameters, [2222], **more)

    def stats(self, target: str, kind: Any = "transport") -> media.GetStats:
        return media.GetStats(self.router, kind, target, id=7, transport_id=8)


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def other_engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture
def other_room() -> Requests:
    return Requests("other router")
