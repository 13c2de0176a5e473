"""The parameters of an updatable producer's parts: only what the room knows passes the loopback."""

from typing import Any

import msgspec
import pytest

from medianode.engines.mediasoup import relay_parameters
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


def test_only_codecs_that_the_engine_can_switch_are_switched() -> None:
    assert relay_parameters.can_switch(produce(rtp(ONE)))
    assert not relay_parameters.can_switch(produce(rtp(ONE, codecs=[OPUS]), "audio"))
    assert not relay_parameters.can_switch(produce(rtp(ONE, codecs=[{**VP8, "name": "VP9"}])))


def test_packet_ids_are_the_ssrcs_and_encoding_ids() -> None:
    assert relay_parameters.packet_ids(rtp(ONE)) == {11, 12}
    assert relay_parameters.packet_ids(rtp([{"encodingId": "low"}])) == {"low"}
    assert relay_parameters.without_mux_id(rtp(ONE, muxId="0")) == rtp(ONE)


def test_pipe_consumer_carries_the_payload_types_of_the_room() -> None:
    data = relay_parameters.pipe_consumer(produce(rtp(ONE)), "ingest", [7])
    assert (data["type"], data["producer_id"]) == ("PIPE", "ingest")
    assert data["consumable_rtp_encodings"] == data["rtp_parameters"]["encodings"] == [{"ssrc": 7}]
    (codec,) = data["rtp_parameters"]["codecs"]
    assert codec["payload_type"] == 101
    assert codec["rtcp_feedback"] == [{"type": "ccm", "parameter": "fir"}, {"type": "nack", "parameter": "pli"}]
    assert data["rtp_parameters"]["header_extensions"] == [], "the engine writes abs-send-time itself"


def test_header_extensions_have_the_engines_own_ids() -> None:
    parameters = rtp([{"ssrc": 11}], codecs=[OPUS], headerExtensions=[ABS_SEND_TIME, AUDIO_LEVEL])
    data = relay_parameters.pipe_consumer(produce(parameters, "audio"), "ingest", [7])
    assert [(e["uri"], e["id"]) for e in data["rtp_parameters"]["header_extensions"]] == [("SsrcAudioLevel", 6)]
    assert data["rtp_parameters"]["codecs"][0]["parameters"] == [
        {"name": "useinbandfec", "value": ("Integer32", {"value": 1})}
    ]


def test_public_producer_maps_ssrcs_to_themselves() -> None:
    data = relay_parameters.public_producer(produce(rtp(THREE), paused=True))
    assert (data["producer_id"], data["paused"]) == ("producer", True)
    assert data["rtp_mapping"] == {
        "codecs": [{"payload_type": 101, "mapped_payload_type": 101}],
        "encodings": [{"ssrc": ssrc, "mapped_ssrc": ssrc} for ssrc in (9001, 9002, 9003)],
    }


def test_switch_consumer_makes_one_stream_of_all_layers() -> None:
    request = produce(rtp(ONE))
    producer = relay_parameters.switch_producer(request, "switch", [1, 2, 3])
    consumer = relay_parameters.switch_consumer(request, "switch", [1, 2, 3], 9001)
    assert [e["ssrc"] for e in producer["rtp_parameters"]["encodings"]] == [1, 2, 3]
    assert consumer["type"] == "SIMULCAST"
    assert [e["ssrc"] for e in consumer["consumable_rtp_encodings"]] == [1, 2, 3]
    assert consumer["rtp_parameters"]["encodings"] == [{"ssrc": 9001, "scalability_mode": "L3T3"}]
    assert consumer["preferred_layers"]["spatial_layer"] == 2, "the newest"


def test_codec_unknown_to_the_room_is_refused() -> None:
    with pytest.raises(ValueError, match="none that the room knows"):
        relay_parameters.public_producer(produce(rtp(ONE, codecs=[{**VP8, "payloadType": 120}])))
