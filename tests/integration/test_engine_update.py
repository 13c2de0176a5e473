"""§updateProducer on the real engine, with real RTP: new SSRCs of a client's are one stream to its receivers."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from medianode.engines.mediasoup import updatable_producer
from medianode.engines.mediasoup.engine import MediasoupEngine
from medianode.object_registry import ObjectRegistry
from medianode.toolchain.engine_folder import patches_of
from shared.protocol import media
from shared.protocol.media import Close, Failed, Pause, Resume
from shared.protocol.rtp import PayloadTypeMapping, RtpParameters
from tests.integration.test_engine import (
    CHROME,
    MAPPED,
    ROUTER,
    TYPES,
    connect_plain,
    consume,
    create,
    plain_transport,
    rtp,
    settings,
)
from tests.support.installed_engine import installed_engine
from tests.support.rtp import Endpoint, Packet, Sender

pytestmark = [pytest.mark.engine, pytest.mark.sample(12)]


class Call:
    """A client sends a producer through plain RTP, another receives it; asked through the node's memory."""

    def __init__(self, engine: MediasoupEngine, objects: ObjectRegistry) -> None:
        self.engine = engine
        self.objects = objects
        self.profiles: asyncio.Queue[str] = asyncio.Queue()
        self.last_number: int | None = None
        self.simulcast = False

    async def start(self) -> None:
        await self.engine.start(self._event, lambda _: None)
        self.objects.add_engine(self.engine)
        # Plain transports instead of a browser's: made behind the node's back, under the ids of those it knows.
        await self.ask(create("sending"))
        await self.ask(create("receiving"))
        for transport in ("sending", "receiving"):
            await self.engine.ask("ROUTER_CLOSE_TRANSPORT", "router", {"transport_id": transport})
        port = await plain_transport(self.engine, "sending", comedia=True)
        await plain_transport(self.engine, "receiving", comedia=False)
        self.sender = await self._open(Sender(port))
        self.receiver = await self._open(Endpoint())
        await connect_plain(self.engine, "receiving", self.receiver.port)

    async def _open(self, endpoint: Any) -> Any:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: endpoint, local_addr=("127.0.0.1", 0))
        return endpoint

    async def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        await self.engine.close()

    def _event(self, event: media.AnyEvent) -> None:
        if self.objects.router_of(event) and isinstance(event, media.ProfileChanged):
            self.profiles.put_nowait(event.profile)

    def ask(self, request: media.AnyRequest) -> asyncio.Future[media.AnyResult]:
        result: asyncio.Future[media.AnyResult] = asyncio.get_running_loop().create_future()
        self.objects.request(request, result.set_result)
        return result

    async def dump(self, kind: str, target: str) -> Any:
        """Returns what the engine knows of an object, without the nesting of its tables."""
        data = (await self.engine.ask(f"{kind.upper()}_DUMP", target)).data
        data = data.get("data", data)
        return {**data.get("base", {}), **data}

    async def stats(self, kind: Any, target: str) -> list[dict[str, Any]]:
        result = await self.ask(media.GetStats(ROUTER, kind, target, 7, 8))
        assert isinstance(result, media.Stats)
        return result.stats

    async def received(self, count: int) -> list[Packet]:
        """The next so many packets for the receiver: those of one stream, numbered without a step back."""
        async with asyncio.timeout(20):
            packets = [await self.receiver.packets.get() for _ in range(count)]
        for packet in packets:
            assert packet.ssrc == 51
            if self.last_number is not None:  # the engine chooses the first
                # The engine leaves one number out where it switches layers amid a frame.
                assert packet.number - self.last_number in ((1, 2) if self.simulcast else (1,))
            self.last_number = packet.number
        return packets

    async def received_from(self, ssrc: int) -> list[Packet]:
        """All packets for the receiver up to the first that this SSRC of the sender's brought."""
        packets = await self.received(1)
        async with asyncio.timeout(20):
            while packets[-1].sent_as != ssrc:
                packets += await self.received(1)
        return packets


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    call = Call(MediasoupEngine(settings()), ObjectRegistry())
    await call.start()
    yield call
    await call.close()


def video(ssrc: int) -> list[dict[str, Any]]:
    return [{"ssrc": ssrc, "rtx": {"ssrc": ssrc + 1}}]


