"""Capabilities that a room offers."""

import msgspec
import pytest

from roomworker.core.rtp import codecs
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES as ROOM
from roomworker.core.rtp.codecs import room_capabilities
from shared.protocol.actions import RoomCodec
from shared.protocol.rtp import RtpCodecCapability


def room_codec(name: str) -> RtpCodecCapability:
    return next(codec for codec in ROOM.codecs if codec.name == name)


def test_room_offers_opus_and_vp8_before_other_video() -> None:
    offered = [(codec.name, codec.preferred_payload_type, codec.parameters.get("apt")) for codec in ROOM.codecs]
    assert offered == [
        ("opus", 100, None),
        ("VP8", 101, None),
        ("rtx", 102, 101),
        ("H264", 103, None),
        ("rtx", 104, 103),
        ("VP9", 105, None),
        ("rtx", 106, 105),
    ]
    assert room_codec("opus").channels == 2
    h264 = room_codec("H264").parameters
    assert (h264["packetization-mode"], h264["profile-level-id"]) == (1, "42e01f")


def test_room_offers_the_engines_extension_ids_and_no_others() -> None:
    assert {(extension.uri, extension.preferred_id) for extension in ROOM.header_extensions} == {
        (codecs.ABS_SEND_TIME, 4),
        (codecs.AUDIO_LEVEL, 6),
        (codecs.VIDEO_ORIENTATION, 8),
        (codecs.RTP_STREAM_ID, 2),
    }


def test_encoded_room_capabilities_have_no_null_and_no_video_channels() -> None:
    data = msgspec.json.decode(msgspec.json.encode(ROOM))
    assert data["codecs"][1]["rtcpFeedback"] == [
        {"type": "nack"},
        {"type": "nack", "parameter": "pli"},
        {"type": "ccm", "parameter": "fir"},
        {"type": "goog-remb"},
    ]
    assert "channels" not in data["codecs"][1]
    assert None not in [value for codec in data["codecs"] for value in codec.values()]


def test_more_codecs_than_payload_types_are_rejected() -> None:
    with pytest.raises(ValueError, match="payload types"):
        room_capabilities([RoomCodec("video", "VP8", 90000)] * 17)


def test_room_may_be_created_with_av1_which_others_do_not_offer() -> None:
    own = codecs.own_capabilities([RoomCodec("audio", "opus", 48000, channels=2), RoomCodec("video", "AV1", 90000)])
    assert [codec.name for codec in own.codecs] == ["opus", "AV1", "rtx"]
    assert not any(codec.name == "AV1" for codec in ROOM.codecs)
