"""Media parameters of virtual peers: those of a browser for real engines, and short ones for the null engine."""

import hashlib
import random
from typing import Any, Final

_FEEDBACK: Final = [{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "goog-remb"}]
_PROFILES: Final = ("low", "medium", "high")
_AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
_SEND_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"


def dtls(chance: random.Random) -> dict[str, Any]:
    """Returns dtlsParameters with a fingerprint that no certificate has."""
    digest = hashlib.sha256(chance.randbytes(16)).hexdigest().upper()
    value = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
    return {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": value}]}


def microphone(chance: random.Random) -> dict[str, Any]:
    """Returns the rtpParameters of one opus stream."""
    opus = _codec("audio", "opus", 111, 48000, {"minptime": 10, "useinbandfec": 1}) | {"channels": 2}
    return _parameters(chance, [opus], {"uri": _AUDIO_LEVEL, "id": 6}, [{"ssrc": _ssrc(chance)}])


def camera(chance: random.Random) -> dict[str, Any]:
    """Returns the rtpParameters of VP8 simulcast with three layers and rtx."""
    vp8 = _codec("video", "VP8", 96, 90000, {}) | {"rtcpFeedback": _FEEDBACK}
    rtx = _codec("video", "rtx", 97, 90000, {"apt": 96})
    layers = [{"ssrc": _ssrc(chance), "rtx": {"ssrc": _ssrc(chance)}, "profile": name} for name in _PROFILES]
    return _parameters(chance, [vp8, rtx], {"uri": _SEND_TIME, "id": 4}, layers)


def _codec(kind: str, name: str, payload_type: int, clock_rate: int, parameters: dict[str, int]) -> dict[str, Any]:
    return {
        "kind": kind,
        "name": name,
        "mimeType": f"{kind}/{name}",
        "payloadType": payload_type,
        "clockRate": clock_rate,
        "rtcpFeedback": [],
        "parameters": parameters,
    }


def _parameters(
    chance: random.Random, codecs: list[dict[str, Any]], extension: dict[str, Any], encodings: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "codecs": codecs,
        "headerExtensions": [extension],
        "encodings": encodings,
        "rtcp": {"cname": f"{chance.getrandbits(64):016x}", "reducedSize": True, "mux": True},
        # like those of a browser that has replaceTrack
        "muxId": f"{chance.getrandbits(32):08x}",
    }


def _ssrc(chance: random.Random) -> int:
    return chance.randrange(1, 2**32)


# --- short ones, always the same ------------------------------------------------------------------------------

FINGERPRINT: Final = {"role": "client", "fingerprints": [{"algorithm": "sha-256", "value": "A1:B2:C3"}]}
"""dtlsParameters that no certificate has."""


def audio(ssrc: int) -> dict[str, Any]:
    """Returns the rtpParameters of a microphone."""
    codec = {
        "name": "opus",
        "mimeType": "audio/opus",
        "kind": "audio",
        "payloadType": 111,
        "clockRate": 48000,
        "channels": 2,
        "rtcpFeedback": [],
        "parameters": {"minptime": 10, "useinbandfec": 1},
    }
    return _short(codec, ssrc)


def video(ssrc: int) -> dict[str, Any]:
    """Returns the rtpParameters of a camera."""
    codec = {
        "name": "VP8",
        "mimeType": "video/VP8",
        "kind": "video",
        "payloadType": 96,
        "clockRate": 90000,
        "rtcpFeedback": _FEEDBACK,
        "parameters": {},
    }
    return _short(codec, ssrc)


def _short(codec: dict[str, Any], ssrc: int) -> dict[str, Any]:
    return {
        "codecs": [codec],
        "headerExtensions": [],
        "encodings": [{"ssrc": ssrc}],
        "rtcp": {"cname": f"cname-{ssrc}", "reducedSize": True, "mux": True},
    }
