"""v2 dictionaries as browsers send them, and what the engine gets."""

from typing import Any

import msgspec
import pytest

from medianode.engines.mediasoup import translation
from shared.protocol import media
from shared.protocol.rtp import DtlsParameters, Fingerprint, PayloadTypeMapping, RtpParameters

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
    assert data["rtp_parameters"]["encodings"] == [
        {"ssrc": 11, "rtx": {"ssrc": 12}, "scalability_mode": "S1T3"},
        {"ssrc": 21, "rtx": {"ssrc": 22}, "scalability_mode": "S1T3"},
        {"ssrc": 31, "rtx": {"ssrc": 32}, "scalability_mode": "S1T3"},
    ]
    assert data["rtp_mapping"] == {
        "codecs": [
            {"payload_type": 96, "mapped_payload_type": 101},
            {"payload_type": 97, "mapped_payload_type": 102},
        ],
        "encodings": [
            {"ssrc": 11, "mapped_ssrc": 9001},
            {"ssrc": 21, "mapped_ssrc": 9002},
            {"ssrc": 31, "mapped_ssrc": 9003},
        ],
    }
    assert data["rtp_parameters"]["mid"] == "0"
    assert data["rtp_parameters"]["rtcp"] == {"cname": "name", "reduced_size": True}


def test_firefox_simulcast_goes_by_rid_and_ssrcs_that_it_does_not_know() -> None:
    data = produce(FIREFOX_SIMULCAST)
    encodings = data["rtp_parameters"]["encodings"]
    assert [e["rid"] for e in encodings] == ["low0", "medium0", "high0"]
    ssrcs = [e["ssrc"] for e in encodings]
    assert data["rtp_mapping"]["encodings"] == [
        {"rid": "low0", "ssrc": ssrcs[0], "mapped_ssrc": 9001},
        {"rid": "medium0", "ssrc": ssrcs[1], "mapped_ssrc": 9002},
        {"rid": "high0", "ssrc": ssrcs[2], "mapped_ssrc": 9003},
    ]
    assert 0 not in ssrcs
    assert len(set(ssrcs)) == 3
    again = produce(FIREFOX_SIMULCAST)["rtp_parameters"]["encodings"]
    assert [e["ssrc"] for e in again] != ssrcs, "a client could learn them"


@pytest.mark.parametrize("ssrc", [0, 11])
def test_encoding_with_an_ssrc_is_passed_on_without_its_rid(ssrc: int) -> None:
    data = produce(parameters(encodings=[{"encodingId": "r", "ssrc": ssrc, "rtx": {"ssrc": 12}}]))
    assert data["rtp_parameters"]["encodings"] == [{"ssrc": ssrc, "rtx": {"ssrc": 12}}]
    assert data["rtp_mapping"]["encodings"] == [{"ssrc": ssrc, "mapped_ssrc": 9001}]


def test_missing_cname_is_the_transport_because_the_engine_insists_on_one() -> None:
    data = produce(parameters(encodings=[{"ssrc": 11}]))
    assert data["rtp_parameters"]["rtcp"] == {"cname": "transport"}
    data = produce(parameters(encodings=[{"ssrc": 11}], rtcp={"cname": "", "reducedSize": False}))
    assert data["rtp_parameters"]["rtcp"] == {"cname": "transport", "reduced_size": False}


def test_rtx_of_an_encoding_without_ssrc_is_left_out() -> None:
    data = produce(parameters(encodings=[{"encodingId": "r", "rtx": {"ssrc": 12}}]))
    (encoding,) = data["rtp_parameters"]["encodings"]
    assert encoding.keys() == {"rid", "ssrc"}


