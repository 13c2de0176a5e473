"""Translates protocol v2's structures to the engine's and back. Pure functions, but for random SSRCs.

The engine's side is tables of its FlatBuffers schemas, as `medianode.engines.mediasoup.flatbuffers_codec` has them:
dicts with the schemas' names. v2's simulcast profiles low, medium and high are the engine's spatial layers 0, 1 and
2, the order in which a producer's encodings are listed.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from msgspec import UNSET

from shared.errors import cut, quoted
from shared.protocol import media
from shared.protocol.media import EngineId
from shared.protocol.rtp import (
    DtlsParameters,
    EffectiveProfile,
    Encoding,
    Fingerprint,
    HeaderExtension,
    IceCandidate,
    IceParameters,
    Kind,
    Profile,
    Rtcp,
    RtcpFeedback,
    RtpCodec,
    RtpParameters,
)
from shared.protocol.whole_numbers import whole_number

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
# The header extensions of rooms and clients that the engine knows; it would ignore others. mid is left out: no room
# offers it, and a stream that the engine knows by its mid could have two SSRCs, at which the engine aborts.
_EXTENSIONS: Final = {
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id": "RtpStreamId",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id": "RepairRtpStreamId",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time": "AbsSendTime",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01": "TransportWideCcDraft01",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level": "SsrcAudioLevel",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension": "DependencyDescriptor",
    "urn:3gpp:video-orientation": "VideoOrientation",
    "urn:ietf:params:rtp-hdrext:toffset": "TimeOffset",
}
_FINGERPRINTS: Final = {
    "sha-1": "SHA1",
    "sha-224": "SHA224",
    "sha-256": "SHA256",
    "sha-384": "SHA384",
    "sha-512": "SHA512",
}
_ALGORITHMS: Final = {name: algorithm for algorithm, name in _FINGERPRINTS.items()}
_INT32 = range(-(2**31), 2**31)


def simulcast_consumer(layers: int) -> str:
    """Returns the scalability mode of a consumer of so many simulcast streams."""
    return f"L{layers}T3"


# --- transports -----------------------------------------------------------------------------------------------


def listen_info(protocol: str, ip: str, *, announced_ip: str = "", port: int = 0) -> Dict:
    """Returns an address to listen on; `protocol` is "UDP" or "TCP". With port 0 the engine takes a free one."""
    info = {"protocol": protocol, "ip": ip, "port": port, "port_range": {}, "flags": {}}
    return {**info, "announced_address": announced_ip} if announced_ip else info


def create_transport(request: media.CreateTransport, server: str, initial_bitrate: int) -> Dict:
    """Returns the parameters of a WebRTC transport on the WebRtcServer `server`; `initial_bitrate` is in bit/s."""
    return {
        "transport_id": request.transport,
        "options": {
            "base": {"initial_available_outgoing_bitrate": initial_bitrate},
            "listen": ("ListenServer", {"web_rtc_server_id": server}),
            "enable_udp": request.udp,
            "enable_tcp": request.tcp,
            "prefer_udp": request.prefer_udp,
            "prefer_tcp": request.prefer_tcp,
        },
    }


def connect_transport(parameters: DtlsParameters) -> Dict:
    """Returns the request that connects a transport to a client.

    As in mediasoup 2, the last fingerprint of a known algorithm counts, and those of others are skipped. Raises
    ValueError if there is no other.
    """
    for fingerprint in reversed(parameters.fingerprints):
        if algorithm := _FINGERPRINTS.get(fingerprint.algorithm):
            known = {"algorithm": algorithm, "value": fingerprint.value}
            return {"dtls_parameters": {"role": parameters.role.upper(), "fingerprints": [known]}}
    given = ", ".join(quoted(fingerprint.algorithm) for fingerprint in parameters.fingerprints)
    raise ValueError(f"dtlsParameters.fingerprints: {cut(given)} is none of {', '.join(_FINGERPRINTS)}")


def transport_created(answer: Dict, role: str | None) -> media.TransportCreated:
    """Returns what a client needs to connect; `role` is the engine's DTLS role if the transport is connected already.

    SHA-256 is the last fingerprint, because clients use the last one.
    """
    dtls = answer["dtls_parameters"]
    fingerprints = [Fingerprint(_ALGORITHMS[f["algorithm"]], f["value"]) for f in dtls["fingerprints"]]
    fingerprints.sort(key=lambda fingerprint: fingerprint.algorithm == "sha-256")
    return media.TransportCreated(
        ice_parameters=ice_parameters(answer["ice_parameters"]),
        ice_candidates=[_candidate(candidate) for candidate in answer["ice_candidates"]],
        dtls_parameters=DtlsParameters(fingerprints, dtls_role(role or dtls["role"])),
    )


def ice_parameters(answer: Dict) -> IceParameters:
    """Returns the ICE parameters of an answer; the engine is an ICE-lite agent."""
    return IceParameters(username_fragment=answer["username_fragment"], password=answer["password"], ice_lite=True)


def dtls_role(role: str) -> Any:
    """Returns the engine's name of a DTLS role in v2's form."""
    return role.lower()


def _candidate(candidate: Dict) -> IceCandidate:
    return IceCandidate(
        foundation=candidate["foundation"],
        priority=candidate["priority"],
        ip=candidate["address"],
        protocol=candidate["protocol"].lower(),
        port=candidate["port"],
        type=candidate["type"].lower(),
        tcp_type=candidate["tcp_type"].lower() if "tcp_type" in candidate else UNSET,
    )


# --- RTP ------------------------------------------------------------------------------------------------------


def produce(request: media.Produce) -> Dict:
    """Returns the parameters of a producer. Raises ValueError if the engine does not support what the client sent."""
    parameters = request.rtp_parameters
    simulcast = len(parameters.encodings) > 1
    encodings = [_sent_encoding(encoding, simulcast) for encoding in parameters.encodings]
    mapped = [
        {**present(rid=encoding.get("rid")), "ssrc": encoding["ssrc"], "mapped_ssrc": ssrc}
        for encoding, ssrc in zip(encodings, request.mapped_ssrcs, strict=True)
    ]
    return {
        "producer_id": request.producer,
        "kind": request.kind.upper(),
        "rtp_parameters": _rtp_parameters(parameters, request.kind, request.transport, encodings),
        "rtp_mapping": {
            "codecs": [
                {"payload_type": p.payload_type, "mapped_payload_type": p.mapped_payload_type}
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
    encodings = [_received_encoding(encoding) for encoding in parameters.encodings]
    consumable: list[Dict] = [{"ssrc": ssrc} for ssrc in request.producer_ssrcs]
    if layers > 1:
        encodings = [{**e, "scalability_mode": simulcast_consumer(layers)} for e in encodings]
        consumable = [{**e, "scalability_mode": SIMULCAST_STREAM} for e in consumable]
    data: Dict = {
        "consumer_id": request.consumer,
        "producer_id": request.producer,
        "kind": request.kind.upper(),
        "type": "SIMULCAST" if layers > 1 else "SIMPLE",
        "rtp_parameters": _rtp_parameters(
            parameters, request.kind, request.transport, encodings, drop_feedback=_ESTIMATION_FEEDBACK
        ),
        "consumable_rtp_encodings": consumable,
        "paused": request.paused,
    }
    if layers > 1:
        data["preferred_layers"] = preferred_layers(request.preferred_profile)
    return data


def consumed(request: media.Consume) -> media.Consumed:
    """Returns the first result of a consumer. A simulcast one sends nothing until the engine reports its layer."""
    return media.Consumed(effective_profile="none" if len(request.producer_ssrcs) > 1 else "default")


def _rtp_parameters(
    parameters: RtpParameters,
    kind: Kind,
    transport: EngineId,
    encodings: list[Dict],
    drop_feedback: frozenset[str] = frozenset(),
) -> Dict:
    data: Dict = {
        "codecs": [codec_to_engine(codec, kind, drop_feedback) for codec in parameters.codecs],
        "header_extensions": [_header_extension(e) for e in parameters.header_extensions if e.uri in _EXTENSIONS],
        "encodings": encodings,
        "rtcp": rtcp(parameters.rtcp, transport),
    }
    if parameters.mux_id:
        data["mid"] = parameters.mux_id
    return data


def rtcp(parameters: Rtcp, transport: EngineId) -> Dict:
    """Returns RTCP parameters in the engine's form.

    The engine insists on a cname, which tells receivers what comes from the same sender. Clients may leave it out;
    the id of their transport is as good.
    """
    return {"cname": parameters.cname or transport, **present(reduced_size=parameters.reduced_size)}


def codec_to_engine(codec: RtpCodec, kind: Kind, drop_feedback: frozenset[str] = frozenset()) -> Dict:
    """Returns a codec in the engine's form, without these types of feedback. Raises ValueError if not supported."""
    mime_type = codec.mime_type or f"{kind}/{codec.name}"
    main, _, subtype = mime_type.lower().partition("/")
    if main != kind or subtype in _UNSUPPORTED_FEATURES:
        raise ValueError(f"codecs: {cut(mime_type)} is not supported for {kind}")
    data: Dict = {
        "mime_type": mime_type,
        "payload_type": codec.payload_type,
        "clock_rate": codec.clock_rate,
        "parameters": _parameters(codec.parameters),
        "rtcp_feedback": _feedback(codec.rtcp_feedback, drop_feedback),
    }
    if kind == "audio" and codec.channels:
        data["channels"] = codec.channels
    return data


