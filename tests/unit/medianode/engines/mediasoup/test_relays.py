"""What an updatable producer is made of: nothing but what the room knows goes round the loopback."""

from struct import unpack
from typing import Any

import msgspec
import pytest

from medianode.engines.mediasoup import relays
from shared.protocol import media
from shared.protocol.rtp import PayloadTypeMapping, RtpParameters

ROUTER = media.RouterRef("router", 0, "room", "i", 1)
FEEDBACK = [
    {"type": "goog-remb"},
    {"type": "ccm", "parameter": "fir"},
    {"type": "nack"},
    {"type": "nack", "parameter": "pli"},
]
VP8 = {"name": "VP8", "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000, "rtcpFeedback": FEEDBACK}
RTX = {"name": "rtx", "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000, "parameters": {"apt": 96}}
OPUS = {"name": "opus", "payloadType": 111, "clockRate": 48000, "channels": 2, "parameters": {"useinbandfec": 1}}
ABS_SEND_TIME = {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 4}
AUDIO_LEVEL = {"uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 2}
ONE = [{"ssrc": 11, "rtx": {"ssrc": 12}}]
THREE = [{"ssrc": 11}, {"ssrc": 21}, {"ssrc": 31}]


def rtp(encodings: list[Any], **fields: Any) -> RtpParameters:
    video = {"codecs": [VP8, RTX], "headerExtensions": [ABS_SEND_TIME], "rtcp": {"cname": "name"}}
    return msgspec.convert({**video, "encodings": encodings, **fields}, RtpParameters)


def produce(parameters: RtpParameters, kind: Any = "video", **more: Any) -> media.Produce:
    types = [PayloadTypeMapping(96, 101), PayloadTypeMapping(97, 102), PayloadTypeMapping(111, 100)]
    mapped = [9001 + i for i in range(len(parameters.encodings))]
    return media.Produce(ROUTER, "transport", "producer", kind, parameters, types, mapped, updatable=True, **more)


def test_only_codecs_that_the_engine_can_switch_are_stitched() -> None:
    assert relays.stitchable(produce(rtp(ONE)))
    assert not relays.stitchable(produce(rtp(ONE, codecs=[OPUS]), "audio"))
    assert not relays.stitchable(produce(rtp(ONE, codecs=[{**VP8, "name": "VP9"}])))


def test_names_are_the_ssrcs_and_ids_that_a_transport_knows_once() -> None:
    assert relays.names(rtp(ONE)) == {11, 12}
    assert relays.names(rtp([{"encodingId": "low"}])) == {"low"}
    assert relays.unnamed(rtp(ONE, muxId="0")) == rtp(ONE)


def test_pipe_carries_the_payload_types_of_the_room() -> None:
    data = relays.pipe(produce(rtp(ONE)), "inner", [7])
    assert (data["type"], data["producerId"]) == ("pipe", "inner")
    assert data["consumableRtpEncodings"] == data["rtpParameters"]["encodings"] == [{"ssrc": 7}]
    (codec,) = data["rtpParameters"]["codecs"]
    assert codec["payloadType"] == 101
    assert codec["rtcpFeedback"] == [{"type": "ccm", "parameter": "fir"}, {"type": "nack", "parameter": "pli"}]
    assert data["rtpParameters"]["headerExtensions"] == [], "the engine writes abs-send-time itself"


def test_header_extensions_have_the_engines_own_ids() -> None:
    parameters = rtp([{"ssrc": 11}], codecs=[OPUS], headerExtensions=[ABS_SEND_TIME, AUDIO_LEVEL])
    data = relays.pipe(produce(parameters, "audio"), "inner", [7])
    assert [(e["uri"], e["id"]) for e in data["rtpParameters"]["headerExtensions"]] == [(AUDIO_LEVEL["uri"], 10)]
    assert data["rtpParameters"]["codecs"][0]["parameters"] == {"useinbandfec": 1}


def test_outer_producer_maps_ssrcs_to_themselves() -> None:
    data = relays.outer(produce(rtp(THREE), paused=True))
    assert (data["producerId"], data["paused"]) == ("producer", True)
    assert data["rtpMapping"] == {
        "codecs": [{"payloadType": 101, "mappedPayloadType": 101}],
        "encodings": [{"ssrc": ssrc, "mappedSsrc": ssrc, "scalabilityMode": "S1T3"} for ssrc in (9001, 9002, 9003)],
    }


def test_a_stitch_makes_one_stream_of_a_seams_layers() -> None:
    request = produce(rtp(ONE))
    seam = relays.seam(request, "seam", [1, 2, 3])
    stitch = relays.stitch(request, "seam", [1, 2, 3], 9001)
    assert [e["ssrc"] for e in seam["rtpParameters"]["encodings"]] == [1, 2, 3]
    assert stitch["type"] == "simulcast"
    assert [e["ssrc"] for e in stitch["consumableRtpEncodings"]] == [1, 2, 3]
    assert stitch["rtpParameters"]["encodings"] == [{"ssrc": 9001, "scalabilityMode": "L3T3"}]
    assert stitch["preferredLayers"]["spatialLayer"] == 2, "the newest"


def test_the_packets_before_the_first_have_each_streams_ssrc() -> None:
    packets = relays.first_packets(produce(rtp(THREE)))
    assert [unpack("!BBHII", packet) for packet in packets] == [
        (0x80, 101, 0, 0, ssrc) for ssrc in (9001, 9002, 9003)
    ]


def test_a_codec_that_the_room_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="none that the room knows"):
        relays.outer(produce(rtp(ONE, codecs=[{**VP8, "payloadType": 120}])))
