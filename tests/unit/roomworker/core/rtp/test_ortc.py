"""Negotiation, with parameters as the handlers of mediasoup-client 2.x send them. Properties are in the
file beside.
"""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from roomworker.core.rtp import codecs, ortc
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES as ROOM
from shared.errors import BadPayload
from shared.protocol.rtp import Kind, RtpCapabilities, RtpParameters

Json = dict[str, Any]

# --- what browsers send -------------------------------------------------------------------------------------

FEEDBACK = [
    {"type": "nack"},
    {"type": "nack", "parameter": "pli"},
    {"type": "ccm", "parameter": "fir"},
    {"type": "goog-remb"},
]


def chrome_audio() -> Json:
    return {
        "muxId": "0",
        "codecs": [
            {
                "name": "opus",
                "mimeType": "audio/opus",
                "clockRate": 48000,
                "payloadType": 111,
                "channels": 2,
                "rtcpFeedback": [],
                "parameters": {"useinbandfec": 1},
            }
        ],
        "headerExtensions": [
            {"uri": codecs.ABS_SEND_TIME, "id": 2},
            {"uri": codecs.AUDIO_LEVEL, "id": 1},
        ],
        "encodings": [{"ssrc": 1001}],
        "rtcp": {"cname": "3bJr0gvQ7sQbBd1O", "reducedSize": True, "mux": True},
    }


def chrome_video(*profiles: str) -> Json:
    """Chrome70: PlanB simulcast, three SSRCs with their RTX."""
    layers = profiles or (None,)
    encodings: list[Json] = [{"ssrc": 2001 + i, "rtx": {"ssrc": 3001 + i}} for i in range(len(layers))]
    for encoding, profile in zip(encodings, layers, strict=True):
        if profile:
            encoding["profile"] = profile
    return {
        "muxId": "1",
        "codecs": [
            {
                "name": "VP8",
                "mimeType": "video/VP8",
                "clockRate": 90000,
                "payloadType": 96,
                "rtcpFeedback": FEEDBACK,
                "parameters": {},
            },
            {
                "name": "rtx",
                "mimeType": "video/rtx",
                "clockRate": 90000,
                "payloadType": 97,
                "parameters": {"apt": 96},
            },
        ],
        "headerExtensions": [
            {"uri": codecs.RTP_STREAM_ID, "id": 10},
            {"uri": codecs.ABS_SEND_TIME, "id": 2},
            {"uri": codecs.VIDEO_ORIENTATION, "id": 13},
        ],
        "encodings": encodings,
        "rtcp": {"cname": "3bJr0gvQ7sQbBd1O", "reducedSize": True, "mux": True},
    }


def firefox_video() -> Json:
    """Firefox65: RIDs, the highest layer first, no SSRCs."""
    sent = chrome_video()
    sent["codecs"][0]["payloadType"] = 120
    sent["codecs"][1] |= {"payloadType": 124, "parameters": {"apt": 120}}
    sent["encodings"] = [{"encodingId": f"{profile}1", "profile": profile} for profile in ("high", "medium", "low")]
    return sent


def parameters(data: Json) -> RtpParameters:
    return msgspec.convert(data, RtpParameters)


def capabilities(data: Json) -> RtpCapabilities:
    return msgspec.convert(data, RtpCapabilities)


def mapped(sent: RtpParameters, kind: Kind) -> dict[int, int]:
    entries = ortc.producer_mapping(sent, kind, ROOM)
    return {entry.payload_type: entry.mapped_payload_type for entry in entries}


def received(sent: RtpParameters, kind: Kind, caps: RtpCapabilities = ROOM) -> RtpParameters:
    offered = ortc.consumable(sent, kind, ROOM, ortc.producer_mapping(sent, kind, ROOM))
    return ortc.consumer_parameters(offered, caps, ssrc=71, rtx_ssrc=72)


def without(caps: RtpCapabilities, *payload_types: int) -> RtpCapabilities:
    kept = [codec for codec in caps.codecs if codec.preferred_payload_type not in payload_types]
    return msgspec.structs.replace(caps, codecs=kept)


