"""The engine's statistics in protocol v2's form (§transportStats, §producerStats, §consumerStats).

The fields are those that the worker of mediasoup 2.6.19 reports, and no others: clients were written for these.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET

from medianode.engines.mediasoup.channel import ChannelError
from medianode.engines.mediasoup.translation import Dict, stream_name
from shared.protocol import media
from shared.protocol.rtp import Encoding

_STREAM: Final = {
    "timestamp": "timestamp",
    "ssrc": "ssrc",
    "rtx_ssrc": "rtxSsrc",
    "mime_type": "mimeType",
    "packet_count": "packetCount",
    "byte_count": "byteCount",
    "bitrate": "bitrate",
    "packets_lost": "packetsLost",
    "fraction_lost": "fractionLost",
    "packets_discarded": "packetsDiscarded",
    "packets_repaired": "packetsRepaired",
    "fir_count": "firCount",
    "pli_count": "pliCount",
    "nack_count": "nackCount",
}
_TYPES: Final = {"RecvStats": "inbound-rtp", "SendStats": "outbound-rtp"}


def convert(request: media.GetStats, answer: Dict) -> media.Stats:
    """Converts the engine's answer for a transport or producer."""
    if request.kind == "transport":
        return media.Stats([_transport(request, answer)])
    return media.Stats([_on_transport(request, _stream(request, entry)) for entry in streams(answer)])


def streams(answer: Dict) -> list[Dict]:
    """Returns the statistics of a producer's or consumer's streams, without the engine's nesting.

    Each has `type`, "inbound-rtp" or "outbound-rtp", and the fields of the tables `BaseStats` and `RecvStats` or
    `SendStats`. Raises `ChannelError` if the engine nested its tables in another way.
    """
    return [_flat(entry) for entry in answer["stats"]]


def _flat(entry: Dict) -> Dict:
    match entry:
        case {"data": ("RecvStats" | "SendStats" as kind, {"base": {"data": ("BaseStats", base)}} as own)}:
            return {"type": _TYPES[kind], **base, **own}
        case _:
            raise ChannelError(f"no statistics of a stream: {entry}")


def convert_consumer(request: media.GetStats, entries: Sequence[Dict]) -> media.Stats:
    """Converts a consumer's streams. v2 lists the inbound stream before the outbound one, the engine after it."""
    inbound = [_stream(request, entry) for entry in entries if entry["type"] == "inbound-rtp"]
    outbound = [
        _on_transport(request, _stream(request, entry)) for entry in entries if entry["type"] == "outbound-rtp"
    ]
    if inbound:
        outbound = [{**entry, "inboundRtpId": inbound[0]["id"]} for entry in outbound]
    return media.Stats(inbound + outbound)


def inbound_ssrc(entries: Sequence[Dict]) -> int | None:
    """Returns the SSRC of the stream that a consumer receives, or None, from the consumer's streams."""
    return next((entry["ssrc"] for entry in entries if entry["type"] == "inbound-rtp"), None)


def stream_of_encoding(entries: Sequence[Dict], encoding: Encoding) -> Dict | None:
    """Returns the stream of a producer that is this encoding's, or None before its first packet."""
    name, value = stream_name(encoding)
    return next((entry for entry in entries if entry.get(name) == value), None)


def with_inbound(entries: Sequence[Dict], inbound: Dict | None) -> list[Dict]:
    """Replaces the inbound stream among a consumer's streams by `inbound`, or removes it."""
    return [entry for entry in entries if entry["type"] != "inbound-rtp"] + ([inbound] if inbound else [])


def _transport(request: media.GetStats, answer: Dict) -> Dict:
    base = answer["base"]
    result = {
        "type": "transport",
        "timestamp": base["timestamp"],
        "id": request.id,
        "bytesReceived": base["bytes_received"],
        "bytesSent": base["bytes_sent"],
        "iceConnectionState": answer["ice_state"].lower(),
        "dtlsState": answer["dtls_state"].lower(),
        # The engine does not say to which SSRCs its estimates apply.
        "localAvailableSendBw": {
            "maxBitrate": base.get("max_incoming_bitrate", 0),
            "bitrate": base.get("available_incoming_bitrate", 0),
            "ssrcs": [],
        },
        "remoteAvailableSendBw": {"bitrate": base.get("available_outgoing_bitrate", 0), "ssrcs": []},
    }
    if selected := answer.get("ice_selected_tuple"):
        result["iceSelectedTuple"] = {
            "localIP": selected["local_address"],
            "localPort": selected["local_port"],
            "remoteIP": selected["remote_ip"],
            "remotePort": selected["remote_port"],
            "protocol": selected["protocol"].lower(),
        }
    return result


def _stream(request: media.GetStats, entry: Dict) -> Dict:
    """Converts one RTP stream. Its `id` is unique among the object's streams and the same in every report."""
    kind = entry["kind"].lower()
    result: Dict = {"type": entry["type"]} | {v2: entry[name] for name, v2 in _STREAM.items() if name in entry}
    result |= {"id": f"{request.kind}-{request.id}-{entry['type']}-{entry['ssrc']}", "kind": kind, "mediaType": kind}
    result["sliCount"] = 0  # the engine does not support slice loss indications
    if entry["type"] == "inbound-rtp":
        result["jitter"] = entry["jitter"]
    else:
        result["roundTripTime"] = int(entry["round_trip_time"])
    return result


def _on_transport(request: media.GetStats, stream: Dict) -> Dict:
    return stream if request.transport_id is UNSET else {**stream, "transportId": request.transport_id}
