"""Negotiates RTP parameters: those that a peer may send into a room, and those that each receiver gets.

Pure functions over protocol v2's dictionaries. A producer's parameters must pass `producer_mapping`, and the
engine wants them from `sort_encodings`; `consumable` translates them to the room's payload types once,
`consumer_parameters` cuts them down to one receiver. Where the protocol is silent, mediasoup 2.6.19 decides.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from roomworker.core.rtp.codecs import (
    MID,
    REPAIRED_RTP_STREAM_ID,
    RTP_STREAM_ID,
    apt,
    as_codec,
    extension_id,
    is_rtx,
    label,
    rtx_of,
    same_codec,
    supports_simulcast,
)
from shared.errors import BadPayload, cut
from shared.protocol.rtp import (
    Encoding,
    HeaderExtension,
    HeaderExtensionCapability,
    Kind,
    PayloadTypeMapping,
    Profile,
    Rtcp,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodec,
    RtpCodecCapability,
    RtpParameters,
    Rtx,
)

# Profiles from lowest to highest: the index is the spatial layer.
_LAYERS: Final[tuple[Profile, ...]] = ("low", "medium", "high")
_RANK: Final[dict[Profile, int]] = {profile: rank for rank, profile in enumerate(_LAYERS)}

# These extensions name streams within the sender's transport and mean nothing in a receiver's.
_NOT_FORWARDED: Final = frozenset({MID, RTP_STREAM_ID, REPAIRED_RTP_STREAM_ID})


# --- joining ------------------------------------------------------------------------------------------------


def assert_subset(peer_caps: RtpCapabilities, room_caps: RtpCapabilities) -> None:
    """Checks that every codec and header extension is one of the room's, with the room's payload type or id (§join).

    Raises BadPayload naming the field under `rtpCapabilities`. A peer with no codec at all may join: it can see
    who is there.
    """
    payload_types: set[int] = set()
    for i, codec in enumerate(peer_caps.codecs):
        field = f"rtpCapabilities.codecs[{i}]"
        _check_capability(field, codec, room_caps)
        if codec.preferred_payload_type in payload_types:
            raise BadPayload(f"{field}.preferredPayloadType: duplicate {codec.preferred_payload_type}")
        payload_types.add(codec.preferred_payload_type)
    extensions: set[tuple[str, str]] = set()
    for i, extension in enumerate(peer_caps.header_extensions):
        field = f"rtpCapabilities.headerExtensions[{i}]"
        _check_extension_capability(field, extension, room_caps)
        if (key := (extension.uri, extension.kind or "")) in extensions:
            raise BadPayload(f"{field}.uri: duplicate {cut(extension.uri)}")
        extensions.add(key)


def _check_capability(field: str, codec: RtpCodecCapability, room_caps: RtpCapabilities) -> None:
    same = [cap for cap in room_caps.codecs if cap.kind == codec.kind and same_codec(codec, cap)]
    if not same:
        raise BadPayload(f"{field}.name: unsupported codec {label(codec)}")
    payload_type = codec.preferred_payload_type
    cap = next((cap for cap in same if cap.preferred_payload_type == payload_type), None)
    if cap is None:
        raise BadPayload(
            f"{field}.preferredPayloadType: the room has no {label(codec)} with payload type {payload_type}"
        )
    if is_rtx(cap) and apt(codec) != apt(cap):
        raise BadPayload(f"{field}.parameters.apt: expected {apt(cap)}")


def _check_extension_capability(field: str, extension: HeaderExtensionCapability, room_caps: RtpCapabilities) -> None:
    same = [
        cap
        for cap in room_caps.header_extensions
        if cap.uri == extension.uri and (not extension.kind or not cap.kind or cap.kind == extension.kind)
    ]
    if not same:
        raise BadPayload(f"{field}.uri: unsupported header extension {cut(extension.uri)}")
    if all(cap.preferred_id != extension.preferred_id for cap in same):
        raise BadPayload(f"{field}.preferredId: expected {same[0].preferred_id}, got {extension.preferred_id}")


# --- producing ----------------------------------------------------------------------------------------------


def producer_mapping(params: RtpParameters, kind: Kind, room_caps: RtpCapabilities) -> list[PayloadTypeMapping]:
    """Returns the room's payload type for each of the producer's codecs, in their order (§createProducer).

    Raises BadPayload naming the field under `rtpParameters` if anything in them could not be carried: by the room
    (a codec, rtx or header extension it lacks for this kind) or by the engine (payload types, SSRCs, RIDs or
    profiles that are not unique; no encoding, or one with neither SSRC nor RID; simulcast with a codec that has
    none). A codec's missing `mimeType` is no error; it is `kind/name`.
    """
    media = _match_media_codecs(params.codecs, kind, room_caps)
    mapping = []
    for i, codec in enumerate(params.codecs):
        cap = _match_rtx(i, codec, media, room_caps) if is_rtx(codec) else media[codec.payload_type]
        mapping.append(PayloadTypeMapping(codec.payload_type, cap.preferred_payload_type))
    _check_header_extensions(params.header_extensions, kind, room_caps)
    _check_encodings(params)
    _check_cname(params.rtcp)
    return mapping


def _match_media_codecs(
    codecs: Sequence[RtpCodec], kind: Kind, room_caps: RtpCapabilities
) -> dict[int, RtpCodecCapability]:
    """Returns the room's codec for each payload type that is not rtx."""
    matched: dict[int, RtpCodecCapability] = {}
    payload_types: set[int] = set()
    for i, codec in enumerate(codecs):
        field = f"rtpParameters.codecs[{i}]"
        if codec.payload_type in payload_types:
            raise BadPayload(f"{field}.payloadType: duplicate {codec.payload_type}")
        payload_types.add(codec.payload_type)
        if codec.mime_type and codec.mime_type.lower() != f"{kind}/{codec.name}".lower():
            raise BadPayload(f"{field}.mimeType: expected {kind}/{cut(codec.name)}, got {cut(codec.mime_type)}")
        if not is_rtx(codec):
            matched[codec.payload_type] = _match_media(field, codec, kind, room_caps)
    if not codecs:
        raise BadPayload("rtpParameters.codecs: empty")
    return matched


