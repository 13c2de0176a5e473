"""Deliberate differences that leave both sides in different states, with the shortest sequence that shows each.

Random sequences avoid them. Differences of single values are in `excused_differences.py`.
"""

from dataclasses import dataclass
from typing import Any

from roomworker.core.rtp.codecs import ABS_SEND_TIME, AUDIO_LEVEL
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, OPUS, VP8

Json = dict[str, Any]


@dataclass(frozen=True)
class Divergence:
    """`operations` differ in what the last of them brings about."""

    name: str
    reason: str
    operations: tuple[Json, ...]


def _ask(peer: str, method: str, **message: Any) -> Json:
    return {"do": "request", "peer": peer, "message": {"method": method, **message}}


def _tell(peer: str, method: str, **message: Any) -> Json:
    return {"do": "notify", "peer": peer, "message": {"method": method, "notification": True, **message}}


def _join(peer: str, **more: Any) -> Json:
    return _ask(peer, "join", **{"peerName": peer, "rtpCapabilities": CAPABILITIES, **more})


def _open(peer: str, id_: float, direction: str = "send", **more: Any) -> Json:
    return _ask(peer, "createTransport", **{"id": id_, "direction": direction, **more})


def _produce(peer: str, id_: int, transport: int, **more: Any) -> Json:
    message = {"id": id_, "kind": "audio", "transportId": transport, "rtpParameters": OPUS, **more}
    return _ask(peer, "createProducer", **message)


_ONE_FED = (_join("a"), _join("b"), _open("a", 1), _open("b", 2, "recv"), _produce("a", 10, 1))
_FIRST = {"$consumer": 0}
_NARROW = {"codecs": VP8["codecs"], "encodings": [{"ssrc": 1, "profile": "high"}]}
_UNNAMED = {"codecs": VP8["codecs"], "encodings": [{"ssrc": 1}, {"ssrc": 2}]}
_NO_MIME = {"codecs": [{k: v for k, v in OPUS["codecs"][0].items() if k != "mimeType"}], "encodings": [{"ssrc": 1}]}
_RTX_ONLY = {
    **CAPABILITIES,
    "codecs": [codec for codec in CAPABILITIES["codecs"] if codec["name"] in ("rtx", "opus")],
}
_SEND_TIME = {"kind": "audio", "uri": ABS_SEND_TIME, "preferredId": 4}

