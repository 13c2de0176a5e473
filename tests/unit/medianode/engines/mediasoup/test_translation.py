"""v2 dictionaries as browsers send them, and what the engine gets."""

from typing import Any

import msgspec
import pytest

from medianode.engines.mediasoup import translation
from shared.protocol import media
from shared.protocol.rtp import PayloadTypeMapping, RtpParameters

ROUTER = media.RouterRef("router", 0, "room", "i", 1)

VP8 = {
    "name": "VP8",
    "mimeType": "video/VP8",
    "payloadType": 96,
    "clockRate": 90000,
    "rtcpFeedback": [
        {"type": "goog-remb"},
        {"type": "transport-cc"},
        {"type": "ccm", "parameter": "fir"},
        {"type": "nack"},
        {"type": "nack", "parameter": "pli"},
    ],
    "parameters": {},
}
RTX = {
    "name": "rtx",
    "mimeType": "video/rtx",
    "payloadType": 97,
    "clockRate": 90000,
    "rtcpFeedback": [],
    "parameters": {"apt": 96},
}
OPUS = {
    "name": "opus",
    "mimeType": "audio/opus",
    "payloadType": 111,
    "clockRate": 48000,
    "channels": 2,
    "rtcpFeedback": [],
    "parameters": {"minptime": 10, "useinbandfec": 1},
}
ABS_SEND_TIME = {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 4}


def parameters(**fields: Any) -> RtpParameters:
    return msgspec.convert({"codecs": [VP8, RTX], "headerExtensions": [ABS_SEND_TIME], **fields}, RtpParameters)


def produce(rtp: RtpParameters, kind: Any = "video", ssrcs: list[int] | None = None, **more: Any) -> dict[str, Any]:
    mapped = ssrcs if ssrcs is not None else [9001 + i for i in range(len(rtp.encodings))]
    types = [PayloadTypeMapping(96, 101), PayloadTypeMapping(97, 102)]
    return translation.produce(media.Produce(ROUTER, "transport", "producer", kind, rtp, types, mapped, **more))


def consume(rtp: RtpParameters, ssrcs: list[int], kind: Any = "video", **more: Any) -> dict[str, Any]:
    return translation.consume(media.Consume(ROUTER, "transport", "consumer", "producer", kind, rtp, ssrcs, **more))


CHROME_SIMULCAST = parameters(
    encodings=[
        {"ssrc": 11, "rtx": {"ssrc": 12}, "profile": "low"},
        {"ssrc": 21, "rtx": {"ssrc": 22}, "profile": "medium"},
        {"ssrc": 31, "rtx": {"ssrc": 32}, "profile": "high"},
    ],
    rtcp={"cname": "name", "reducedSize": True, "mux": True},
    muxId="0",
)

FIREFOX_SIMULCAST = parameters(
    encodings=[
        {"encodingId": "low0", "profile": "low"},
        {"encodingId": "medium0", "profile": "medium"},
        {"encodingId": "high0", "profile": "high"},
    ],
    rtcp={"cname": "{name}"},
    muxId="1",
)


# --- producing ------------------------------------------------------------------------------------------------


def test_chrome_simulcast_goes_by_ssrc() -> None:
    data = produce(CHROME_SIMULCAST)
    assert data["rtpParameters"]["encodings"] == [
        {"ssrc": 11, "rtx": {"ssrc": 12}, "scalabilityMode": "S1T3"},
        {"ssrc": 21, "rtx": {"ssrc": 22}, "scalabilityMode": "S1T3"},
        {"ssrc": 31, "rtx": {"ssrc": 32}, "scalabilityMode": "S1T3"},
    ]
    assert data["rtpMapping"] == {
        "codecs": [{"payloadType": 96, "mappedPayloadType": 101}, {"payloadType": 97, "mappedPayloadType": 102}],
        "encodings": [
            {"ssrc": 11, "mappedSsrc": 9001, "scalabilityMode": "S1T3"},
            {"ssrc": 21, "mappedSsrc": 9002, "scalabilityMode": "S1T3"},
            {"ssrc": 31, "mappedSsrc": 9003, "scalabilityMode": "S1T3"},
        ],
    }
    assert data["rtpParameters"]["mid"] == "0"
    assert data["rtpParameters"]["rtcp"] == {"cname": "name", "reducedSize": True}


