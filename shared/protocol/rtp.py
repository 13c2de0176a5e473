"""Defines the RTP dictionaries of protocol v2, as mediasoup-client 2.x sends and expects them.

Frozen structs: unknown fields are ignored, optional fields are absent rather than null. Payload types
are 0-127, SSRCs 32 bit. Every list, dictionary and text has a greatest length, far above what browsers send; the
values of free form are checked by `check_values`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from shared.errors import TooLarge, cut

VALUE_BYTES: Final = 1024
"""Bytes of one value of free form: of a codec's or header extension's parameter, or a FEC mechanism."""

Kind: TypeAlias = Literal["audio", "video"]
Profile: TypeAlias = Literal["default", "low", "medium", "high"]
EffectiveProfile: TypeAlias = Literal["none", "default", "low", "medium", "high"]
PayloadType = Annotated[int, Meta(ge=0, le=127)]
Ssrc = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
ExtensionId = Annotated[int, Meta(ge=1, le=255)]
ShortText = Annotated[str, Meta(max_length=256)]
Parameters: TypeAlias = Annotated[dict[ShortText, Any], Meta(max_length=32)]


class Wire(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Base of everything that goes over a wire as a JSON object."""


class RtcpFeedback(Wire, frozen=True):
    type: ShortText
    parameter: ShortText | UnsetType | None = UNSET


Feedback: TypeAlias = Annotated[list[RtcpFeedback], Meta(max_length=32)]


class RtpCodecCapability(Wire, frozen=True, omit_defaults=False):
    """One codec of RtpCapabilities. `channels` only for audio."""

    kind: Kind
    name: ShortText
    clock_rate: Annotated[int, Meta(gt=0, le=0xFFFF_FFFF)]
    preferred_payload_type: PayloadType
    mime_type: ShortText | UnsetType = UNSET
    channels: Annotated[int, Meta(ge=1, le=255)] | UnsetType | None = UNSET
    parameters: Parameters = {}
    rtcp_feedback: Feedback = []


class HeaderExtensionCapability(Wire, frozen=True):
    uri: ShortText
    preferred_id: ExtensionId
    kind: Kind | UnsetType | None = UNSET
    preferred_encrypt: bool | UnsetType = UNSET


class RtpCapabilities(Wire, frozen=True, omit_defaults=False):
    codecs: Annotated[list[RtpCodecCapability], Meta(max_length=64)]
    header_extensions: Annotated[list[HeaderExtensionCapability], Meta(max_length=64)] = []
    fec_mechanisms: Annotated[list[Any], Meta(max_length=16)] = []


class RtpCodec(Wire, frozen=True, omit_defaults=False):
    """One codec of RtpParameters. `channels` only for audio."""

    name: ShortText
    payload_type: PayloadType
    clock_rate: Annotated[int, Meta(gt=0, le=0xFFFF_FFFF)]
    mime_type: ShortText | UnsetType = UNSET
    channels: Annotated[int, Meta(ge=1, le=255)] | UnsetType | None = UNSET
    parameters: Parameters = {}
    rtcp_feedback: Feedback = []

    @property
    def is_rtx(self) -> bool:
        return self.name.lower() == "rtx"


class HeaderExtension(Wire, frozen=True):
    uri: ShortText
    id: ExtensionId
    encrypt: bool | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


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


# --- values of free form --------------------------------------------------------------------------------------

_encode: Final = msgspec.json.Encoder().encode


def check_values(field: str, rtp: RtpCapabilities | RtpParameters) -> None:
    """Raises `TooLarge`, which names the value in `field`, if a value of free form has more than `VALUE_BYTES`."""
    codecs: Sequence[RtpCodec | RtpCodecCapability] = rtp.codecs
    for index, codec in enumerate(codecs):
        if codec.parameters:
            _check_parameters(f"{field}.codecs[{index}]", codec.parameters)
    if isinstance(rtp, RtpCapabilities):
        for index, mechanism in enumerate(rtp.fec_mechanisms):
            if _is_large(mechanism):
                raise TooLarge(f"{field}.fecMechanisms[{index}]: larger than {VALUE_BYTES} bytes")
        return
    for index, extension in enumerate(rtp.header_extensions):
        if extension.parameters:
            _check_parameters(f"{field}.headerExtensions[{index}]", extension.parameters)


def _check_parameters(field: str, parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        if _is_large(value):
            raise TooLarge(f"{field}.parameters.{cut(name)}: larger than {VALUE_BYTES} bytes")


def _is_large(value: Any) -> bool:
    if isinstance(value, int | float):
        return False
    return len(value if isinstance(value, str) else _encode(value)) > VALUE_BYTES