def _feedback(feedback: Iterable[RtcpFeedback], drop: frozenset[str]) -> list[Dict]:
    return [{"type": f.type, "parameter": f.parameter or ""} for f in feedback if f.type not in drop]


def _header_extension(extension: HeaderExtension) -> Dict:
    return {
        "uri": _EXTENSIONS[extension.uri],
        "id": extension.id,
        "encrypt": extension.encrypt is True,
        "parameters": _parameters(extension.parameters or {}),
    }


def _parameters(parameters: Mapping[str, Any]) -> list[Dict]:
    """Returns parameters of a codec or header extension; the engine ignores those that have no form there."""
    pairs = ((name, _parameter_value(value)) for name, value in parameters.items())
    return [{"name": name, "value": value} for name, value in pairs if value]


def _parameter_value(value: Any) -> tuple[str, Dict] | None:
    match value:
        case bool():
            return "Boolean", {"value": int(value)}
        case int() | float():
            return _number(value)
        case str():
            return "String", {"value": value}
        case list() if all(type(item) is int and item in _INT32 for item in value):
            return "Integer32Array", {"value": value}
        case _:
            return None


def _number(value: float) -> tuple[str, Dict] | None:
    """Returns an integer, which clients' libraries may write as `96.0`, or else a double, if it is none too large."""
    whole = whole_number(value)
    if whole is not None and whole in _INT32:
        return "Integer32", {"value": whole}
    try:
        return "Double", {"value": float(value)}
    except OverflowError:
        return None


