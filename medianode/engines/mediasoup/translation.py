"""Translates protocol v2's structures to the engine's and back. Pure functions.

The engine's side is plain dicts, sent as JSON. v2's simulcast profiles low, medium and high are the engine's spatial
layers 0, 1 and 2, the order in which a producer's encodings are listed.
"""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import UNSET

from shared.protocol import media
from shared.protocol.rtp import (
    DtlsParameters,
    EffectiveProfile,
    Encoding,
    HeaderExtension,
    IceCandidate,
    IceParameters,
    Kind,
    Profile,
    RtcpFeedback,
    RtpCodec,
    RtpParameters,
)

Dict: TypeAlias = dict[str, Any]

LAYERS: Final[tuple[EffectiveProfile, ...]] = ("low", "medium", "high")
HIGHEST_LAYER = 15
"""A layer above those of any producer: the engine takes the highest that exists."""
# The engine would estimate bandwidth from this feedback. Rooms do not offer transport-wide-cc, without which it logs
# an error every second and stays at its first estimate.
_ESTIMATION_FEEDBACK = frozenset({"goog-remb", "transport-cc"})
# Codecs that carry no media. The engine aborts when it looks for the media codec of one other than rtx.
_UNSUPPORTED_FEATURES = frozenset({"red", "ulpfec", "x-ulpfecuc", "flexfec"})
SIMULCAST_STREAM = "S1T3"
"""The scalability mode of a simulcast stream. Without its three temporal layers the engine drops video to 5 fps."""


def simulcast_consumer(layers: int) -> str:
    """Returns the scalability mode of a consumer of so many simulcast streams."""
    return f"L{layers}T3"


# --- transports -----------------------------------------------------------------------------------------------


def create_transport(request: media.CreateTransport, server: str, initial_bitrate: int) -> Dict:
    """Returns the parameters of a WebRTC transport on the WebRtcServer `server`; `initial_bitrate` is in bit/s."""
    return {
        "transportId": request.transport,
        "webRtcServerId": server,
        "enableUdp": request.udp,
        "enableTcp": request.tcp,
        "preferUdp": request.prefer_udp,
        "preferTcp": request.prefer_tcp,
        "initialAvailableOutgoingBitrate": initial_bitrate,
        "enableSctp": False,
        "isDataChannel": True,
    }


def dtls_to_engine(parameters: DtlsParameters) -> Dict:
    """Returns a client's DTLS parameters in the engine's form."""
    return {
        "role": parameters.role,
        "fingerprints": [{"algorithm": f.algorithm, "value": f.value} for f in parameters.fingerprints],
    }


def transport_created(answer: Dict, role: str | None) -> media.TransportCreated:
    """Returns what a client needs to connect; `role` is the engine's DTLS role if the transport is connected already.

    SHA-256 is the last fingerprint, because clients use the last one.
    """
    dtls = answer["dtlsParameters"]
    fingerprints = sorted(dtls["fingerprints"], key=lambda f: bool(f["algorithm"] == "sha-256"))
    return media.TransportCreated(
        ice_parameters=ice_parameters(answer["iceParameters"]),
        ice_candidates=msgspec.convert(answer["iceCandidates"], list[IceCandidate]),
        dtls_parameters=msgspec.convert({"role": role or dtls["role"], "fingerprints": fingerprints}, DtlsParameters),
    )


def ice_parameters(answer: Dict) -> IceParameters:
    """Returns the ICE parameters of an answer; the engine is an ICE-lite agent."""
    return msgspec.convert({**answer, "iceLite": True}, IceParameters)


# --- RTP ------------------------------------------------------------------------------------------------------


def produce(request: media.Produce) -> Dict:
    """Returns the parameters of a producer. Raises ValueError if the engine does not support what the client sent."""
    parameters = request.rtp_parameters
    simulcast = len(parameters.encodings) > 1
    mapped = [
        {**_stream(encoding, simulcast), "mappedSsrc": ssrc}
        for encoding, ssrc in zip(parameters.encodings, request.mapped_ssrcs, strict=True)
    ]
    return {
        "producerId": request.producer,
        "kind": request.kind,
        "rtpParameters": _rtp_parameters(
            parameters, request.kind, [_encoding(e, simulcast=simulcast) for e in parameters.encodings]
        ),
        "rtpMapping": {
            "codecs": [
                {"payloadType": p.payload_type, "mappedPayloadType": p.mapped_payload_type}
                for p in request.payload_types
            ],
            "encodings": mapped,
        },
        "paused": request.paused,
    }