DIVERGENCES: tuple[Divergence, ...] = (
    Divergence(
        "ids are a peer's own",
        "Their engine knows transports and producers of the whole room by the client's number, so that two peers' "
        "random numbers may collide. RoomCore are engine ids of their own.",
        (_join("a"), _join("b"), _open("a", 1), _open("b", 1)),
    ),
    Divergence(
        "id 0 is an id",
        "The specification wants a number. Theirs takes 0 for none and makes one up that the client never learns.",
        (_join("a"), _open("a", 0)),
    ),
    Divergence(
        "a missing id is an error",
        "As above: their object cannot be used by anybody.",
        (_join("a"), _ask("a", "createTransport", direction="send")),
    ),
    Divergence(
        "an integer is written as one",
        "1.0 is no id here. JavaScript writes 1 for it.",
        (_join("a"), _open("a", 1.0)),
    ),
    Divergence(
        "ids above 32 bits",
        "The specification does not limit them; theirs are their engine's own, ours are not.",
        (_join("a"), _open("a", 2**32)),
    ),
    Divergence(
        "direction must be send or recv",
        "The specification says so; they store anything.",
        (_join("a"), _open("a", 1, "up")),
    ),
    Divergence(
        "no producer on a receiving transport",
        "The specification's direction is the client's promise; today's clients keep it.",
        (_join("a"), _open("a", 1, "recv"), _produce("a", 10, 1)),
    ),
    Divergence(
        "values of a wrong type are errors",
        "They take any truthy value for true, and falsy dtlsParameters for none.",
        (_join("a"), _open("a", 1), _produce("a", 10, 1, paused="yes")),
    ),
    Divergence(
        "transport options of a wrong type are errors",
        "As above: their engine ignores them.",
        (_join("a"), _open("a", 1, options={"udp": "yes"})),
    ),
    Divergence(
        "an unknown profile is an error",
        "They enable the consumer and log that the profile was refused.",
        (*_ONE_FED, _ask("b", "enableConsumer", id=_FIRST, transportId=2, preferredProfile="ultra")),
    ),
    Divergence(
        "a malformed updateTransport changes nothing",
        "They close the transport. What cannot be read is never applied here; an engine that refuses well-formed "
        "parameters has the transport closed on both sides.",
        (_join("a"), _open("a", 1), _tell("a", "updateTransport", id=1, dtlsParameters={"fingerprints": "none"})),
    ),
    Divergence(
        "a second updateTransport changes nothing",
        "Their engine refuses it and they close the transport, with the media that is flowing. It is a repetition "
        "and harmless here.",
        (_join("a"), _open("a", 1, dtlsParameters=DTLS), _tell("a", "updateTransport", id=1, dtlsParameters=DTLS)),
    ),
    Divergence(
        "a refused enableConsumer changes nothing",
        "They keep its paused and preferredProfile although the answer was an error.",
        (
            *_ONE_FED,
            {
                **_ask("b", "enableConsumer", id=_FIRST, transportId=2, preferredProfile="low"),
                "refuse": True,
            },
            _ask("b", "enableConsumer", id=_FIRST, transportId=2),
        ),
    ),
    Divergence(
        "a connection is one peer's",
        "Which connection may join as whom is left to the application there.",
        (_join("a"), _ask("b", "join", peerName="c", rtpCapabilities=CAPABILITIES)),
    ),
    Divergence(
        "there are limits",
        "How much appData, how many transports and producers a peer may have, and peers a room, is limited.",
        (_join("a", appData="x" * 20_000),),
    ),
    Divergence(
        "updateProducer",
        "The specification has it, they do not. Where the engine can put other SSRCs into a producer nobody notices; "
        "where it cannot (muxId, simulcast) the others get new consumers.",
        (
            *_ONE_FED[:-1],
            _produce("a", 10, 1, rtpParameters={**OPUS, "muxId": "m"}),
            _tell("a", "updateProducer", id=10, rtpParameters={**OPUS, "encodings": [{"ssrc": 7}]}),
        ),
    ),
    Divergence(
        "capabilities without header extensions",
        "They accept the join and then fail in the middle of announcing a producer to that peer: its sender gets an "
        "error for a producer that exists.",
        (
            _join("a"),
            _join("b", rtpCapabilities={"codecs": CAPABILITIES["codecs"]}),
            _open("a", 1),
            _produce("a", 10, 1, rtpParameters={**OPUS, "headerExtensions": [{"uri": AUDIO_LEVEL, "id": 1}]}),
        ),
    ),
    Divergence(
        "capabilities that list a codec twice",
        "Nothing can be meant by it.",
        (
            _join(
                "a", rtpCapabilities={**CAPABILITIES, "codecs": CAPABILITIES["codecs"] + CAPABILITIES["codecs"][:1]}
            ),
        ),
    ),
    Divergence(
        "kind and codec must agree",
        "They do not look: the receivers' clients get an audio consumer with a video codec and fail.",
        (_join("a"), _open("a", 1), _produce("a", 10, 1, rtpParameters=VP8)),
    ),
    Divergence(
        "a codec's missing mimeType follows from kind and name",
        "Their engine insists on it.",
        (_join("a"), _open("a", 1), _produce("a", 10, 1, rtpParameters=_NO_MIME)),
    ),
    Divergence(
        "a profile without simulcast is no error",
        "It says nothing. Their engine insists on its absence.",
        (_join("a"), _open("a", 1), _produce("a", 10, 1, kind="video", rtpParameters=_NARROW)),
    ),
    Divergence(
        "simulcast without profiles goes by position",
        "Clients list their encodings from low to high. Their engine refuses them as two of the same profile.",
        (_join("a"), _open("a", 1), _produce("a", 10, 1, kind="video", rtpParameters=_UNNAMED)),
    ),
    Divergence(
        "rtx goes with its codec",
        "They offer a receiver rtx for a codec that it does not get, and so a consumer that looks receivable.",
        (
            _join("a"),
            _join("b", rtpCapabilities=_RTX_ONLY),
            _open("a", 1),
            _produce("a", 10, 1, kind="video", rtpParameters=VP8),
        ),
    ),
    Divergence(
        "feedback is what both have",
        "They list the receiver's own feedback, which the sender may not offer.",
        (
            _join("a"),
            _join(
                "b",
                rtpCapabilities={
                    "codecs": [{**CAPABILITIES["codecs"][0], "rtcpFeedback": [{"type": "nack"}]}],
                    "headerExtensions": [],
                },
            ),
            _open("a", 1),
            _produce("a", 10, 1),
        ),
    ),
    Divergence(
        "a receiver's header extensions count for their kind",
        "They look at the id alone, which is shared by audio and video.",
        (
            _join("a"),
            _join("b", rtpCapabilities={**CAPABILITIES, "headerExtensions": [_SEND_TIME]}),
            _open("a", 1),
            _produce(
                "a",
                10,
                1,
                kind="video",
                rtpParameters={**VP8, "headerExtensions": [{"uri": ABS_SEND_TIME, "id": 1}]},
            ),
        ),
    ),
    Divergence(
        "a request with notification: true is a request",
        "The frame around it already says so.",
        (_join("a"), _open("a", 1, notification=True)),
    ),
)