def stream_name(encoding: Encoding) -> tuple[str, int | str]:
    """Returns how the engine recognizes the packets of a client's stream: ("ssrc", …), or ("rid", …) without SSRC.

    The engine aborts when packets of one encoding arrive once with its RID and once with its SSRC. Therefore it never
    learns both from a client.
    """
    return ("rid", encoding.encoding_id or "") if encoding.ssrc is UNSET else ("ssrc", encoding.ssrc)


def _sent_encoding(encoding: Encoding, simulcast: bool) -> Dict:
    name, value = stream_name(encoding)
    data: Dict = {name: value}
    if name == "rid":
        # Without an SSRC the engine would take 0 for it, which the client could send.
        data["ssrc"] = secrets.randbelow(2**32 - 1) + 1
    elif encoding.rtx:
        data["rtx"] = {"ssrc": encoding.rtx.ssrc}
    if simulcast:
        data["scalability_mode"] = SIMULCAST_STREAM
    return data


def _received_encoding(encoding: Encoding) -> Dict:
    data = present(ssrc=encoding.ssrc)
    return {**data, "rtx": {"ssrc": encoding.rtx.ssrc}} if encoding.rtx else data


def present(**fields: object) -> Dict:
    """Returns the fields that are neither UNSET nor None."""
    return {name: value for name, value in fields.items() if value is not UNSET and value is not None}


# --- layers ---------------------------------------------------------------------------------------------------


def preferred_layers(profile: Profile) -> Dict:
    """Returns the layers to prefer for a profile: the highest of all for "default"."""
    layer = HIGHEST_LAYER if profile == "default" else LAYERS.index(profile)
    return {"spatial_layer": layer, "temporal_layer": HIGHEST_LAYER}


def effective_profile(layers: Dict | None) -> EffectiveProfile:
    """Returns the profile that a consumer's current layers mean; without layers nothing is sent."""
    return LAYERS[min(layers["spatial_layer"], len(LAYERS) - 1)] if layers else "none"


# --- notifications --------------------------------------------------------------------------------------------


def event(target: str, name: str, data: Dict | None) -> media.AnyEvent | None:
    """Returns the event that an engine's notification means, or None if it means none.

    A consumer's score is no event: it changes all the time, for every receiver, and v2 has no message for it.
    """
    match name, data:
        case "CONSUMER_LAYERS_CHANGE", _:
            return media.ProfileChanged(target, effective_profile(data and data.get("layers")))
        case "WEBRTCTRANSPORT_ICE_STATE_CHANGE", {"ice_state": state}:
            return media.IceStateChanged(target, state.lower())
        case "WEBRTCTRANSPORT_DTLS_STATE_CHANGE", {"dtls_state": state}:
            return media.DtlsStateChanged(target, state.lower())
        case "PRODUCER_SCORE", {"scores": scores}:
            return media.Score(target, scores)
        case _:
            return None