def test_firefox_simulcast_goes_by_rid() -> None:
    data = produce(FIREFOX_SIMULCAST)
    assert [e["rid"] for e in data["rtpParameters"]["encodings"]] == ["low0", "medium0", "high0"]
    assert data["rtpMapping"]["encodings"] == [
        {"rid": "low0", "mappedSsrc": 9001, "scalabilityMode": "S1T3"},
        {"rid": "medium0", "mappedSsrc": 9002, "scalabilityMode": "S1T3"},
        {"rid": "high0", "mappedSsrc": 9003, "scalabilityMode": "S1T3"},
    ]


def test_encoding_with_a_rid_is_passed_on_without_its_ssrc() -> None:
    data = produce(parameters(encodings=[{"encodingId": "r", "ssrc": 11, "rtx": {"ssrc": 12}}]))
    assert data["rtpParameters"]["encodings"] == [{"rid": "r"}]


def test_single_encoding_has_no_layers() -> None:
    data = produce(parameters(encodings=[{"ssrc": 11, "profile": "default"}]), paused=True)
    assert data["rtpParameters"]["encodings"] == [{"ssrc": 11}]
    assert data["rtpMapping"]["encodings"] == [{"ssrc": 11, "mappedSsrc": 9001}]
    assert data["paused"] is True


def test_codecs_lose_their_name_and_feedback_gets_a_parameter() -> None:
    vp8 = produce(parameters(encodings=[{"ssrc": 11}]))["rtpParameters"]["codecs"][0]
    assert "name" not in vp8
    assert "channels" not in vp8
    assert {"type": "nack", "parameter": ""} in vp8["rtcpFeedback"]
    assert {"type": "goog-remb", "parameter": ""} in vp8["rtcpFeedback"], "what clients send may be estimated"


def test_channels_are_for_audio_only() -> None:
    opus = msgspec.convert({"codecs": [OPUS], "encodings": [{"ssrc": 1}]}, RtpParameters)
    assert produce(opus, kind="audio")["rtpParameters"]["codecs"][0]["channels"] == 2
    odd = parameters(codecs=[{**VP8, "channels": 1}], encodings=[{"ssrc": 11}])
    assert "channels" not in produce(odd)["rtpParameters"]["codecs"][0]


def test_codec_without_mime_type_is_known_by_name() -> None:
    nameless = {key: value for key, value in VP8.items() if key != "mimeType"}
    data = produce(parameters(codecs=[nameless], encodings=[{"ssrc": 11}]))
    assert data["rtpParameters"]["codecs"][0]["mimeType"] == "video/VP8"


@pytest.mark.parametrize("mime_type", ["video/red", "video/ULPFEC", "video/flexfec", "audio/opus", "VP8"])
def test_codecs_that_would_end_the_engine_are_refused(mime_type: str) -> None:
    codec = {**VP8, "name": "x", "mimeType": mime_type, "payloadType": 99}
    with pytest.raises(ValueError, match="codecs"):
        produce(parameters(codecs=[VP8, codec], encodings=[{"ssrc": 11}]))


def test_encodings_need_a_mapped_ssrc_each() -> None:
    with pytest.raises(ValueError, match="argument"):
        produce(CHROME_SIMULCAST, ssrcs=[1])


# --- consuming ------------------------------------------------------------------------------------------------

TOLD = parameters(encodings=[{"ssrc": 51, "rtx": {"ssrc": 52}}], rtcp={"cname": "name"})


def test_simulcast_consumer_has_one_stream_of_all_layers() -> None:
    data = consume(TOLD, [9001, 9002, 9003], preferred_profile="medium", paused=True)
    assert data["type"] == "simulcast"
    assert data["rtpParameters"]["encodings"] == [{"ssrc": 51, "rtx": {"ssrc": 52}, "scalabilityMode": "L3T3"}]
    assert data["consumableRtpEncodings"] == [{"ssrc": s, "scalabilityMode": "S1T3"} for s in (9001, 9002, 9003)]
    assert data["preferredLayers"]["spatialLayer"] == 1
    assert data["paused"] is True