def _match_media(field: str, codec: RtpCodec, kind: Kind, room_caps: RtpCapabilities) -> RtpCodecCapability:
    same = [cap for cap in room_caps.codecs if same_codec(codec, cap)]
    if not same:
        raise BadPayload(f"{field}.name: unsupported codec {label(codec)}")
    for cap in same:
        if cap.kind == kind:
            return cap
    raise BadPayload(f"{field}.name: {label(codec)} is no {kind} codec")


def _match_rtx(
    index: int, codec: RtpCodec, media: dict[int, RtpCodecCapability], room_caps: RtpCapabilities
) -> RtpCodecCapability:
    field = f"rtpParameters.codecs[{index}]"
    payload_type = apt(codec)
    if payload_type is None:
        raise BadPayload(f"{field}.parameters.apt: missing or not an integer")
    repaired = media.get(payload_type)
    if repaired is None:
        raise BadPayload(f"{field}.parameters.apt: no media codec with payload type {payload_type}")
    cap = rtx_of(repaired, room_caps)
    if cap is None:
        raise BadPayload(f"{field}.name: the room has no rtx for {label(repaired)}")
    return cap


def _check_header_extensions(extensions: Iterable[HeaderExtension], kind: Kind, room_caps: RtpCapabilities) -> None:
    uris: set[str] = set()
    ids: set[int] = set()
    for i, extension in enumerate(extensions):
        field = f"rtpParameters.headerExtensions[{i}]"
        if extension_id(extension.uri, kind, room_caps) is None:
            raise BadPayload(f"{field}.uri: unsupported {kind} header extension {cut(extension.uri)}")
        if extension.uri in uris:
            raise BadPayload(f"{field}.uri: duplicate {cut(extension.uri)}")
        if extension.id in ids:
            raise BadPayload(f"{field}.id: duplicate {extension.id}")
        uris.add(extension.uri)
        ids.add(extension.id)


def _check_encodings(params: RtpParameters) -> None:
    if not params.encodings:
        raise BadPayload("rtpParameters.encodings: empty; each stream needs an ssrc or encodingId")
    ssrcs: set[int] = set()
    rids: set[str] = set()
    for i, encoding in enumerate(params.encodings):
        field = f"rtpParameters.encodings[{i}]"
        if encoding.ssrc is UNSET and not encoding.encoding_id:
            raise BadPayload(f"{field}: neither ssrc nor encodingId")
        # A stream and a retransmission may not share an SSRC either: the engine finds the producer by it.
        _check_ssrc(f"{field}.ssrc", encoding.ssrc, ssrcs)
        _check_ssrc(f"{field}.rtx.ssrc", encoding.rtx.ssrc if encoding.rtx else UNSET, ssrcs)
        if encoding.encoding_id:
            if encoding.encoding_id in rids:
                raise BadPayload(f"{field}.encodingId: duplicate {cut(encoding.encoding_id)}")
            rids.add(encoding.encoding_id)
    if is_simulcast(params):
        _check_simulcast(params)


