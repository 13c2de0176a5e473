"""Defines the codecs and RTP header extensions that a room can carry, in protocol v2's form (§queryRoom).

The order of the codecs is the order of preference: mediasoup-client 2.x sends the first one per kind that its
browser has. VP8 leads the video codecs because the engine does simulcast with VP8 and H264 only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET

from shared.errors import BadPayload, cut
from shared.protocol.actions import RoomCodec
from shared.protocol.rtp import (
    HeaderExtensionCapability,
    Kind,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodec,
    RtpCodecCapability,
)
from shared.protocol.whole_numbers import whole_number

MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
RTP_STREAM_ID: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RTP_STREAM_ID: Final = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
ABS_SEND_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
VIDEO_ORIENTATION: Final = "urn:3gpp:video-orientation"

# The ids are the engine's own constants. mid, transport-wide-cc and toffset are left out on purpose: with any of
# them Chromium rejects the client's answer when the first producer of a transport is video ("RTP extension ID
# reassignment not supported").
HEADER_EXTENSIONS: Final[Sequence[HeaderExtensionCapability]] = (
    HeaderExtensionCapability(uri=ABS_SEND_TIME, preferred_id=4, kind="audio"),
    HeaderExtensionCapability(uri=AUDIO_LEVEL, preferred_id=6, kind="audio"),
    HeaderExtensionCapability(uri=RTP_STREAM_ID, preferred_id=2, kind="video"),
    HeaderExtensionCapability(uri=ABS_SEND_TIME, preferred_id=4, kind="video"),
    HeaderExtensionCapability(uri=VIDEO_ORIENTATION, preferred_id=8, kind="video"),
)

# transport-cc is left out: it needs the header extension that is left out above, and REMB does its work.
# A feedback without a parameter must not have the field, because the client compares it with its browser's.
_VIDEO_FEEDBACK: Final = (
    RtcpFeedback(type="nack"),
    RtcpFeedback(type="nack", parameter="pli"),
    RtcpFeedback(type="ccm", parameter="fir"),
    RtcpFeedback(type="goog-remb"),
)

_DYNAMIC_PAYLOAD_TYPES: Final = (*range(100, 128), *range(96, 100))
_STATIC_PAYLOAD_TYPES: Final = {"pcmu": 0, "pcma": 8}
_CREATABLE: Final = frozenset(
    {
        ("audio", "opus", 48000),
        ("audio", "pcmu", 8000),
        ("audio", "pcma", 8000),
        ("video", "vp8", 90000),
        ("video", "vp9", 90000),
        ("video", "h264", 90000),
        ("video", "av1", 90000),
    }
)
_SIMULCAST_CODECS: Final = frozenset({"vp8", "h264"})


DEFAULT_CODECS: Final[Sequence[RoomCodec]] = (
    RoomCodec("audio", "opus", 48000, channels=2, parameters={"useinbandfec": 1}),
    RoomCodec("video", "VP8", 90000),
    RoomCodec(
        "video",
        "H264",
        90000,
        parameters={"packetization-mode": 1, "profile-level-id": "42e01f", "level-asymmetry-allowed": 1},
    ),
    RoomCodec("video", "VP9", 90000),
)


def room_capabilities(codecs: Sequence[RoomCodec] = DEFAULT_CODECS) -> RtpCapabilities:
    """Returns the capabilities of a room with these codecs: payload types from 100 on, each video codec with its rtx.

    Raises ValueError if there are more codecs than dynamic payload types.
    """
    payload_types = iter(_DYNAMIC_PAYLOAD_TYPES)
    offered = [capability for codec in codecs for capability in _offer(codec, payload_types)]
    return RtpCapabilities(codecs=offered, header_extensions=list(HEADER_EXTENSIONS))


def _offer(codec: RoomCodec, payload_types: Iterator[int]) -> list[RtpCodecCapability]:
    static = _STATIC_PAYLOAD_TYPES.get(codec.name.lower())
    try:
        media = RtpCodecCapability(
            kind=codec.kind,
            name=codec.name,
            mime_type=f"{codec.kind}/{codec.name}",
            clock_rate=codec.clock_rate,
            preferred_payload_type=next(payload_types) if static is None else static,
            channels=(codec.channels or 1) if codec.kind == "audio" else UNSET,
            parameters=dict(codec.parameters),
            rtcp_feedback=list(_VIDEO_FEEDBACK) if codec.kind == "video" else [],
        )
        if codec.kind == "audio":
            return [media]
        rtx = RtpCodecCapability(
            kind=codec.kind,
            name="rtx",
            mime_type=f"{codec.kind}/rtx",
            clock_rate=codec.clock_rate,
            preferred_payload_type=next(payload_types),
            parameters={"apt": media.preferred_payload_type},
        )
    except StopIteration:
        raise ValueError("more codecs than dynamic payload types") from None
    return [media, rtx]


DEFAULT_ROOM_CAPABILITIES: Final = room_capabilities()


def own_capabilities(codecs: Sequence[RoomCodec]) -> RtpCapabilities:
    """Returns the capabilities of a room created with its own codecs.

    Raises `BadPayload` for a codec that no client could use.
    """
    for index, codec in enumerate(codecs):
        if (codec.kind, codec.name.lower(), codec.clock_rate) not in _CREATABLE:
            offered = ", ".join(f"{name}/{rate}" for _, name, rate in sorted(_CREATABLE))
            raise BadPayload(f"codecs[{index}]: {codec.name}/{codec.clock_rate} is none of {offered}")
    try:
        return room_capabilities(codecs)
    except ValueError as too_many:
        raise BadPayload(f"codecs: {too_many}") from None


def is_rtx(codec: RtpCodec | RtpCodecCapability) -> bool:
    return codec.name.lower() == "rtx"


def apt(codec: RtpCodec | RtpCodecCapability) -> int | None:
    """Returns the payload type that an rtx codec repairs; None if its `apt` is missing or no integer."""
    return _integer(codec.parameters, "apt")


def supports_simulcast(codec: RtpCodec) -> bool:
    """Whether the engine takes several encodings of this codec."""
    return codec.name.lower() in _SIMULCAST_CODECS


def same_codec(codec: RtpCodec | RtpCodecCapability, capability: RtpCodecCapability) -> bool:
    """Whether both mean the same codec, whatever their payload types.

    The rules are those of mediasoup 2.6.19: names ignore case, channels count for audio only (1 if absent), and of
    the parameters only H264's packetization-mode (0 if absent).
    """
    name = codec.name.lower()
    if name != capability.name.lower() or codec.clock_rate != capability.clock_rate:
        return False
    if capability.kind == "audio" and (codec.channels or 1) != (capability.channels or 1):
        return False
    if name == "h264":
        return _packetization_mode(codec) == _packetization_mode(capability)
    return True


def label(codec: RtpCodec | RtpCodecCapability) -> str:
    """Returns the codec as an error's reason names it, e.g. `opus/48000/2`."""
    return f"{cut(codec.name)}/{codec.clock_rate}" + (f"/{codec.channels}" if codec.channels else "")