def altered(data: Json, path: str, value: object) -> Json:
    """A copy with the value at `path` (`codecs.0.name`) set, or removed if it is UNSET."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = data
    for part in parents:
        place = place[part]
    if value is UNSET:
        del place[last]
    else:
        place[last] = value
    return data


# --- joining ------------------------------------------------------------------------------------------------


def test_peer_with_the_rooms_capabilities_may_join() -> None:
    ortc.assert_subset(ROOM, ROOM)
    ortc.assert_subset(RtpCapabilities(codecs=[]), ROOM)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("codecs.1.name", "VP7", "rtpCapabilities.codecs[1].name: unsupported codec VP7/90000"),
        ("codecs.1.kind", "audio", "rtpCapabilities.codecs[1].name: unsupported codec VP8/90000"),
        ("codecs.0.channels", 1, "rtpCapabilities.codecs[0].name: unsupported codec opus/48000/1"),
        ("codecs.3.parameters", {}, "rtpCapabilities.codecs[3].name: unsupported codec H264/90000"),
        (
            "codecs.1.preferredPayloadType",
            96,
            "rtpCapabilities.codecs[1].preferredPayloadType: the room has no VP8/90000 with payload type 96",
        ),
        ("codecs.2.parameters", {}, "rtpCapabilities.codecs[2].parameters.apt: expected 101"),
        (
            "headerExtensions.0.uri",
            "urn:x",
            "rtpCapabilities.headerExtensions[0].uri: unsupported header extension urn:x",
        ),
        (
            "headerExtensions.1.preferredId",
            1,
            "rtpCapabilities.headerExtensions[1].preferredId: expected 6, got 1",
        ),
    ],
)
def test_join_error_names_the_capability_that_is_not_the_rooms(path: str, value: object, reason: str) -> None:
    data = altered(msgspec.to_builtins(ROOM), path, value)
    with pytest.raises(BadPayload) as refused:
        ortc.assert_subset(capabilities(data), ROOM)
    assert refused.value.reason == reason


def test_join_rejects_duplicate_capabilities() -> None:
    twice = msgspec.structs.replace(ROOM, codecs=[ROOM.codecs[0]] * 2)
    with pytest.raises(BadPayload, match=r"codecs\[1\]\.preferredPayloadType: duplicate 100"):
        ortc.assert_subset(twice, ROOM)
    twice = msgspec.structs.replace(ROOM, header_extensions=[ROOM.header_extensions[0]] * 2)
    with pytest.raises(BadPayload, match=r"headerExtensions\[1\]\.uri: duplicate"):
        ortc.assert_subset(twice, ROOM)


# --- producing ----------------------------------------------------------------------------------------------

VP7: Json = {"name": "VP7", "payloadType": 9, "clockRate": 90000}
SECOND_URI = "headerExtensions[1].uri:"


def test_payload_types_of_a_browser_are_mapped_to_the_rooms() -> None:
    assert mapped(parameters(chrome_audio()), "audio") == {111: 100}
    assert mapped(parameters(chrome_video("low", "medium", "high")), "video") == {96: 101, 97: 102}
    assert mapped(parameters(firefox_video()), "video") == {120: 101, 124: 102}


def test_h264_producer_without_rtx_is_mapped_whatever_its_level() -> None:
    data = chrome_video()
    h264 = {"packetization-mode": 1, "profile-level-id": "42001f"}
    data["codecs"] = [data["codecs"][0] | {"name": "h264", "mimeType": "video/H264", "parameters": h264}]
    assert mapped(parameters(data), "video") == {96: 103}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("codecs.0.name", "VP7", "codecs[0].mimeType: expected video/VP7, got video/VP8"),
        ("codecs.0", VP7, "codecs[0].name: unsupported codec VP7/90000"),
        (
            "codecs.0",
            {"name": "opus", "payloadType": 9, "clockRate": 48000, "channels": 2},
            "codecs[0].name: opus/48000/2 is no video codec",
        ),
        ("codecs.0.mimeType", "audio/VP8", "codecs[0].mimeType: expected video/VP8, got audio/VP8"),
        ("codecs.1.payloadType", 96, "codecs[1].payloadType: duplicate 96"),
        ("codecs.1.parameters", {}, "codecs[1].parameters.apt: missing or not an integer"),
        ("codecs.1.parameters.apt", True, "codecs[1].parameters.apt: missing or not an integer"),
        ("codecs.1.parameters.apt", [96], "codecs[1].parameters.apt: missing or not an integer"),
        ("codecs.1.parameters.apt", 97, "codecs[1].parameters.apt: no media codec with payload type 97"),
        ("headerExtensions.1.uri", codecs.MID, f"{SECOND_URI} unsupported video header extension {codecs.MID}"),
        ("headerExtensions.1.uri", codecs.RTP_STREAM_ID, f"{SECOND_URI} duplicate {codecs.RTP_STREAM_ID}"),
        ("headerExtensions.1.id", 10, "headerExtensions[1].id: duplicate 10"),
        ("encodings", [], "encodings: empty; each stream needs an ssrc or encodingId"),
        ("encodings.1", {"profile": "medium"}, "encodings[1]: neither ssrc nor encodingId"),
        ("encodings.1", {"encodingId": ""}, "encodings[1]: neither ssrc nor encodingId"),
        ("encodings.1.ssrc", 2001, "encodings[1].ssrc: duplicate 2001"),
        ("encodings.1.ssrc", 0, "encodings[1].ssrc: may not be 0"),
        ("encodings.1.rtx.ssrc", 2001, "encodings[1].rtx.ssrc: duplicate 2001"),
        ("encodings.1.rtx.ssrc", 0, "encodings[1].rtx.ssrc: may not be 0"),
        ("encodings.2.profile", "low", "encodings[2].profile: a second low layer"),
        ("rtcp.cname", "x\r\na=candidate:1", "rtcp.cname: only printable characters and no space"),
    ],
)  # fmt: skip
def test_unsupported_producer_is_rejected_naming_the_field(path: str, value: object, reason: str) -> None:
    sent = parameters(altered(chrome_video("low", "medium", "high"), path, value))
    with pytest.raises(BadPayload) as refused:
        ortc.producer_mapping(sent, "video", ROOM)
    assert refused.value.reason == f"rtpParameters.{reason}"


def test_duplicate_rids_are_rejected() -> None:
    sent = parameters(altered(firefox_video(), "encodings.1.encodingId", "high1"))
    with pytest.raises(BadPayload, match=r"encodings\[1\]\.encodingId: duplicate high1"):
        ortc.producer_mapping(sent, "video", ROOM)


def test_video_extension_is_rejected_for_audio() -> None:
    sent = parameters(altered(chrome_audio(), "headerExtensions.0.uri", codecs.VIDEO_ORIENTATION))
    with pytest.raises(BadPayload, match=r"headerExtensions\[0\]\.uri: unsupported audio header extension"):
        ortc.producer_mapping(sent, "audio", ROOM)


def test_rtx_for_a_codec_without_rtx_in_the_room_is_rejected() -> None:
    sent = parameters(chrome_video())
    with pytest.raises(BadPayload, match=r"codecs\[1\]\.name: the room has no rtx for VP8/90000"):
        ortc.producer_mapping(sent, "video", without(ROOM, 102))


def test_only_vp8_and_h264_are_accepted_with_several_layers() -> None:
    audio = altered(chrome_audio(), "encodings", [{"ssrc": 1}, {"ssrc": 2}])
    with pytest.raises(BadPayload, match=r"rtpParameters\.encodings: opus/48000/2 has no simulcast"):
        ortc.producer_mapping(parameters(audio), "audio", ROOM)


def test_producer_without_codecs_is_rejected() -> None:
    with pytest.raises(BadPayload, match=r"rtpParameters\.codecs: empty"):
        ortc.producer_mapping(RtpParameters(codecs=[]), "audio", ROOM)


# --- simulcast ----------------------------------------------------------------------------------------------


def test_layers_of_firefox_are_sorted_low_to_high() -> None:
    sent = parameters(firefox_video())
    assert [encoding.encoding_id for encoding in ortc.sort_encodings(sent).encodings] == ["low1", "medium1", "high1"]
    assert ortc.profiles(sent) == ["low", "medium", "high"]
    assert ortc.is_simulcast(sent)


def test_layer_without_profile_has_the_profile_of_its_position() -> None:
    sent = parameters(chrome_video("high", "default"))
    result = ortc.sort_encodings(sent)
    assert [(encoding.ssrc, encoding.profile) for encoding in result.encodings] == [(2002, "medium"), (2001, "high")]
    assert ortc.profiles(sent) == ortc.profiles(result) == ["medium", "high"]


def test_single_stream_has_only_the_default_profile() -> None:
    sent = parameters(altered(firefox_video(), "encodings", [{"encodingId": "low1", "profile": "low"}]))
    assert not ortc.is_simulcast(sent)
    assert ortc.profiles(sent) == ["default"]
    assert ortc.sort_encodings(sent) == sent


# --- consuming ----------------------------------------------------------------------------------------------


def test_receiver_gets_one_stream_in_the_rooms_payload_types() -> None:
    result = received(parameters(chrome_video("low", "medium", "high")), "video")
    assert msgspec.to_builtins(result) == {
        "codecs": [
            {
                "name": "VP8",
                "mimeType": "video/VP8",
                "clockRate": 90000,
                "payloadType": 101,
                "parameters": {},
                "rtcpFeedback": FEEDBACK,
            },
            {
                "name": "rtx",
                "mimeType": "video/rtx",
                "clockRate": 90000,
                "payloadType": 102,
                "parameters": {"apt": 101},
                "rtcpFeedback": [],
            },
        ],
        "headerExtensions": [
            {"uri": codecs.ABS_SEND_TIME, "id": 4},
            {"uri": codecs.VIDEO_ORIENTATION, "id": 8},
        ],
        "encodings": [{"ssrc": 71, "rtx": {"ssrc": 72}}],
        "rtcp": {"cname": "3bJr0gvQ7sQbBd1O", "reducedSize": True, "mux": True},
    }
    assert ortc.can_consume(result)


def test_audio_receiver_gets_no_rtx() -> None:
    result = received(parameters(chrome_audio()), "audio")
    assert [codec.payload_type for codec in result.codecs] == [100]
    assert result.codecs[0].channels == 2
    assert msgspec.to_builtins(result.encodings) == [{"ssrc": 71}]


def test_receiver_gets_rtx_though_the_producer_sends_none() -> None:
    data = chrome_video()
    del data["codecs"][1], data["encodings"][0]["rtx"]
    assert received(parameters(data), "video").encodings[0].rtx


def test_receiver_without_rtx_gets_no_rtx() -> None:
    result = received(parameters(chrome_video()), "video", without(ROOM, 102))
    assert [codec.name for codec in result.codecs] == ["VP8"]
    assert result.encodings[0].rtx is UNSET


def test_rtx_is_omitted_without_its_media_codec() -> None:
    result = received(parameters(chrome_video()), "video", without(ROOM, 101))
    assert result.codecs == []
    assert result.encodings[0].rtx is UNSET


def test_consumer_parameters_without_a_common_codec_have_no_codecs() -> None:
    result = received(parameters(chrome_video()), "video", RtpCapabilities(codecs=[]))
    assert not ortc.can_consume(result)
    assert msgspec.to_builtins(result)["encodings"] == [{"ssrc": 71}]


def test_feedback_is_reduced_to_the_receivers() -> None:
    data = msgspec.to_builtins(ROOM)
    data["codecs"][1]["rtcpFeedback"] = [{"type": "transport-cc"}, {"type": "nack", "parameter": ""}]
    result = received(parameters(chrome_video()), "video", capabilities(data))
    assert msgspec.to_builtins(result.codecs[0].rtcp_feedback) == [{"type": "nack"}]


def test_extension_of_the_other_kind_is_not_received() -> None:
    data = msgspec.to_builtins(ROOM)
    data["headerExtensions"] = [{"kind": "video", "uri": codecs.ABS_SEND_TIME, "preferredId": 4}]
    caps = capabilities(data)
    assert received(parameters(chrome_audio()), "audio", caps).header_extensions == []
    assert len(received(parameters(chrome_video()), "video", caps).header_extensions) == 1


@pytest.mark.parametrize("cname", [UNSET, None, ""])
def test_receiver_always_gets_a_cname(cname: object) -> None:
    result = received(parameters(altered(chrome_audio(), "rtcp.cname", cname)), "audio")
    assert result.rtcp.cname == "00000047"


def test_two_h264_profiles_of_a_producer_are_one_codec_for_receivers() -> None:
    data = chrome_video()
    h264 = data["codecs"][0] | {"name": "H264", "mimeType": "video/H264", "parameters": {"packetization-mode": 1}}
    data["codecs"] = [h264, h264 | {"payloadType": 98}]
    assert [codec.payload_type for codec in received(parameters(data), "video").codecs] == [103, 104]


def test_mapping_of_other_parameters_is_rejected() -> None:
    other = ortc.producer_mapping(parameters(chrome_audio()), "audio", ROOM)
    with pytest.raises(BadPayload, match=r"codecs\[0\]\.payloadType: not mapped"):
        ortc.consumable(parameters(chrome_video()), "video", ROOM, other)