def _check_ssrc(field: str, ssrc: object, seen: set[int]) -> None:
    """Adds the SSRC to those seen. 0 is refused: for the engine it means that there is none."""
    if not isinstance(ssrc, int):
        return
    if ssrc == 0:
        raise BadPayload(f"{field}: may not be 0")
    if ssrc in seen:
        raise BadPayload(f"{field}: duplicate {ssrc}")
    seen.add(ssrc)


def _check_simulcast(params: RtpParameters) -> None:
    first = next(codec for codec in params.codecs if not is_rtx(codec))
    if not supports_simulcast(first):
        raise BadPayload(f"rtpParameters.encodings: {label(first)} has no simulcast, so only one encoding")
    ranks: set[int] = set()
    for i, encoding in enumerate(params.encodings):
        rank = _rank(i, encoding)
        if rank in ranks:
            raise BadPayload(f"rtpParameters.encodings[{i}].profile: a second {_LAYERS[rank]} layer")
        ranks.add(rank)


def _check_cname(rtcp: Rtcp) -> None:
    """Refuses a cname with a space or line break: receiving clients write it into a line of SDP."""
    cname = rtcp.cname or ""
    if not cname.isprintable() or " " in cname:
        raise BadPayload("rtpParameters.rtcp.cname: only printable characters and no space")


# --- simulcast ----------------------------------------------------------------------------------------------


def is_simulcast(params: RtpParameters) -> bool:
    return len(params.encodings) > 1


def profiles(params: RtpParameters) -> list[Profile]:
    """Returns the layers that the producer offers, lowest first: the index is the engine's spatial layer.

    A producer with a single encoding offers `default` alone, whatever the profile of that encoding.
    """
    if not is_simulcast(params):
        return ["default"]
    return [_LAYERS[rank] for rank in sorted(_rank(i, encoding) for i, encoding in enumerate(params.encodings))]


def sort_encodings(params: RtpParameters) -> RtpParameters:
    """Returns the parameters with simulcast encodings from low to high, each with its profile's name.

    An encoding without a profile, or with `default`, has the one of its position: the first is low, the second
    medium, any later one high. The order of equals stays, and sorting again changes nothing.
    """
    if not is_simulcast(params):
        return params
    ranked = [(_rank(i, encoding), encoding) for i, encoding in enumerate(params.encodings)]
    ranked.sort(key=itemgetter(0))
    return replace(params, encodings=[_named(encoding, _LAYERS[rank]) for rank, encoding in ranked])


def _named(encoding: Encoding, profile: Profile) -> Encoding:
    return encoding if encoding.profile == profile else replace(encoding, profile=profile)


def _rank(index: int, encoding: Encoding) -> int:
    if not encoding.profile or encoding.profile == "default":
        return min(index, len(_LAYERS) - 1)
    return _RANK[encoding.profile]


# --- consuming ----------------------------------------------------------------------------------------------


def consumable(
    params: RtpParameters, kind: Kind, room_caps: RtpCapabilities, mapping: Sequence[PayloadTypeMapping]
) -> RtpParameters:
    """Returns the most that a receiver can get: the parameters in the room's payload types and extension ids.

    `mapping` is the result of `producer_mapping` for the same `params`. Each codec is followed by the room's rtx for
    it, even if the producer sends none: the engine itself retransmits. Raises BadPayload if a codec is not in
    `mapping`, a mapped payload type not in the room or a header extension not the room's.
    """
    mapped = {entry.payload_type: entry.mapped_payload_type for entry in mapping}
    caps = {cap.preferred_payload_type: cap for cap in room_caps.codecs}
    # Two of the producer's codecs can be one of the room's (two profiles of H264).
    offered: dict[int, RtpCodec] = {}
    for i, codec in enumerate(params.codecs):
        if is_rtx(codec):
            continue
        cap = caps.get(mapped.get(codec.payload_type, -1))
        if cap is None:
            raise BadPayload(f"rtpParameters.codecs[{i}].payloadType: not mapped to a codec of the room")
        rtx = rtx_of(cap, room_caps)
        for entry in (cap, rtx) if rtx else (cap,):
            offered.setdefault(entry.preferred_payload_type, as_codec(entry))
    return RtpParameters(
        codecs=list(offered.values()),
        header_extensions=_consumable_extensions(params.header_extensions, kind, room_caps),
        encodings=params.encodings,
        rtcp=Rtcp(cname=params.rtcp.cname, reduced_size=True, mux=True),
    )


