"""Samples of what clients send: capabilities, DTLS and RTP parameters, as JSON."""

from typing import Any

import msgspec

from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES

Json = dict[str, Any]

CAPABILITIES: Json = msgspec.to_builtins(DEFAULT_ROOM_CAPABILITIES)
AUDIO_ONLY: Json = {
    "codecs": [codec for codec in CAPABILITIES["codecs"] if codec["kind"] == "audio"],
    "headerExtensions": [],
}
NO_CODECS: Json = {"codecs": [], "headerExtensions": []}
DTLS: Json = {"fingerprints": [{"algorithm": "sha-256", "value": "AA:BB"}], "role": "client"}

OPUS: Json = {
    "codecs": [{"name": "opus", "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}],
    "encodings": [{"ssrc": 1111}],
    "rtcp": {"cname": "a-cname"},
}
VP8: Json = {
    "codecs": [{"name": "VP8", "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000}],
    "encodings": [{"ssrc": 2001, "profile": "high"}, {"ssrc": 2002, "profile": "low"}],
    "rtcp": {"cname": "a-cname"},
}


def error_of(answer: Json) -> tuple[int, str]:
    return answer["errorCode"], answer["errorReason"]
