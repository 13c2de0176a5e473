"""Measures the FlatBuffers codec with the engine's messages that matter, beside Google's runtime if that is there.

    python -m benchmarks.flatbuffers SCHEMAS [--json FILE]

SCHEMAS is the folder with the engine's `.fbs` files. A figure is the least of many repetitions, because others use
the machine, too. Google's runtime needs `flatc`; it gets and returns generated objects, whose conversion from and to
dicts is not measured.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from timeit import Timer
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from devtools.google_flatbuffers import GoogleRuntime, google_runtime
from devtools.starting import Unavailable
from medianode.engines.mediasoup.flatbuffers_codec import Schema, load_schema

console = Console()

MESSAGE: Final = "FBS.Message.Message"
HANDLER: Final = "6a41ae2b-2c2b-4b0c-8a54-4b0e6c3f0b1d"
TARGET: Final = "0b6c9a50-16d4-4c2b-bd7c-1f6df3f2a7f0"


def request(method: str, body: tuple[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"data": ("Request", {"id": 17, "method": method, "handler_id": HANDLER, "body": body})}


def response(body: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"data": ("Response", {"id": 17, "accepted": True, "body": (body, value)})}


FEEDBACK: Final = [
    {"type": "transport-cc", "parameter": ""},
    {"type": "ccm", "parameter": "fir"},
    {"type": "nack", "parameter": ""},
    {"type": "nack", "parameter": "pli"},
]
RTP: Final = {
    "mid": "7",
    "codecs": [
        {
            "mime_type": "video/VP8",
            "payload_type": 101,
            "clock_rate": 90000,
            "parameters": [],
            "rtcp_feedback": FEEDBACK,
        },
        {
            "mime_type": "video/rtx",
            "payload_type": 102,
            "clock_rate": 90000,
            "parameters": [{"name": "apt", "value": ("Integer32", {"value": 101})}],
            "rtcp_feedback": [],
        },
    ],
    "header_extensions": [
        {"uri": uri, "id": number, "encrypt": False, "parameters": []}
        for uri, number in (("AbsSendTime", 4), ("TransportWideCcDraft01", 5), ("VideoOrientation", 8))
    ],
    "encodings": [{"ssrc": 123456789, "rtx": {"ssrc": 123456790}}],
    "rtcp": {"cname": "3yPBGBgAKvc0gGCK", "reduced_size": True},
}
MAPPING: Final = {
    "codecs": [
        {"payload_type": 96, "mapped_payload_type": 101},
        {"payload_type": 97, "mapped_payload_type": 102},
    ],
    "encodings": [{"ssrc": 123456789, "mapped_ssrc": 222222222}],
}
OPTIONS: Final = {
    "initial_available_outgoing_bitrate": 600_000,
    "max_send_message_size": 262_144,
    "max_receive_message_size": 262_144,
    "sctp_send_buffer_size": 262_144,
    "sctp_per_stream_send_queue_limit": 2_000_000,
    "sctp_max_receiver_window_buffer_size": 5_242_880,
}
TRANSPORT_STATS: Final = {
    "transport_id": HANDLER,
    "timestamp": 1_795_000_000_000,
    **{
        f"{kind}_{direction}": 1_000_000
        for kind in ("bytes", "rtp_bytes", "rtx_bytes")
        for direction in ("received", "sent")
    },
    "recv_bitrate": 1_000_000,
    "send_bitrate": 1_000_000,
    "available_outgoing_bitrate": 600_000,
    "rtp_packet_loss_received": 0.01,
}
BASE_STATS: Final = {
    "timestamp": 1_795_000_000_000,
    "ssrc": 123456789,
    "kind": "VIDEO",
    "mime_type": "video/VP8",
    "packets_lost": 3,
    "jitter": 5,
    "nack_count": 7,
    "pli_count": 1,
    "rid": "r0",
    "rtx_ssrc": 123456790,
    "round_trip_time": 12.5,
    "score": 10,
}
RECEIVED_STATS: Final = {
    "base": {"data": ("BaseStats", BASE_STATS)},
    "packet_count": 1000,
    "byte_count": 1_000_000,
    "bitrate": 500_000,
    "bitrate_by_layer": [{"layer": "0.0", "bitrate": 200_000}, {"layer": "0.1", "bitrate": 300_000}],
}
LAYERS: Final = {"layers": {"spatial_layer": 2, "temporal_layer": 1}}
SCORE: Final = {"score": 10, "producer_score": 10, "producer_scores": bytes([10])}

ENCODED: Final = {
    "create transport": request(
        "ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER",
        (
            "Router_CreateWebRtcTransportRequest",
            {
                "transport_id": TARGET,
                "options": {"base": OPTIONS, "listen": ("ListenServer", {"web_rtc_server_id": "server"})},
            },
        ),
    ),
    "produce": request(
        "TRANSPORT_PRODUCE",
        (
            "Transport_ProduceRequest",
            {"producer_id": TARGET, "kind": "VIDEO", "rtp_parameters": RTP, "rtp_mapping": MAPPING},
        ),
    ),
    "consume": request(
        "TRANSPORT_CONSUME",
        (
            "Transport_ConsumeRequest",
            {
                "consumer_id": TARGET,
                "producer_id": HANDLER,
                "kind": "VIDEO",
                "rtp_parameters": RTP,
                "type": "SIMPLE",
                "consumable_rtp_encodings": [{"ssrc": 222222222}],
                "paused": True,
            },
        ),
    ),
    "pause": request("CONSUMER_PAUSE"),
}
DECODED: Final = {
    "consume response": response(
        "Transport_ConsumeResponse", {"paused": True, "score": SCORE, "preferred_layers": LAYERS["layers"]}
    ),
    "transport stats": response(
        "WebRtcTransport_GetStatsResponse", {"base": TRANSPORT_STATS, "ice_state": "COMPLETED"}
    ),
    "producer stats": response("Producer_GetStatsResponse", {"stats": [{"data": ("RecvStats", RECEIVED_STATS)}]}),
    "layers change": {
        "data": (
            "Notification",
            {
                "handler_id": TARGET,
                "event": "CONSUMER_LAYERS_CHANGE",
                "body": ("Consumer_LayersChangeNotification", LAYERS),
            },
        )
    },
}


def microseconds(action: Callable[[], object], repetitions: int) -> float:
    """Returns the least time of an action; each repetition lasts about a millisecond."""
    timer = Timer(action)
    calls = max(1, int(0.001 / max(timer.timeit(10) / 10, 1e-7)))
    return 1e6 * min(timer.repeat(repetitions, calls)) / calls


def actions(schema: Schema, google: GoogleRuntime | None) -> Iterator[tuple[str, int, Callable[[], object], Any]]:
    """Yields for each message its name and size, what the codec does, and what Google's runtime does instead."""
    root = schema.tables[MESSAGE]
    for name, value in ENCODED.items():
        theirs = google and partial(google.write, google.object_of(root, value))
        yield f"encode {name}", len(schema.encode(MESSAGE, value)), partial(schema.encode, MESSAGE, value), theirs
    for name, value in DECODED.items():
        # The engine writes with Google's runtime.
        frame = google.write(google.object_of(root, value)) if google else schema.encode(MESSAGE, value)
        theirs = google and partial(google.read, root, frame[4:])
        yield f"decode {name}", len(frame), partial(schema.decode, MESSAGE, frame[4:]), theirs