def produce(*encodings: dict[str, Any], **more: Any) -> media.Produce:
    mapped = MAPPED[: len(encodings)]
    return media.Produce(ROUTER, "sending", "producer", "video", rtp(list(encodings)), TYPES, mapped, **more)


def update(generation: int, *encodings: dict[str, Any]) -> media.UpdateProducer:
    return media.UpdateProducer(ROUTER, "producer", rtp(list(encodings)), TYPES, generation)


# Fewer or more packets than the engine takes for misorder rather than for a jump.
@pytest.mark.parametrize("before", [30, 1800])
async def test_receivers_see_one_stream_go_on(call: Call, before: int) -> None:
    if not patches_of(installed_engine()):
        pytest.skip("the engine has no patches: it was not built by medianode.toolchain")
    await call.ask(produce(*video(11), updatable=True))
    assert await call.ask(consume("consumer", "producer", MAPPED[:1])) == media.Consumed("default")
    call.sender.send(11, first=1000)
    last = (await call.received(before))[-1]
    for generation, (ssrc, first) in enumerate([(21, 40_000), (31, 0), (41, 65_500)], 1):
        call.sender.send(ssrc, first=first)
        assert await call.ask(update(generation, *video(ssrc))) == media.Produced()
        packets = [last, *await call.received_from(ssrc)]
        assert packets[-1].begins_key_frame
        ingests = (await call.dump("transport", "sending"))["producer_ids"]
        assert f"producer.{generation}" in ingests, "receivers do not wait for the end of the old stream"
        packets += await call.received(100)
        last = packets[-1]
        assert {p.sent_as for p in packets[-100:]} == {ssrc}
        steps = {(after.timestamp - before.timestamp) & 0xFFFF_FFFF for before, after in pairwise(packets)}
        assert max(steps) < 10 * 90_000, "timestamps go on too, or browsers show nothing"


async def test_audio_goes_on_without_a_key_frame(call: Call) -> None:
    def opus(encoding: dict[str, Any], payload_type: int) -> RtpParameters:
        codec = {"name": "opus", "payloadType": payload_type, "clockRate": 48000, "channels": 2}
        return msgspec.convert({"codecs": [codec], "encodings": [encoding], "rtcp": {"cname": "c"}}, RtpParameters)

    types = [PayloadTypeMapping(96, 100)]
    told = opus({"ssrc": 51}, 100)
    await call.ask(
        media.Produce(
            ROUTER, "sending", "producer", "audio", opus({"ssrc": 11}, 96), types, MAPPED[:1], updatable=True
        )
    )
    await call.ask(media.Consume(ROUTER, "receiving", "consumer", "producer", "audio", told, MAPPED[:1]))
    call.sender.send(11, first=1)
    await call.received(30)
    for ssrc in range(60, 90):
        changed = media.UpdateProducer(ROUTER, "producer", opus({"ssrc": ssrc}, 96), types, ssrc)
        updated = call.ask(changed)
        call.sender.send(ssrc, first=1000 * ssrc)
        assert await updated == media.Produced()
        await call.received_from(ssrc)