def _consumable_extensions(
    extensions: Iterable[HeaderExtension], kind: Kind, room_caps: RtpCapabilities
) -> list[HeaderExtension]:
    translated = []
    for i, extension in enumerate(extensions):
        room_id = extension_id(extension.uri, kind, room_caps)
        if room_id is None:
            raise BadPayload(f"rtpParameters.headerExtensions[{i}].uri: unsupported {cut(extension.uri)}")
        translated.append(HeaderExtension(uri=extension.uri, id=room_id))
    return translated


def capability_key(caps: RtpCapabilities) -> str:
    """Returns a key for a cache: equal for two peers only if `consumer_parameters` gives both the same."""
    codecs = sorted((pt, kind, sorted(feedback)) for pt, (kind, feedback) in _receivable(caps).items())
    return repr((codecs, sorted(_receivable_extensions(caps))))


def consumer_parameters(
    consumable: RtpParameters, peer_caps: RtpCapabilities, ssrc: int, rtx_ssrc: int
) -> RtpParameters:
    """Returns the parameters of a `consumable` for a peer that passed `assert_subset`: one stream, sent from `ssrc`.

    An rtx codec is included only with its media codec, and `encodings[0].rtx` only with rtx. Without a common codec
    `codecs` is empty and nothing is raised: the client finds such a consumer not `supported` and never enables it.
    `rtcp.cname` is always there, because the client puts it into its SDP unchecked.
    """
    receivable = _receivable(peer_caps)
    codecs: list[RtpCodec] = []
    kinds: set[str] = set()
    for codec in consumable.codecs:
        if codec.payload_type not in receivable:
            continue
        if is_rtx(codec) and all(apt(codec) != media.payload_type for media in codecs):
            continue
        kind, feedback = receivable[codec.payload_type]
        codecs.append(_with_feedback(codec, feedback))
        kinds.add(kind)
    extensions = _receivable_extensions(peer_caps)
    has_rtx = any(is_rtx(codec) for codec in codecs)
    return RtpParameters(
        codecs=codecs,
        header_extensions=[
            extension
            for extension in consumable.header_extensions
            if extension.uri not in _NOT_FORWARDED
            and any((extension.uri, extension.id, kind) in extensions for kind in ("", *kinds))
        ],
        encodings=[Encoding(ssrc=ssrc, rtx=Rtx(rtx_ssrc) if has_rtx else UNSET)],
        rtcp=replace(consumable.rtcp, cname=consumable.rtcp.cname or f"{ssrc:08x}"),
    )


def can_consume(params: RtpParameters) -> bool:
    """Whether these `consumer_parameters` have a media codec, so that the consumer can be enabled."""
    return any(not is_rtx(codec) for codec in params.codecs)


def _with_feedback(codec: RtpCodec, feedback: frozenset[tuple[str, str]]) -> RtpCodec:
    kept = [entry for entry in codec.rtcp_feedback if _feedback_key(entry) in feedback]
    return codec if len(kept) == len(codec.rtcp_feedback) else replace(codec, rtcp_feedback=kept)


def _feedback_key(feedback: RtcpFeedback) -> tuple[str, str]:
    return feedback.type, feedback.parameter or ""


def _receivable(caps: RtpCapabilities) -> dict[int, tuple[Kind, frozenset[tuple[str, str]]]]:
    """Returns kind and feedback by payload type, which alone identifies a codec of the room (`assert_subset`)."""
    receivable: dict[int, tuple[Kind, frozenset[tuple[str, str]]]] = {}
    for codec in caps.codecs:
        feedback = frozenset(map(_feedback_key, codec.rtcp_feedback))
        receivable.setdefault(codec.preferred_payload_type, (codec.kind, feedback))
    return receivable


def _receivable_extensions(caps: RtpCapabilities) -> frozenset[tuple[str, int, str]]:
    return frozenset((cap.uri, cap.preferred_id, cap.kind or "") for cap in caps.header_extensions)
