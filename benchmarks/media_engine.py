"""Measures what setting up calls of four costs a media node and its engine, without a client.

    python -m benchmarks.media_engine [--calls 200] [--json]

A call: 4 peers with a sending and a receiving transport each, a microphone and a camera (VP8 simulcast of three
layers) from everybody to everybody: 8 transports, 8 producers, 24 consumers; then it is closed. Only the requests and
orders themselves are measured: translating, encoding, the engine, decoding. Two versions are compared by running them
in turn, several times.
"""

import asyncio
import json
import os
import time
from statistics import median
from typing import Annotated, Any, Final

import msgspec
import typer

from medianode.engines.mediasoup.engine import MediasoupEngine
from medianode.metrics import process
from medianode.node import engine_factory
from shared.protocol import media
from shared.protocol.media import RouterRef
from shared.protocol.rtp import DtlsParameters, Fingerprint, PayloadTypeMapping, RtpParameters
from shared.settings import NodeSettings

PEERS: Final = 4
CALLS_PER_SLICE: Final = 20
REMOTE: Final = DtlsParameters([Fingerprint("sha-256", ":".join(["AB"] * 32))], "client")
SEND_TIME: Final = {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 4}
FEEDBACK: Final = [{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "ccm", "parameter": "fir"}]


def video(payload_type: int, encodings: list[dict[str, Any]]) -> RtpParameters:
    vp8 = {"name": "VP8", "mimeType": "video/VP8", "payloadType": payload_type, "clockRate": 90000}
    rtx = {"name": "rtx", "mimeType": "video/rtx", "payloadType": payload_type + 1, "clockRate": 90000}
    codecs = [{**vp8, "rtcpFeedback": FEEDBACK}, {**rtx, "parameters": {"apt": payload_type}}]
    return msgspec.convert(
        {"codecs": codecs, "headerExtensions": [SEND_TIME], "encodings": encodings, "rtcp": {"cname": "c"}},
        RtpParameters,
    )


def audio(payload_type: int, ssrc: int) -> RtpParameters:
    opus = {"name": "opus", "mimeType": "audio/opus", "payloadType": payload_type, "clockRate": 48000, "channels": 2}
    codecs = [{**opus, "parameters": {"minptime": 10, "useinbandfec": 1}}]
    data = {"codecs": codecs, "headerExtensions": [SEND_TIME], "encodings": [{"ssrc": ssrc}], "rtcp": {"cname": "c"}}
    return msgspec.convert(data, RtpParameters)


AUDIO_TYPES: Final = [PayloadTypeMapping(111, 100)]
VIDEO_TYPES: Final = [PayloadTypeMapping(96, 101), PayloadTypeMapping(97, 102)]


def call_of_four(router: RouterRef) -> list[media.AnyRequest]:
    """Returns the requests that set a call up, in their order."""
    name = router.id
    requests: list[media.AnyRequest] = []
    for peer in range(PEERS):
        requests += [
            media.CreateTransport(router, f"{name}.send{peer}", dtls_parameters=REMOTE),
            media.CreateTransport(router, f"{name}.recv{peer}"),
            media.ConnectTransport(router, f"{name}.recv{peer}", REMOTE),
        ]
    for peer in range(PEERS):
        send, first = f"{name}.send{peer}", 1000 * (peer + 1)
        layers = [{"ssrc": first + n, "rtx": {"ssrc": first + 10 + n}} for n in range(3)]
        mapped = [first + 100 + n for n in range(3)]
        requests += [
            media.Produce(router, send, f"{send}.audio", "audio", audio(111, first + 50), AUDIO_TYPES, [first + 150]),
            media.Produce(router, send, f"{send}.video", "video", video(96, layers), VIDEO_TYPES, mapped),
        ]
        for other in range(PEERS):
            if other != peer:
                recv, ssrc = f"{name}.recv{other}", 100_000 * (other + 1) + first
                told = video(101, [{"ssrc": ssrc, "rtx": {"ssrc": ssrc + 1}}])
                for kind, parameters, ssrcs in (
                    ("audio", audio(100, ssrc + 2), [first + 150]),
                    ("video", told, mapped),
                ):
                    consumer, producer = f"{recv}.{kind}{peer}", f"{send}.{kind}"
                    requests.append(
                        media.Consume(router, recv, consumer, producer, kind, parameters, ssrcs)  # type: ignore[arg-type]
                    )
    return requests


async def set_up(engine: MediasoupEngine, number: int) -> None:
    """Sets one call up and closes it. Raises `RuntimeError` if the engine refuses a request."""
    router = RouterRef(f"router{number}", 0, "room", "i", 1)
    engine.create_router(router.id)
    requests = call_of_four(router)
    left = len(requests)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(result: media.AnyResult) -> None:
        nonlocal left
        left -= 1
        if isinstance(result, media.Failed) and not done.done():
            done.set_exception(RuntimeError(result.reason))
        elif not left and not done.done():
            done.set_result(None)

    for request in requests:
        engine.request(request, answered)
    await done
    engine.order(media.Close(router.id, 1, "router"), "")


def cpu(pid: int) -> float:
    used = process(pid)
    assert used is not None
    return used.cpu


async def measure(calls: int) -> dict[str, float]:
    """Returns CPU milliseconds per call: the node's (median of slices) and the engine's (of all)."""
    settings = NodeSettings(engine_path=os.environ.get("PLENARY_MEDIASOUP_WORKER", ""), announced_ip="127.0.0.1")
    engine = (await engine_factory(settings))(0)
    assert isinstance(engine, MediasoupEngine)
    await engine.start(lambda _: None, lambda reason: typer.echo(f"the engine has died: {reason}"))
    try:
        for number in range(CALLS_PER_SLICE):  # what is made once
            await set_up(engine, number)
        slices, engine_before = [], cpu(engine.pid)
        for first in range(CALLS_PER_SLICE, CALLS_PER_SLICE + calls, CALLS_PER_SLICE):
            before = time.process_time()
            for number in range(first, first + CALLS_PER_SLICE):
                await set_up(engine, number)
            slices.append((time.process_time() - before) / CALLS_PER_SLICE)
        return {
            "node_ms": 1000 * median(slices),
            "engine_ms": 1000 * (cpu(engine.pid) - engine_before) / calls,
            "requests": len(call_of_four(RouterRef("r", 0, "room", "i", 1))),
        }
    finally:
        await engine.close()


def main(
    calls: Annotated[int, typer.Option(help="Calls to set up, besides those that are not counted.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON.")] = False,
) -> None:
    """Measures the CPU that setting up calls of four takes."""
    found = asyncio.run(measure(max(CALLS_PER_SLICE, calls)))
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for name, value in found.items():
            typer.echo(f"{name:10} {value:.2f}")


if __name__ == "__main__":
    typer.run(main)
