"""Values for random operations: names, receivers, streams, and all that can be wrong with a message."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from roomworker.core.rtp.codecs import ABS_SEND_TIME
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS

Json = dict[str, Any]

PEERS = ("alice", "bob", "c|arol", "Дана")
ABSENT = object()
APP_DATA: tuple[Any, ...] = (
    ABSENT,
    ABSENT,
    None,
    False,
    True,
    0,
    1.5,
    -7,
    "",
    "é\u2028\U0001f600",
    [],
    {},
    [1, [None, {"a": ""}]],
)
NESTED = {"$consumer": 1, "__proto__": {"x": 1}, "appData": {"method": "closed", "list": [0, False, None, ""]}}
PROFILES = ("default", "low", "medium", "high")
BAD_IDS: tuple[Any, ...] = ("1", 1.5, True, [], {}, -1, 2**60)
WRONG_IDS: tuple[Any, ...] = ("1", 1.5, True, None, [], {}, "", -1, 2**60)
STATS = ("Transport", "Producer", "Consumer")


def _capabilities(keep: Callable[[Json], bool]) -> Json:
    kept = [codec for codec in CAPABILITIES["codecs"] if keep(codec)]
    return {**CAPABILITIES, "codecs": kept}


def _less_feedback() -> Json:
    capabilities = deepcopy(CAPABILITIES)
    for codec in capabilities["codecs"]:
        codec["rtcpFeedback"] = codec["rtcpFeedback"][:1]
    return capabilities


_SEND_TIME = [it for it in CAPABILITIES["headerExtensions"] if it["uri"] == ABS_SEND_TIME]
RECEIVERS: tuple[Json, ...] = (
    CAPABILITIES,
    CAPABILITIES,
    CAPABILITIES,
    _capabilities(lambda codec: codec["kind"] == "audio"),
    _capabilities(lambda codec: codec["name"] != "rtx"),
    _capabilities(lambda codec: codec["name"] == "H264"),
    {"codecs": [], "headerExtensions": []},
    {**CAPABILITIES, "headerExtensions": []},
    {
        **CAPABILITIES,
        "headerExtensions": [it for it in CAPABILITIES["headerExtensions"] if it["uri"] == ABS_SEND_TIME],
    },
    _less_feedback(),
)

_OPUS = {"name": "opus", "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}
_VP8 = {"name": "VP8", "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000}
_RTX = {
    "name": "rtx",
    "mimeType": "video/rtx",
    "payloadType": 97,
    "clockRate": 90000,
    "parameters": {"apt": 96},
}
_H264 = {
    "name": "h264",
    "mimeType": "video/H264",
    "payloadType": 102,
    "clockRate": 90000,
    "parameters": {"packetization-mode": 1},
}
EXTENSIONS = {
    "audio": ["urn:ietf:params:rtp-hdrext:ssrc-audio-level"],
    "video": [
        ABS_SEND_TIME,
        "urn:3gpp:video-orientation",
        "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    ],
}
STREAMS: tuple[tuple[str, list[Json], list[Json]], ...] = (
    ("audio", [_OPUS], [{}]),
    ("video", [_VP8], [{}]),
    ("video", [_VP8, _RTX], [{"rtx": True}]),
    ("video", [_H264], [{"encodingId": "r1"}]),
    ("video", [_VP8], [{"profile": "low"}, {"profile": "high"}]),
    ("video", [_VP8, _RTX], [{"profile": profile, "rtx": True} for profile in ("high", "medium", "low")]),
)
RTCP: tuple[Any, ...] = ({"cname": "a-cname"}, {"cname": "a-cname", "reducedSize": True, "mux": True}, {}, ABSENT)

_ONE = {"codecs": [_OPUS], "encodings": [{"ssrc": 1}]}
SPOILED: dict[str, list[Json]] = {
    "join": [
        {"peerName": ""},
        {"peerName": 5},
        {"rtpCapabilities": None},
        {"rtpCapabilities": {}},
        {"rtpCapabilities": {"codecs": "opus"}},
        {"rtpCapabilities": {"codecs": [{**CAPABILITIES["codecs"][0], "preferredPayloadType": 99}]}},
        {"rtpCapabilities": {"codecs": [{**CAPABILITIES["codecs"][0], "name": "speex"}]}},
        {"rtpCapabilities": {"codecs": [], "headerExtensions": [{"uri": "urn:none", "preferredId": 1}]}},
    ],
    "createTransport": [
        *({"id": id_} for id_ in BAD_IDS),
        {"dtlsParameters": {}},
        {"dtlsParameters": {"fingerprints": []}},
        {"dtlsParameters": {"fingerprints": [{"algorithm": "md5", "value": "AA"}]}},
        {"dtlsParameters": {**DTLS, "role": "actor"}},
    ],
    "createProducer": [
        *({"id": id_} for id_ in BAD_IDS),
        *({"kind": kind} for kind in ("smell", "", None, 1)),
        *({"transportId": id_} for id_ in WRONG_IDS),
        {"rtpParameters": None},
        {"rtpParameters": {}},
        {"rtpParameters": {"codecs": [], "encodings": [{"ssrc": 1}]}},
        {"rtpParameters": {"codecs": [_OPUS], "encodings": []}},
        {"rtpParameters": {"codecs": [_OPUS, _OPUS], "encodings": [{"ssrc": 1}]}},
        {"rtpParameters": {"codecs": [{**_OPUS, "clockRate": 8000}], "encodings": [{"ssrc": 1}]}},
        {"rtpParameters": {"codecs": [_RTX], "encodings": [{"ssrc": 1}]}},
        {"rtpParameters": {"codecs": [_VP8], "encodings": [{"ssrc": 1, "profile": "low"}] * 2}},
        {
            "rtpParameters": {
                "codecs": [_OPUS],
                "encodings": [{"ssrc": 1}],
                "headerExtensions": [{"uri": "u", "id": 1}],
            }
        },
    ],
}

NO_REQUESTS: list[Any] = [
    None,
    5,
    "join",
    [],
    {},
    {"method": 7},
    {"method": "dance"},
    {"method": "leave"},
    {"method": "pauseProducer", "id": 11},
]
NO_NOTIFICATIONS: list[Any] = [
    None,
    [],
    {"notification": True},
    {"notification": True, "method": "queryRoom"},
    {"notification": True, "method": "createTransport", "id": 1, "direction": "send"},
    {"notification": True, "method": None},
]
