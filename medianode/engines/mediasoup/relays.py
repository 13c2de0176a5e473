"""The parts of an updatable producer in the engine's terms: pure functions.

See `medianode.engines.mediasoup.updatable`.
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

# The engine switches between streams of these only.
_STITCHABLE = frozenset({"vp8", "h264"})
# A loopback loses nothing: no retransmission, only key frames are asked for.
_FEEDBACK = frozenset({("nack", "pli"), ("ccm", "fir")})
# What the engine does not write anew by itself, with the ids that it gives to all that passes a producer.
_EXTENSIONS: Final = {
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": 10,
    "urn:3gpp:video-orientation": 11,
    "urn:ietf:params:rtp-hdrext:toffset": 12,
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time": 13,
}


def stitchable(request: media.Produce) -> bool:
    return request.rtp_parameters.codecs[0].name.lower() in _STITCHABLE


def names(parameters: RtpParameters) -> frozenset[int | str]:
    """The SSRCs and encoding ids by which the engine recognizes packets; unique among a transport's producers."""
    found: set[Any] = set()
    for encoding in parameters.encodings:
        found |= {encoding.ssrc, encoding.encoding_id, encoding.rtx.ssrc if encoding.rtx else None}
    return frozenset(found - {UNSET, None})


def unnamed(parameters: RtpParameters) -> RtpParameters:
    """Without the muxId, which the engine takes once a transport, too, and which no room lets packets carry."""
    return msgspec.structs.replace(parameters, mux_id=UNSET)


def pipe(request: media.Produce, inner: str, ssrcs: Sequence[int]) -> Dict:
    """A consumer that takes all streams of the producer `inner`, which has these mapped SSRCs, as they are."""
    simulcast = {"scalabilityMode": SIMULCAST_STREAM} if len(ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in ssrcs]
    return _consumer(request, f"{inner}.pipe", inner, "pipe", encodings, encodings)


def outer(request: media.Produce) -> Dict:
    """The producer that consumers know."""
    simulcast = {"scalabilityMode": SIMULCAST_STREAM} if len(request.mapped_ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in request.mapped_ssrcs]
    return {**_producer(request, request.producer, encodings), "paused": request.paused}


def seam(request: media.Produce, name: str, ssrcs: Sequence[int]) -> Dict:
    """A producer with a stream for each time that the client changes its SSRCs."""
    # With `dtx` the engine thinks a stream dead after 5 s without a packet, rather than 1.5.
    return _producer(request, name, [{**encoding, "dtx": True} for encoding in _layers(ssrcs)])


def stitch(request: media.Produce, name: str, ssrcs: Sequence[int], mapped_ssrc: int) -> Dict:
    """The consumer that makes one stream of those: to the engine they are layers, of which it takes the highest."""
    encodings = [{"ssrc": mapped_ssrc, "scalabilityMode": translation.simulcast_consumer(len(ssrcs))}]
    data = _consumer(request, f"{name}.stitch", name, "simulcast", encodings, _layers(ssrcs))
    return {**data, "preferredLayers": {"spatialLayer": len(ssrcs) - 1, "temporalLayer": HIGHEST_LAYER}}


def first_packets(request: media.Produce) -> list[bytes]:
    """An empty RTP packet numbered 0 for each stream that comes out of a pipe, whose first real one is 1."""
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
    """As the room knows them: its payload types, the engine's own ids of header extensions."""
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