def rtx_of(media: RtpCodecCapability, room_caps: RtpCapabilities) -> RtpCodecCapability | None:
    """Returns the room's rtx codec for one of its media codecs; None if there is none."""
    payload_type = media.preferred_payload_type
    return next((cap for cap in room_caps.codecs if is_rtx(cap) and apt(cap) == payload_type), None)


def extension_id(uri: str, kind: Kind, room_caps: RtpCapabilities) -> int | None:
    """Returns the room's id of a header extension for this kind; None if it has none."""
    for cap in room_caps.header_extensions:
        if cap.uri == uri and (not cap.kind or cap.kind == kind):
            return cap.preferred_id
    return None


def as_codec(cap: RtpCodecCapability) -> RtpCodec:
    """Returns the room's codec as RtpParameters have it."""
    return RtpCodec(
        name=cap.name,
        payload_type=cap.preferred_payload_type,
        clock_rate=cap.clock_rate,
        mime_type=cap.mime_type,
        channels=cap.channels or UNSET,
        parameters=cap.parameters,
        rtcp_feedback=cap.rtcp_feedback,
    )


def _packetization_mode(codec: RtpCodec | RtpCodecCapability) -> int:
    return _integer(codec.parameters, "packetization-mode") or 0


def _integer(parameters: Mapping[str, Any], name: str) -> int | None:
    return whole_number(parameters.get(name))
