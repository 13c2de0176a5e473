"""The engine's parameters for the parts of an updatable producer, and of the relay between them: pure functions.

`medianode.engines.mediasoup.updatable_producer` explains the parts.
"""

from collections.abc import Sequence
from struct import pack
from typing import Any, Final

import msgspec
from msgspec import UNSET

from medianode.engines.mediasoup import translation
from medianode.engines.mediasoup.translation import HIGHEST_LAYER, SIMULCAST_STREAM, Dict
from shared.protocol import media
from shared.protocol.rtp import RtpParameters

_SWITCHABLE = frozenset({"vp8", "h264"})
"""Codecs between whose streams the engine can switch."""
# A loopback loses no packets, so nothing is retransmitted: the only feedback is a request for a key frame.
_FEEDBACK = frozenset({("nack", "pli"), ("ccm", "fir")})
# Header extensions that the engine passes on unchanged, with the ids that it gives them in every producer.
_EXTENSIONS: Final = {
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": 10,
    "urn:3gpp:video-orientation": 11,
    "urn:ietf:params:rtp-hdrext:toffset": 12,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": 13,
}


def can_switch(request: media.Produce) -> bool:
    """Whether the engine can switch between streams of this producer's codec."""
    return request.rtp_parameters.codecs[0].name.lower() in _SWITCHABLE


def packet_ids(parameters: RtpParameters) -> frozenset[int | str]:
    """Returns the SSRCs and encoding ids by which the engine recognizes packets, each unique within a transport."""
    found: set[Any] = set()
    for encoding in parameters.encodings:
        found |= {encoding.ssrc, encoding.encoding_id, encoding.rtx.ssrc if encoding.rtx else None}
    return frozenset(found - {UNSET, None})


def without_mux_id(parameters: RtpParameters) -> RtpParameters:
    """Removes the muxId. The engine accepts each once per transport, and rooms offer no extension to carry it."""
    return msgspec.structs.replace(parameters, mux_id=UNSET)


def pipe_consumer(request: media.Produce, ingest: str, ssrcs: Sequence[int]) -> Dict:
    """Returns the consumer that takes all streams, with these SSRCs, of an ingest producer unchanged."""
    simulcast = {"scalabilityMode": SIMULCAST_STREAM} if len(ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in ssrcs]
    return _consumer(request, f"{ingest}.pipe", ingest, "pipe", encodings, encodings)


def public_producer(request: media.Produce) -> Dict:
    """Returns the producer that consumers know."""
    simulcast = {"scalabilityMode": SIMULCAST_STREAM} if len(request.mapped_ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in request.mapped_ssrcs]
    return {**_producer(request, request.producer, encodings), "paused": request.paused}


def switch_producer(request: media.Produce, name: str, ssrcs: Sequence[int]) -> Dict:
    """Returns the producer that has a stream for every ingest producer to come."""
    # With `dtx` the engine considers a stream dead after 5 s without a packet instead of 1.5 s.
    return _producer(request, name, [{**encoding, "dtx": True} for encoding in _layers(ssrcs)])


def switch_consumer(request: media.Produce, name: str, ssrcs: Sequence[int], mapped_ssrc: int) -> Dict:
    """Returns the consumer that makes one stream of a switch producer's: the engine takes the highest layer."""
    encodings = [{"ssrc": mapped_ssrc, "scalabilityMode": translation.simulcast_consumer(len(ssrcs))}]
    data = _consumer(request, f"{name}.consumer", name, "simulcast", encodings, _layers(ssrcs))
    return {**data, "preferredLayers": {"spatialLayer": len(ssrcs) - 1, "temporalLayer": HIGHEST_LAYER}}


def first_packets(request: media.Produce) -> list[bytes]:
    """Returns an empty RTP packet numbered 0 for each stream of a pipe, whose first real packet has number 1."""
    payload_type = _rtp_parameters(request, [])["codecs"][0]["payloadType"]
    return [pack("!BBHII", 0x80, payload_type, 0, 0, ssrc) for ssrc in request.mapped_ssrcs]


def _layers(ssrcs: Sequence[int]) -> list[Dict]:
    return [{"ssrc": ssrc, "scalabilityMode": SIMULCAST_STREAM} for ssrc in ssrcs]


def _producer(request: media.Produce, name: str, encodings: list[Dict]) -> Dict:
    parameters = _rtp_parameters(request, encodings)
    types = [codec["payloadType"] for codec in parameters["codecs"]]
    return {
        "producerId": name,
        "kind": request.kind,
        "rtpParameters": parameters,
        "rtpMapping": {
            "codecs": [{"payloadType": t, "mappedPayloadType": t} for t in types],
            "encodings": [{**encoding, "mappedSsrc": encoding["ssrc"]} for encoding in encodings],
        },
        "paused": False,
    }


def _consumer(
    request: media.Produce, name: str, producer: str, type_: str, encodings: list[Dict], consumable: list[Dict]
) -> Dict:
    return {
        "consumerId": name,
        "producerId": producer,
        "kind": request.kind,
        "type": type_,
        "rtpParameters": _rtp_parameters(request, encodings),
        "consumableRtpEncodings": consumable,
        "paused": False,
        "ignoreDtx": False,
    }


def _rtp_parameters(request: media.Produce, encodings: list[Dict]) -> Dict:
    """Returns the parameters with the room's payload types and the engine's own ids of header extensions."""
    parameters = request.rtp_parameters
    types = {p.payload_type: p.mapped_payload_type for p in request.payload_types}
    codecs = [
        {**translation.codec_to_engine(codec, request.kind), "payloadType": types[codec.payload_type]}
        for codec in parameters.codecs
        if codec.payload_type in types and not codec.is_rtx
    ]
    if not codecs:
        raise ValueError("codecs: none that the room knows")
    for codec in codecs:
        codec["rtcpFeedback"] = [f for f in codec["rtcpFeedback"] if (f["type"], f["parameter"]) in _FEEDBACK]
    return {
        "codecs": codecs,
        "headerExtensions": [
            {"uri": e.uri, "id": _EXTENSIONS[e.uri], "encrypt": False, "parameters": {}}
            for e in parameters.header_extensions
            if e.uri in _EXTENSIONS
        ],
        "encodings": encodings,
        "rtcp": translation.present(cname=parameters.rtcp.cname, reducedSize=True),
    }