def measure(schema: Schema, google: GoogleRuntime | None, repetitions: int) -> list[dict[str, Any]]:
    """Returns for each message its size in bytes, and the microseconds of the codec and of Google's runtime."""
    return [
        {
            "message": name,
            "bytes": size,
            "codec_us": microseconds(ours, repetitions),
            "google_us": theirs and microseconds(theirs, repetitions),
        }
        for name, size, ours, theirs in actions(schema, google)
    ]


def show(figures: list[dict[str, Any]]) -> None:
    table = Table(title="FlatBuffers, microseconds", title_justify="left")
    for heading in ("", "bytes", "codec", "Google's runtime", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in figures:
        ours, theirs = row["codec_us"], row["google_us"]
        google = [f"{theirs:.1f}", f"{ours / theirs:.3f}"] if theirs else ["", ""]
        table.add_row(row["message"], str(row["bytes"]), f"{ours:.2f}", *google)
    console.print(table)


def main(
    schemas: Annotated[
        Path, typer.Argument(help="The folder of the engine's schemas.", exists=True, file_okay=False)
    ],
    repetitions: Annotated[int, typer.Option(help="Repetitions of a millisecond for each figure.", min=1)] = 200,
    json_file: Annotated[str, typer.Option("--json", help="Write the figures there, too.")] = "",
) -> None:
    """Measures how long messages of the engine take to encode and decode."""
    with ExitStack() as stack:
        google = None
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            google = stack.enter_context(google_runtime(schemas, folder))
        except Unavailable as reason:
            console.print(f"without Google's runtime: {reason}")
        figures = measure(load_schema(schemas), google, repetitions)
    show(figures)
    if json_file:
        Path(json_file).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
