"""Defines the RTP dictionaries of protocol v2, as mediasoup-client 2.x sends and expects them.

Frozen structs: unknown fields are ignored, optional fields are absent rather than null. Payload types
are 0-127, SSRCs 32 bit.
"""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

Kind: TypeAlias = Literal["audio", "video"]
Profile: TypeAlias = Literal["default", "low", "medium", "high"]
EffectiveProfile: TypeAlias = Literal["none", "default", "low", "medium", "high"]
PayloadType = Annotated[int, Meta(ge=0, le=127)]
Ssrc = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
ExtensionId = Annotated[int, Meta(ge=1, le=255)]
ShortText = Annotated[str, Meta(max_length=256)]


class Wire(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Base of everything that goes over a wire as a JSON object."""


class RtcpFeedback(Wire, frozen=True):
    type: ShortText
    parameter: ShortText | UnsetType | None = UNSET


class RtpCodecCapability(Wire, frozen=True, omit_defaults=False):
    """One codec of RtpCapabilities. `channels` only for audio."""

    kind: Kind
    name: ShortText
    clock_rate: Annotated[int, Meta(gt=0, le=0xFFFF_FFFF)]
    preferred_payload_type: PayloadType
    mime_type: ShortText | UnsetType = UNSET
    channels: Annotated[int, Meta(ge=1, le=255)] | UnsetType | None = UNSET
    parameters: dict[str, Any] = {}
    rtcp_feedback: list[RtcpFeedback] = []


class HeaderExtensionCapability(Wire, frozen=True):
    uri: ShortText
    preferred_id: ExtensionId
    kind: Kind | UnsetType | None = UNSET
    preferred_encrypt: bool | UnsetType = UNSET


class RtpCapabilities(Wire, frozen=True, omit_defaults=False):
    codecs: list[RtpCodecCapability]
    header_extensions: list[HeaderExtensionCapability] = []
    fec_mechanisms: list[Any] = []


class RtpCodec(Wire, frozen=True, omit_defaults=False):
    """One codec of RtpParameters. `channels` only for audio."""

    name: ShortText
    payload_type: PayloadType
    clock_rate: Annotated[int, Meta(gt=0, le=0xFFFF_FFFF)]
    mime_type: ShortText | UnsetType = UNSET
    channels: Annotated[int, Meta(ge=1, le=255)] | UnsetType | None = UNSET
    parameters: dict[str, Any] = {}
    rtcp_feedback: list[RtcpFeedback] = []

    @property
    def is_rtx(self) -> bool:
        return self.name.lower() == "rtx"


class HeaderExtension(Wire, frozen=True):
    uri: ShortText
    id: ExtensionId
    encrypt: bool | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class Rtx(Wire, frozen=True):
    ssrc: Ssrc


class Encoding(Wire, frozen=True):
    """One stream of a producer or consumer. `encoding_id` is the RID (Firefox), `profile` its simulcast layer."""

    ssrc: Ssrc | UnsetType = UNSET
    rtx: Rtx | UnsetType | None = UNSET
    encoding_id: ShortText | UnsetType | None = UNSET
    profile: Profile | UnsetType | None = UNSET
    max_bitrate: float | UnsetType | None = UNSET


class Rtcp(Wire, frozen=True):
    cname: ShortText | UnsetType | None = UNSET
    reduced_size: bool | UnsetType | None = UNSET
    mux: bool | UnsetType | None = UNSET


class RtpParameters(Wire, frozen=True, omit_defaults=False):
    codecs: Annotated[list[RtpCodec], Meta(min_length=1, max_length=64)]
    header_extensions: Annotated[list[HeaderExtension], Meta(max_length=64)] = []
    encodings: Annotated[list[Encoding], Meta(max_length=16)] = []
    rtcp: Rtcp = Rtcp()
    mux_id: ShortText | UnsetType | None = UNSET


class Fingerprint(Wire, frozen=True):
    algorithm: ShortText
    value: ShortText


class DtlsParameters(Wire, frozen=True, omit_defaults=False):
    """`role` is the sender's own: auto, client or server."""

    fingerprints: Annotated[list[Fingerprint], Meta(min_length=1, max_length=16)]
    role: Literal["auto", "client", "server"] = "auto"


class IceParameters(Wire, frozen=True):
    username_fragment: str
    password: str
    ice_lite: bool


class IceCandidate(Wire, frozen=True):
    foundation: str
    priority: int
    ip: str
    protocol: Literal["udp", "tcp"]
    port: int
    type: str
    tcp_type: str | UnsetType = UNSET


class PayloadTypeMapping(Wire, frozen=True):
    """A producer's own payload type and the room's for the same codec."""

    payload_type: PayloadType
    mapped_payload_type: PayloadType