def test_header_extensions_that_the_engine_must_not_use_are_left_out() -> None:
    """By a mid the engine would take packets of any SSRC for a stream."""
    extensions = [
        {"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 1},
        {"uri": "urn:unknown", "id": 9},
        ABS_SEND_TIME,
    ]
    data = produce(parameters(encodings=[{"ssrc": 11}], headerExtensions=extensions))
    assert [e["uri"] for e in data["rtp_parameters"]["header_extensions"]] == ["AbsSendTime"]


def test_codec_parameters_get_the_engines_types() -> None:
    given = {
        "text": "a=b",
        "apt": 96,
        "large": 2**31,
        "fraction": 1.5,
        "whole": 96.0,
        "countless": 10**400,
        "yes": True,
        "list": [1, 2],
        "nothing": None,
        "deep": {"a": 1},
        "mixed": [1, "a"],
        "bits": [True],
    }
    codec = produce(parameters(codecs=[{**VP8, "parameters": given}], encodings=[{"ssrc": 11}]))
    assert codec["rtp_parameters"]["codecs"][0]["parameters"] == [
        {"name": "text", "value": ("String", {"value": "a=b"})},
        {"name": "apt", "value": ("Integer32", {"value": 96})},
        {"name": "large", "value": ("Double", {"value": 2.0**31})},
        {"name": "fraction", "value": ("Double", {"value": 1.5})},
        {"name": "whole", "value": ("Integer32", {"value": 96})},
        {"name": "yes", "value": ("Boolean", {"value": 1})},
        {"name": "list", "value": ("Integer32Array", {"value": [1, 2]})},
    ]


def test_single_encoding_has_no_layers() -> None:
    data = produce(parameters(encodings=[{"ssrc": 11, "profile": "default"}]), paused=True)
    assert data["rtp_parameters"]["encodings"] == [{"ssrc": 11}]
    assert data["rtp_mapping"]["encodings"] == [{"ssrc": 11, "mapped_ssrc": 9001}]
    assert data["paused"] is True


def test_codecs_lose_their_name_and_feedback_gets_a_parameter() -> None:
    vp8 = produce(parameters(encodings=[{"ssrc": 11}]))["rtp_parameters"]["codecs"][0]
    assert "name" not in vp8
    assert "channels" not in vp8
    assert {"type": "nack", "parameter": ""} in vp8["rtcp_feedback"]
    assert {"type": "goog-remb", "parameter": ""} in vp8["rtcp_feedback"], "what clients send may be estimated"


def test_channels_are_for_audio_only() -> None:
    opus = msgspec.convert({"codecs": [OPUS], "encodings": [{"ssrc": 1}]}, RtpParameters)
    assert produce(opus, kind="audio")["rtp_parameters"]["codecs"][0]["channels"] == 2
    odd = parameters(codecs=[{**VP8, "channels": 1}], encodings=[{"ssrc": 11}])
    assert "channels" not in produce(odd)["rtp_parameters"]["codecs"][0]


def test_codec_without_mime_type_is_known_by_name() -> None:
    nameless = {key: value for key, value in VP8.items() if key != "mimeType"}
    data = produce(parameters(codecs=[nameless], encodings=[{"ssrc": 11}]))
    assert data["rtp_parameters"]["codecs"][0]["mime_type"] == "video/VP8"


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
    assert data["type"] == "SIMULCAST"
    assert data["rtp_parameters"]["encodings"] == [{"ssrc": 51, "rtx": {"ssrc": 52}, "scalability_mode": "L3T3"}]
    assert data["consumable_rtp_encodings"] == [{"ssrc": s, "scalability_mode": "S1T3"} for s in (9001, 9002, 9003)]
    assert data["preferred_layers"]["spatial_layer"] == 1
    assert data["paused"] is True


def test_simple_consumer_has_no_layers() -> None:
    data = consume(TOLD, [9001])
    assert data["type"] == "SIMPLE"
    assert data["consumable_rtp_encodings"] == [{"ssrc": 9001}]
    assert "preferred_layers" not in data


def test_consumers_get_no_bandwidth_feedback_but_header_extensions() -> None:
    rtp = consume(TOLD, [9001])["rtp_parameters"]
    assert {f["type"] for f in rtp["codecs"][0]["rtcp_feedback"]} == {"ccm", "nack"}
    assert rtp["header_extensions"] == [{"uri": "AbsSendTime", "id": 4, "encrypt": False, "parameters": []}]


def test_consumer_starts_with_its_preferred_layers() -> None:
    simple = media.Consume(ROUTER, "t", "c", "p", "video", TOLD, [9001])
    assert translation.consumed(simple).effective_profile == "default"
    simulcast = media.Consume(ROUTER, "t", "c", "p", "video", TOLD, [9001, 9002])
    assert translation.consumed(simulcast).effective_profile == "none"


def test_profiles_are_translated_to_layers() -> None:
    assert [translation.preferred_layers(p)["spatial_layer"] for p in ("low", "medium", "high")] == [0, 1, 2]
    assert translation.preferred_layers("default")["spatial_layer"] > 2, "the engine takes it for its highest"


# --- transports -----------------------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {
    "ice_parameters": {"username_fragment": "u", "password": "p", "ice_lite": True},
    "ice_candidates": [
        {
            "foundation": "f",
            "address": "1.2.3.4",
            "port": 5,
            "priority": 6,
            "protocol": "TCP",
            "tcp_type": "PASSIVE",
            "type": "HOST",
        },
        {"foundation": "g", "address": "1.2.3.4", "port": 5, "priority": 7, "protocol": "UDP", "type": "HOST"},
    ],
    "dtls_parameters": {
        "role": "AUTO",
        "fingerprints": [
            {"algorithm": "SHA256", "value": "256"},
            {"algorithm": "SHA512", "value": "512"},
            {"algorithm": "SHA1", "value": "1"},
        ],
    },
    "ice_state": "NEW",
}


