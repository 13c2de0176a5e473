"""The engine's parameters for the parts of an updatable producer, and of the relay between them: pure functions.

`medianode.engines.mediasoup.updatable_producer` explains the parts.
"""

from collections.abc import Sequence
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
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": ("SsrcAudioLevel", 6),
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": (
        "DependencyDescriptor",
        7,
    ),
    "urn:3gpp:video-orientation": ("VideoOrientation", 8),
    "urn:ietf:params:rtp-hdrext:toffset": ("TimeOffset", 9),
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
    simulcast = {"scalability_mode": SIMULCAST_STREAM} if len(ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in ssrcs]
    return _consumer(request, f"{ingest}.pipe", ingest, "PIPE", encodings, encodings)


def public_producer(request: media.Produce) -> Dict:
    """Returns the producer that consumers know."""
    simulcast = {"scalability_mode": SIMULCAST_STREAM} if len(request.mapped_ssrcs) > 1 else {}
    encodings = [{"ssrc": ssrc, **simulcast} for ssrc in request.mapped_ssrcs]
    return {**_producer(request, request.producer, encodings), "paused": request.paused}


def switch_producer(request: media.Produce, name: str, ssrcs: Sequence[int]) -> Dict:
    """Returns the producer that has a stream for every ingest producer to come."""
    # With `dtx` the engine considers a stream dead after 5 s without a packet instead of 1.5 s.
    return _producer(request, name, [{**encoding, "dtx": True} for encoding in _layers(ssrcs)])


def switch_consumer(request: media.Produce, name: str, ssrcs: Sequence[int], mapped_ssrc: int) -> Dict:
    """Returns the consumer that makes one stream of a switch producer's: the engine takes the highest layer."""
    encodings = [{"ssrc": mapped_ssrc, "scalability_mode": translation.simulcast_consumer(len(ssrcs))}]
    data = _consumer(request, f"{name}.consumer", name, "SIMULCAST", encodings, _layers(ssrcs))
    return {**data, "preferred_layers": {"spatial_layer": len(ssrcs) - 1, "temporal_layer": HIGHEST_LAYER}}


def _layers(ssrcs: Sequence[int]) -> list[Dict]:
    return [{"ssrc": ssrc, "scalability_mode": SIMULCAST_STREAM} for ssrc in ssrcs]


def _producer(request: media.Produce, name: str, encodings: list[Dict]) -> Dict:
    parameters = _rtp_parameters(request, encodings)
    types = [codec["payload_type"] for codec in parameters["codecs"]]
    return {
        "producer_id": name,
        "kind": request.kind.upper(),
        "rtp_parameters": parameters,
        "rtp_mapping": {
            "codecs": [{"payload_type": t, "mapped_payload_type": t} for t in types],
            "encodings": [{"ssrc": encoding["ssrc"], "mapped_ssrc": encoding["ssrc"]} for encoding in encodings],
        },
        "paused": False,
    }


def _consumer(
    request: media.Produce, name: str, producer: str, type_: str, encodings: list[Dict], consumable: list[Dict]
) -> Dict:
    return {
        "consumer_id": name,
        "producer_id": producer,
        "kind": request.kind.upper(),
        "type": type_,
        "rtp_parameters": _rtp_parameters(request, encodings),
        "consumable_rtp_encodings": consumable,
        "paused": False,
    }


def _rtp_parameters(request: media.Produce, encodings: list[Dict]) -> Dict:
    """Returns the parameters with the room's payload types and the engine's own ids of header extensions."""
    parameters = request.rtp_parameters
    types = {p.payload_type: p.mapped_payload_type for p in request.payload_types}
    codecs = [
        {**translation.codec_to_engine(codec, request.kind), "payload_type": types[codec.payload_type]}
        for codec in parameters.codecs
        if codec.payload_type in types and not codec.is_rtx
    ]
    if not codecs:
        raise ValueError("codecs: none that the room knows")
    for codec in codecs:
        codec["rtcp_feedback"] = [f for f in codec["rtcp_feedback"] if (f["type"], f["parameter"]) in _FEEDBACK]
    return {
        "codecs": codecs,
        "header_extensions": [
            {"uri": uri, "id": id_}
            for uri, id_ in (_EXTENSIONS[e.uri] for e in parameters.header_extensions if e.uri in _EXTENSIONS)
        ],
        "encodings": encodings,
        "rtcp": {**translation.rtcp(parameters.rtcp, request.transport), "reduced_size": True},
    }