def consume(request: media.Consume) -> Dict:
    """Returns the parameters of a consumer, a simulcast one if its producer has several streams."""
    layers = len(request.producer_ssrcs)
    parameters = request.rtp_parameters
    encodings = [_encoding(e) for e in parameters.encodings]
    consumable: list[Dict] = [{"ssrc": ssrc} for ssrc in request.producer_ssrcs]
    if layers > 1:
        encodings = [{**e, "scalabilityMode": simulcast_consumer(layers)} for e in encodings]
        consumable = [{**e, "scalabilityMode": SIMULCAST_STREAM} for e in consumable]
    data: Dict = {
        "consumerId": request.consumer,
        "producerId": request.producer,
        "kind": request.kind,
        "type": "simulcast" if layers > 1 else "simple",
        "rtpParameters": _rtp_parameters(parameters, request.kind, encodings, drop_feedback=_ESTIMATION_FEEDBACK),
        "consumableRtpEncodings": consumable,
        "paused": request.paused,
        "ignoreDtx": False,
    }
    if layers > 1:
        data["preferredLayers"] = preferred_layers(request.preferred_profile)
    return data


def consumed(request: media.Consume) -> media.Consumed:
    """Returns the first result of a consumer. A simulcast one sends nothing until the engine reports its layer."""
    return media.Consumed(effective_profile="none" if len(request.producer_ssrcs) > 1 else "default")


def _rtp_parameters(
    parameters: RtpParameters, kind: Kind, encodings: list[Dict], drop_feedback: frozenset[str] = frozenset()
) -> Dict:
    data: Dict = {
        "codecs": [codec_to_engine(codec, kind, drop_feedback) for codec in parameters.codecs],
        "headerExtensions": [_header_extension(e) for e in parameters.header_extensions],
        "encodings": encodings,
        "rtcp": present(cname=parameters.rtcp.cname, reducedSize=parameters.rtcp.reduced_size),
    }
    if parameters.mux_id:
        data["mid"] = parameters.mux_id
    return data


def codec_to_engine(codec: RtpCodec, kind: Kind, drop_feedback: frozenset[str] = frozenset()) -> Dict:
    """Returns a codec in the engine's form, without these types of feedback. Raises ValueError if not supported."""
    mime_type = codec.mime_type or f"{kind}/{codec.name}"
    main, _, subtype = mime_type.lower().partition("/")
    if main != kind or subtype in _UNSUPPORTED_FEATURES:
        raise ValueError(f"codecs: {mime_type} is not supported for {kind}")
    data: Dict = {
        "mimeType": mime_type,
        "payloadType": codec.payload_type,
        "clockRate": codec.clock_rate,
        "parameters": codec.parameters,
        "rtcpFeedback": _feedback(codec.rtcp_feedback, drop_feedback),
    }
    if kind == "audio" and codec.channels:
        data["channels"] = codec.channels
    return data


def _feedback(feedback: Iterable[RtcpFeedback], drop: frozenset[str]) -> list[Dict]:
    return [{"type": f.type, "parameter": f.parameter or ""} for f in feedback if f.type not in drop]


def _header_extension(extension: HeaderExtension) -> Dict:
    return {
        "uri": extension.uri,
        "id": extension.id,
        "encrypt": extension.encrypt is True,
        "parameters": extension.parameters or {},
    }


def _encoding(encoding: Encoding, *, simulcast: bool = False) -> Dict:
    data = _stream(encoding, simulcast)
    if encoding.rtx and "ssrc" in data:
        data["rtx"] = {"ssrc": encoding.rtx.ssrc}
    return data


def _stream(encoding: Encoding, simulcast: bool) -> Dict:
    """Returns how the engine recognizes a stream's packets: by RID or by SSRC, never by both.

    The engine aborts when packets of one encoding arrive once with its RID and once with its SSRC.
    """
    data = {"rid": encoding.encoding_id} if encoding.encoding_id else present(ssrc=encoding.ssrc)
    if simulcast:
        data["scalabilityMode"] = SIMULCAST_STREAM
    return data


def present(**fields: object) -> Dict:
    """Returns the fields that are neither UNSET nor None."""
    return {name: value for name, value in fields.items() if value is not UNSET and value is not None}


# --- layers ---------------------------------------------------------------------------------------------------


def preferred_layers(profile: Profile) -> Dict:
    """Returns the layers to prefer for a profile: the highest of all for "default"."""
    layer = HIGHEST_LAYER if profile == "default" else LAYERS.index(profile)
    return {"spatialLayer": layer, "temporalLayer": HIGHEST_LAYER}


def effective_profile(layers: Dict | None) -> EffectiveProfile:
    """Returns the profile that a `layerschange` notification means; null, or no layer, means that nothing is sent."""
    spatial = (layers or {}).get("spatialLayer")
    return "none" if spatial is None else LAYERS[min(spatial, len(LAYERS) - 1)]


# --- notifications --------------------------------------------------------------------------------------------


def event(target: str, name: str, data: Any) -> media.AnyEvent | None:
    """Returns the event that an engine's notification means, or None if it means none.

    A consumer's score is no event: it changes all the time, for every receiver, and v2 has no message for it.
    """
    match name:
        case "layerschange":
            return media.ProfileChanged(target, effective_profile(data))
        case "icestatechange":
            return media.IceStateChanged(target, data["iceState"])
        case "dtlsstatechange":
            return media.DtlsStateChanged(target, data["dtlsState"])
        case "score" if isinstance(data, list):
            return media.Score(target, data)
        case _:
            return None