def test_sha_256_stands_last_because_clients_take_the_last() -> None:
    created = translation.transport_created(ANSWER, None)
    assert [f.algorithm for f in created.dtls_parameters.fingerprints] == ["sha-512", "sha-1", "sha-256"]
    assert created.dtls_parameters.role == "auto"


def test_transport_connected_at_once_reports_its_role() -> None:
    assert translation.transport_created(ANSWER, "SERVER").dtls_parameters.role == "server"


def test_candidates_get_the_names_of_v2() -> None:
    assert msgspec.to_builtins(translation.transport_created(ANSWER, None).ice_candidates) == [
        {
            "foundation": "f",
            "ip": "1.2.3.4",
            "port": 5,
            "priority": 6,
            "protocol": "tcp",
            "tcpType": "passive",
            "type": "host",
        },
        {"foundation": "g", "ip": "1.2.3.4", "port": 5, "priority": 7, "protocol": "udp", "type": "host"},
    ]


def test_transport_options_map_by_name() -> None:
    data = translation.create_transport(media.CreateTransport(ROUTER, "t", tcp=False, prefer_udp=True), "s", 1_000)
    options = data["options"]
    assert [options[f"enable_{p}"] for p in ("udp", "tcp")] == [True, False]
    assert [options[f"prefer_{p}"] for p in ("udp", "tcp")] == [True, False]
    assert options["listen"] == ("ListenServer", {"web_rtc_server_id": "s"})
    assert options["base"] == {"initial_available_outgoing_bitrate": 1_000}


@pytest.mark.parametrize(
    ("algorithms", "chosen"),
    [
        (["sha-256"], 0),
        (["md5", "sha-256"], 1),
        (["sha-256", "md5"], 0),
        (["sha-256", "sha-1"], 1),
        (["md5", "sha-512", "SHA-256", "", "x" * 256], 1),
    ],
)
def test_last_fingerprint_of_a_known_algorithm_is_the_engines(algorithms: list[str], chosen: int) -> None:
    """As in mediasoup 2: the engine itself would take the first."""
    given = [Fingerprint(algorithm, str(index)) for index, algorithm in enumerate(algorithms)]

    data = translation.connect_transport(DtlsParameters(given, "client"))["dtls_parameters"]

    name = algorithms[chosen].replace("-", "").upper()
    assert data == {"role": "CLIENT", "fingerprints": [{"algorithm": name, "value": str(chosen)}]}


def test_fingerprints_of_unknown_algorithms_only_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^dtlsParameters.fingerprints: 'md5', 'x+….* is none of sha-1, sha-224,"):
        translation.connect_transport(DtlsParameters([Fingerprint("md5", ""), Fingerprint("x" * 256, "")]))


# --- events ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("CONSUMER_LAYERS_CHANGE", {"layers": {"spatial_layer": 0}}, media.ProfileChanged("id", "low")),
        ("CONSUMER_LAYERS_CHANGE", {"layers": {"spatial_layer": 2}}, media.ProfileChanged("id", "high")),
        ("CONSUMER_LAYERS_CHANGE", {}, media.ProfileChanged("id", "none")),
        ("CONSUMER_LAYERS_CHANGE", None, media.ProfileChanged("id", "none")),
        (
            "WEBRTCTRANSPORT_ICE_STATE_CHANGE",
            {"ice_state": "COMPLETED"},
            media.IceStateChanged("id", "completed"),
        ),
        ("WEBRTCTRANSPORT_DTLS_STATE_CHANGE", {"dtls_state": "FAILED"}, media.DtlsStateChanged("id", "failed")),
        ("WEBRTCTRANSPORT_DTLS_STATE_CHANGE", None, None),
        ("PRODUCER_SCORE", {"scores": [{"ssrc": 1, "score": 9}]}, media.Score("id", [{"ssrc": 1, "score": 9}])),
        ("CONSUMER_SCORE", {"score": {"score": 9, "producer_score": 10}}, None),
        ("CONSUMER_PRODUCER_PAUSE", None, None),
    ],
)
def test_notifications_become_events(name: str, data: Any, expected: media.AnyEvent | None) -> None:
    assert translation.event("id", name, data) == expected