def test_simple_consumer_has_no_layers() -> None:
    data = consume(TOLD, [9001])
    assert data["type"] == "simple"
    assert data["consumableRtpEncodings"] == [{"ssrc": 9001}]
    assert "preferredLayers" not in data


def test_consumers_get_no_bandwidth_feedback_but_header_extensions() -> None:
    rtp = consume(TOLD, [9001])["rtpParameters"]
    assert {f["type"] for f in rtp["codecs"][0]["rtcpFeedback"]} == {"ccm", "nack"}
    assert rtp["headerExtensions"] == [{**ABS_SEND_TIME, "encrypt": False, "parameters": {}}]


def test_consumer_starts_with_its_preferred_layers() -> None:
    simple = media.Consume(ROUTER, "t", "c", "p", "video", TOLD, [9001])
    assert translation.consumed(simple).effective_profile == "default"
    simulcast = media.Consume(ROUTER, "t", "c", "p", "video", TOLD, [9001, 9002])
    assert translation.consumed(simulcast).effective_profile == "none"


def test_profiles_are_translated_to_layers() -> None:
    assert [translation.preferred_layers(p)["spatialLayer"] for p in ("low", "medium", "high")] == [0, 1, 2]
    assert translation.preferred_layers("default")["spatialLayer"] > 2, "the engine takes it for its highest"


# --- transports -----------------------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {
    "iceParameters": {"usernameFragment": "u", "password": "p", "iceLite": True},
    "iceCandidates": [
        {
            "foundation": "f",
            "ip": "1.2.3.4",
            "port": 5,
            "priority": 6,
            "protocol": "tcp",
            "tcpType": "passive",
            "type": "host",
        }
    ],
    "dtlsParameters": {
        "role": "auto",
        "fingerprints": [
            {"algorithm": "sha-256", "value": "256"},
            {"algorithm": "sha-512", "value": "512"},
            {"algorithm": "sha-1", "value": "1"},
        ],
    },
    "iceState": "new",
}


def test_sha_256_stands_last_because_clients_take_the_last() -> None:
    created = translation.transport_created(ANSWER, None)
    assert [f.algorithm for f in created.dtls_parameters.fingerprints] == ["sha-512", "sha-1", "sha-256"]
    assert created.dtls_parameters.role == "auto"


def test_transport_connected_at_once_reports_its_role() -> None:
    assert translation.transport_created(ANSWER, "server").dtls_parameters.role == "server"


def test_candidates_keep_their_fields() -> None:
    (candidate,) = translation.transport_created(ANSWER, None).ice_candidates
    assert msgspec.to_builtins(candidate) == ANSWER["iceCandidates"][0]


def test_transport_options_map_by_name() -> None:
    data = translation.create_transport(media.CreateTransport(ROUTER, "t", tcp=False, prefer_udp=True), "s", 1_000)
    assert (data["enableUdp"], data["enableTcp"], data["preferUdp"], data["preferTcp"]) == (True, False, True, False)
    assert data["webRtcServerId"] == "s"


# --- events ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("layerschange", {"spatialLayer": 0, "temporalLayer": 2}, media.ProfileChanged("id", "low")),
        ("layerschange", {"spatialLayer": 2, "temporalLayer": 0}, media.ProfileChanged("id", "high")),
        ("layerschange", None, media.ProfileChanged("id", "none")),
        ("layerschange", {}, media.ProfileChanged("id", "none")),
        ("icestatechange", {"iceState": "completed"}, media.IceStateChanged("id", "completed")),
        ("dtlsstatechange", {"dtlsState": "failed"}, media.DtlsStateChanged("id", "failed")),
        ("score", [{"ssrc": 1, "score": 9}], media.Score("id", [{"ssrc": 1, "score": 9}])),
        ("score", {"score": 9, "producerScore": 10}, None),
        ("producerpause", None, None),
    ],
)
def test_notifications_become_events(name: str, data: Any, expected: media.AnyEvent | None) -> None:
    assert translation.event("id", name, data) == expected
