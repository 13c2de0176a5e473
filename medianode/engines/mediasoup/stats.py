"""The engine's statistics in protocol v2's form (§transportStats, §producerStats, §consumerStats).

The fields are those that the worker of mediasoup 2.6.19 reports, and no others: clients were written for these.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from msgspec import UNSET

from shared.protocol import media
from shared.protocol.rtp import Encoding

Dict: TypeAlias = dict[str, Any]

_STREAM: Final = (
    "type",
    "timestamp",
    "ssrc",
    "rtxSsrc",
    "mimeType",
    "packetCount",
    "byteCount",
    "bitrate",
    "packetsLost",
    "fractionLost",
    "packetsDiscarded",
    "packetsRepaired",
    "firCount",
    "pliCount",
    "nackCount",
)
_TUPLE: Final = {
    "localIp": "localIP",
    "localPort": "localPort",
    "remoteIp": "remoteIP",
    "remotePort": "remotePort",
    "protocol": "protocol",
}


def convert(request: media.GetStats, answer: Sequence[Dict]) -> media.Stats:
    """Converts the engine's answer for a transport, producer or consumer."""
    match request.kind:
        case "transport":
            return media.Stats([_transport(request, entry) for entry in answer])
        case "producer":
            return media.Stats([_on_transport(request, _stream(request, entry)) for entry in answer])
        case "consumer":
            return media.Stats(_consumer(request, answer))


def inbound_ssrc(answer: Sequence[Dict]) -> int | None:
    """Returns the SSRC of the stream that a consumer receives, or None, from the consumer's statistics."""
    return next((entry["ssrc"] for entry in answer if entry["type"] == "inbound-rtp"), None)


def stream_of_encoding(answer: Sequence[Dict], encoding: Encoding) -> Dict | None:
    """Returns a producer's statistics of one stream, or None before its first packet."""
    name, value = ("rid", encoding.encoding_id) if encoding.encoding_id else ("ssrc", encoding.ssrc)
    return next((entry for entry in answer if entry.get(name) == value), None)


def with_inbound(answer: Sequence[Dict], inbound: Dict | None) -> list[Dict]:
    """Replaces the inbound stream in a consumer's statistics by `inbound`, or removes it."""
    return [entry for entry in answer if entry["type"] != "inbound-rtp"] + ([inbound] if inbound else [])


def _transport(request: media.GetStats, entry: Dict) -> Dict:
    result = {
        "type": "transport",
        "timestamp": entry["timestamp"],
        "id": request.id,
        "bytesReceived": entry["bytesReceived"],
        "bytesSent": entry["bytesSent"],
        "iceConnectionState": entry["iceState"],
        "dtlsState": entry["dtlsState"],
        # The engine does not say to which SSRCs its estimates apply.
        "localAvailableSendBw": {
            "maxBitrate": entry.get("maxIncomingBitrate", 0),
            "bitrate": entry.get("availableIncomingBitrate", 0),
            "ssrcs": [],
        },
        "remoteAvailableSendBw": {"bitrate": entry.get("availableOutgoingBitrate", 0), "ssrcs": []},
    }
    if selected := entry.get("iceSelectedTuple"):
        result["iceSelectedTuple"] = {_TUPLE[key]: value for key, value in selected.items() if key in _TUPLE}
    return result


def _stream(request: media.GetStats, entry: Dict) -> Dict:
    """Converts one RTP stream. Its `id` is unique among the object's streams and the same in every report."""
    kind = entry["kind"]
    result: Dict = {name: entry[name] for name in _STREAM if name in entry}
    result |= {"id": f"{request.kind}-{request.id}-{entry['type']}-{entry['ssrc']}", "kind": kind, "mediaType": kind}
    result["sliCount"] = 0  # the engine does not support slice loss indications
    if entry["type"] == "inbound-rtp":
        result["jitter"] = entry["jitter"]
    else:
        result["roundTripTime"] = int(entry.get("roundTripTime", 0))
    return result


def _on_transport(request: media.GetStats, stream: Dict) -> Dict:
    return stream if request.transport_id is UNSET else {**stream, "transportId": request.transport_id}


def _consumer(request: media.GetStats, answer: Sequence[Dict]) -> list[Dict]:
    """Converts a consumer's streams. v2 lists the inbound stream before the outbound one, the engine after it."""
    inbound = [_stream(request, entry) for entry in answer if entry["type"] == "inbound-rtp"]
    outbound = [
        _on_transport(request, _stream(request, entry)) for entry in answer if entry["type"] == "outbound-rtp"
    ]
    if inbound:
        outbound = [{**entry, "inboundRtpId": inbound[0]["id"]} for entry in outbound]
    return inbound + outbound