async def test_key_frames_are_asked_of_the_new_source(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    call.sender.send(11, first=1)
    await call.received(10)
    call.sender.send(21, first=1)
    await call.ask(update(1, *video(21)))
    await call.received_from(21)
    while not call.sender.plis.empty():
        call.sender.plis.get_nowait()
    call.objects.order(media.RequestKeyFrame("consumer", 1))
    await call.sender.asked_for_a_key_frame(21)


async def test_key_frames_are_asked_of_the_sender(call: Call) -> None:
    await call.ask(produce(*video(11)))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    call.sender.send(11, first=1)
    await call.received(10)
    call.objects.order(media.RequestKeyFrame("consumer", 1))
    await call.sender.asked_for_a_key_frame(11)


async def test_stats_describe_the_streams_that_the_client_sends(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    assert await call.stats("producer", "producer") == []
    call.sender.send(11, first=1)
    await call.received(10)
    call.sender.send(21, first=1)
    await call.ask(update(1, *video(21)))
    await call.received_from(21)
    (sent,) = await call.stats("producer", "producer")
    assert (sent["type"], sent["ssrc"], sent["transportId"]) == ("inbound-rtp", 21, 8)
    inbound, outbound = await call.stats("consumer", "consumer")
    assert (inbound["type"], inbound["ssrc"]) == ("inbound-rtp", 21)
    assert (outbound["ssrc"], outbound["inboundRtpId"]) == (51, inbound["id"])


async def test_a_paused_producer_may_be_updated(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    call.sender.send(11, first=1)
    await call.received(10)
    call.objects.order(Pause("producer", 1, "producer"))
    assert (await call.dump("consumer", "consumer"))["producer_paused"]
    call.sender.send(21, first=1)
    assert await call.ask(update(1, *video(21))) == media.Produced()
    assert (await call.dump("consumer", "consumer"))["producer_paused"]
    assert (await call.dump("producer", "producer.2"))["paused"], "nothing goes round the loopback"
    call.objects.order(Resume("producer", 2, "producer"))
    await call.received_from(21)
    assert not (await call.dump("consumer", "consumer"))["producer_paused"]


async def test_a_pause_during_an_update_holds(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    updating = call.ask(update(1, *video(21)))
    call.objects.order(Pause("producer", 1, "producer"))
    assert await updating == media.Produced()
    assert (await call.dump("consumer", "consumer"))["producer_paused"]
    call.objects.order(Resume("producer", 2, "producer"))
    call.sender.send(21, first=1)
    await call.received_from(21)


async def test_an_update_is_carried_out_once(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    for generation, ssrc in ((2, 21), (2, 31), (1, 41)):
        assert await call.ask(update(generation, *video(ssrc))) == media.Produced()
    assert set((await call.dump("transport", "sending"))["producer_ids"]) == {"producer.1", "producer.2"}


async def test_updates_in_a_row_end_with_the_last(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    results = [call.ask(update(n, *video(11 + 10 * n))) for n in (1, 2, 3)]
    assert await asyncio.gather(*results) == [media.Produced()] * 3
    call.sender.send(41, first=1)
    await call.received_from(41)


async def test_an_update_may_keep_some_of_its_ssrcs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updatable_producer, "RETIREMENT_SECONDS", 3600.0)  # the answer does not wait for it
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    assert await call.ask(update(1, {"ssrc": 11, "rtx": {"ssrc": 99}})) == media.Produced()
    call.sender.send(11, first=1)
    await call.received_from(11)


async def test_update_to_ssrcs_of_a_source_just_replaced_is_answered_at_once(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updatable_producer, "RETIREMENT_SECONDS", 3600.0)
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    async with asyncio.timeout(60):
        for generation, ssrc in enumerate([21, 11, 21, 21, 11], 1):
            assert await call.ask(update(generation, *video(ssrc))) == media.Produced()
    assert set((await call.dump("transport", "sending"))["producer_ids"]) == {"producer.5", "producer.6"}
    call.sender.send(11, first=1)
    await call.received_from(11)


async def test_producer_that_is_not_updatable_refuses_an_update(call: Call) -> None:
    await call.ask(produce(*video(11)))
    refused = await call.ask(update(1, *video(21)))
    assert isinstance(refused, Failed)
    assert (refused.code, refused.reason) == (409, "the producer was not made to be updated: its SSRCs are fixed")


async def test_a_refused_update_leaves_a_producer_that_can_be_updated(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    other = msgspec.structs.replace(produce(*video(71)), producer="other", mapped_ssrcs=[9009])
    assert await call.ask(other) == media.Produced()
    for parameters, code in ((video(71), 409), (CHROME, 400)):
        refused = await call.ask(update(1, *parameters))
        assert isinstance(refused, Failed)
        assert refused.code == code
    assert await call.ask(update(1, *video(21))) == media.Produced()
    call.sender.send(21, first=1)
    await call.received_from(21)


async def test_closing_the_producer_leaves_nothing_of_it(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    await call.ask(update(1, *video(21)))
    call.objects.order(Close("producer", 1, "producer"))
    await nothing_left(call)
    assert (await call.dump("transport", "sending"))["producer_ids"] == []


async def test_replaced_source_is_closed_after_its_last_report(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updatable_producer, "RETIREMENT_SECONDS", 0.01)
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(update(1, *video(21)))
    async with asyncio.timeout(20):
        while (await call.dump("transport", "sending"))["producer_ids"] != ["producer.2"]:
            pass


async def test_update_beyond_the_stream_limit_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updatable_producer, "STREAMS", 2)
    await call.ask(produce(*video(11), updatable=True))
    assert await call.ask(update(1, *video(21))) == media.Produced()
    refused = await call.ask(update(2, *video(31)))
    assert isinstance(refused, Failed)
    assert refused.code == 409


async def test_closing_the_transport_leaves_nothing_of_its_producers(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    call.objects.order(Close("sending", 1, "transport"))
    await nothing_left(call)


@pytest.mark.parametrize("parameters", [video(11), CHROME])
async def test_engine_logs_no_error_when_the_transport_of_a_producer_closes(
    call: Call, parameters: list[dict[str, Any]]
) -> None:
    updated = [{"ssrc": encoding["ssrc"] + 50} for encoding in parameters]
    with capture_logs() as lines:
        await call.ask(produce(*parameters, updatable=True))
        await call.ask(consume("consumer", "producer", MAPPED[: len(parameters)]))
        assert await call.ask(update(1, *updated)) == media.Produced()
        call.objects.order(Close("sending", 1, "transport"))
        await nothing_left(call)
    assert not [line for line in lines if line["log_level"] in ("warning", "error")]


async def test_a_close_during_an_update_leaves_nothing(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED[:1]))
    updating = call.ask(update(1, *video(21)))
    call.objects.order(Close("producer", 1, "producer"))
    assert isinstance(await updating, Failed)
    await nothing_left(call)
    assert (await call.dump("transport", "sending"))["producer_ids"] == []


@pytest.mark.parametrize(("profile", "layer"), [("low", 0), ("default", 2)])
async def test_simulcast_goes_on_in_the_same_profile(call: Call, profile: Any, layer: int) -> None:
    call.simulcast = True
    await call.ask(produce(*CHROME, updatable=True))
    await call.ask(consume("consumer", "producer", MAPPED, preferred_profile=profile))
    call.sender.send(11, 21, 31, first=1)
    await call.received_from((11, 21, 31)[layer])
    updated = [encoding for ssrc in (41, 51, 61) for encoding in video(ssrc)]
    call.sender.send(41, 51, 61, first=1)
    assert await call.ask(update(1, *updated)) == media.Produced()
    await call.received_from((41, 51, 61)[layer])
    call.objects.order(media.SetPreferredProfile("consumer", 1, "medium"))
    await call.received_from(51)


async def nothing_left(call: Call) -> None:
    for end in ("router.entrance", "router.exit"):
        dump = await call.dump("transport", end)
        assert (dump["producer_ids"], dump["consumer_ids"]) == ([], [])
    assert (await call.dump("transport", "receiving"))["consumer_ids"] == []


async def test_a_producer_that_is_refused_leaves_nothing(call: Call) -> None:
    other = msgspec.structs.replace(produce(*video(11)), producer="other", mapped_ssrcs=[9009])
    await call.ask(other)
    refused = await call.ask(produce(*video(11), updatable=True))
    assert isinstance(refused, Failed)
    assert refused.code == 409
    await nothing_left(call)
    assert await call.ask(produce(*video(21), updatable=True)) == media.Produced()


async def test_a_producer_without_ports_for_its_loopback_is_refused() -> None:
    call = Call(MediasoupEngine(settings(rtc_min_port=29_100, rtc_max_port=29_103)), ObjectRegistry())
    await call.start()  # leaves one of four
    refused = await call.ask(produce(*video(11), updatable=True))
    assert isinstance(refused, Failed)
    assert (await call.dump("transport", "sending"))["producer_ids"] == []
    assert len((await call.dump("router", "router"))["transport_ids"]) == 2
    call.objects.order(Close("receiving", 1, "transport"))
    assert await call.ask(produce(*video(11), updatable=True)) == media.Produced()
    await call.close()


async def test_closing_the_router_closes_its_loopback(call: Call) -> None:
    await call.ask(produce(*video(11), updatable=True))
    call.objects.order(Close("router", 1, "router"))
    assert (await call.dump("worker", ""))["router_ids"] == []
